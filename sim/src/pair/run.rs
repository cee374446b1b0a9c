//! The thread that lets both cards live, and its clock.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeSpec;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;
use ring::rand::{SecureRandom, SystemRandom};

use super::faults_from::{BadSource, FaultsFrom};
use super::options::{Args, BadOptions};
use super::printer::Printer;
use super::state_file::{BadState, Memories};
use super::status;
use crate::link::{BadPair, CardPair, End};
use crate::server::{BadSocket, Port, Server};

/// Pause after a step that was busy; each idle step doubles it.
const PAUSE_MIN: Duration = Duration::from_micros(50);
/// Longest pause while a host is connected. It bounds how late a card sees a command.
const PAUSE_CONNECTED: Duration = Duration::from_micros(500);
/// Longest pause while none is.
const PAUSE_ALONE: Duration = Duration::from_millis(10);
/// The cards' clock moves by at most this at a time: after the host was suspended the link does not distil the
/// hours that it has slept.
const STRIDE_MAX: Duration = Duration::from_secs(1);
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// Why a pair cannot run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Options(#[from] BadOptions),
    #[error(transparent)]
    State(#[from] BadState),
    #[error(transparent)]
    Pair(#[from] BadPair),
    #[error(transparent)]
    Socket(#[from] BadSocket),
    #[error(transparent)]
    Faults(#[from] BadSource),
    #[error("signals cannot be taken: {0}")]
    Signals(Errno),
    #[error("memory for a card's registers: {0}")]
    Memory(io::Error),
    #[error("the operating system gives no random numbers")]
    Randomness,
    #[error("the same socket for both cards: name two")]
    SameSocket,
}

/// Serves both cards until SIGTERM or SIGINT.
pub(crate) fn serve(args: &Args) -> Result<(), Failure> {
    if args.socket_a == args.socket_b {
        return Err(Failure::SameSocket);
    }
    // Blocked before any thread begins, so that every thread inherits it and only the descriptor hears them.
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block().map_err(Failure::Signals)?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&signals, flags).map_err(Failure::Signals)?;

    let mut drawn = [0; 32];
    SystemRandom::new().fill(&mut drawn).map_err(|_| Failure::Randomness)?;
    let mut fresh = ChaCha12Rng::from_seed(drawn);
    let memories = Memories::load(args.state_file.as_deref(), || fresh.next_u64())?;
    let options = args.pair_options(memories.serials, &mut fresh)?;
    let plan = args.fault_plan(options.seed)?;
    let faults = args.faults_from.as_deref().map(FaultsFrom::open).transpose()?;
    let mut pair = CardPair::new(&options, plan, memories.memories)?;
    log::info!("a link of {:.2} dB, seed {}", options.loss_db, options.seed);

    let port = |card: &crate::card::Card| {
        let identity = card.identity();
        let port = Port::new(identity.device_id, identity.serial).map_err(Failure::Memory)?;
        Ok::<_, Failure>(Arc::new(if args.no_error_interrupt {
            port.without_error_interrupt()
        } else {
            port
        }))
    };
    let ports = [port(pair.card(End::A))?, port(pair.card(End::B))?];
    let mut clock = Clock::start();
    // Powered on before anybody can connect: a client never reads registers that were not set.
    step(&mut pair, &ports, clock.now());
    let [port_a, port_b] = &ports;
    let servers = [
        Server::start(&args.socket_a, Arc::clone(port_a))?,
        Server::start(&args.socket_b, Arc::clone(port_b))?,
    ];
    announce(&mut io::stdout());
    live(&mut pair, &ports, &mut clock, &signals, args.json, faults);
    // The servers end first: a client that leaves now is answered by nobody else.
    drop(servers);
    Ok(())
}

fn announce(out: &mut dyn Write) {
    if let Err(error) = writeln!(out, "ready").and_then(|()| out.flush()) {
        log::warn!("nobody reads that the pair is ready: {error}");
    }
}

fn live(
    pair: &mut CardPair,
    ports: &[Arc<Port>; 2],
    clock: &mut Clock,
    signals: &SignalFd,
    json: bool,
    mut faults: Option<FaultsFrom>,
) {
    let mut pause = PAUSE_MIN;
    let mut printer = Printer::start();
    let mut status_due = json.then(|| Instant::now() + STATUS_EVERY);
    loop {
        let now = clock.now();
        let asked = faults.as_mut().is_some_and(|faults| faults.take(pair, now, &mut printer));
        let (busy, connected) = step(pair, ports, now);
        if let Some(faults) = faults.as_mut() {
            faults.answer(now, &mut printer);
        }
        if let Some(due) = status_due.as_mut().filter(|due| Instant::now() >= **due) {
            *due = Instant::now() + STATUS_EVERY;
            let mut line = Vec::new();
            let seconds = Duration::from_micros(now).as_secs_f64();
            if status::print(&mut line, pair, seconds, connected).is_ok() {
                printer.status(line);
            }
        }
        let longest = if connected.contains(&true) { PAUSE_CONNECTED } else { PAUSE_ALONE };
        pause = if busy || asked { PAUSE_MIN } else { (pause * 2).min(longest) };
        if signalled(signals, pause) {
            return;
        }
    }
}

fn step(pair: &mut CardPair, ports: &[Arc<Port>; 2], now: u64) -> (bool, [bool; 2]) {
    pair.advance(now);
    let [a, b] = ports;
    let a = a.step(pair.card(End::A), now);
    let b = b.step(pair.card(End::B), now);
    (a.busy || b.busy, [a.connected, b.connected])
}

/// Waits for `pause`; true when a signal came meanwhile.
fn signalled(signals: &SignalFd, pause: Duration) -> bool {
    let mut waiting = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    match ppoll(&mut waiting, Some(TimeSpec::from_duration(pause)), None) {
        Ok(ready) => ready > 0,
        Err(Errno::EINTR) => false,
        Err(error) => {
            log::error!("waiting: {error}");
            true
        }
    }
}

/// Microseconds since the start that never jump.
struct Clock {
    last: Instant,
    passed: Duration,
}

impl Clock {
    fn start() -> Self {
        Self { last: Instant::now(), passed: Duration::ZERO }
    }

    fn now(&mut self) -> u64 {
        let now = Instant::now();
        self.passed += now.saturating_duration_since(self.last).min(STRIDE_MAX);
        self.last = now;
        u64::try_from(self.passed.as_micros()).unwrap_or(u64::MAX)
    }
}

//! The engine: brings together card, key agreement, ledger, peer link and pushers in one task.
//!
//! Every turn takes in what has happened and lets the [`Core`] decide. What it writes is made durable by a thread, in one
//! commit for all that has gathered while the commit before was under way; its number goes to the card's cell; and only
//! when the cell shows it are the actions carried out that depend on it. Nothing but this task changes the state of the
//! key agreement.

mod aside;
mod audit;
mod batches;
mod card;
mod clock;
mod ending;
mod exit;
mod first_light;
mod inputs;
mod keys;
mod losses;
mod operators;
mod passed;
mod picture;
mod saying;
mod start;
mod streams;
mod supervision;
mod tally;
mod watch;
mod writer;
mod zeroize;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use self::audit::Auditing;
use self::batches::Batches;
pub use self::card::CardEnd;
use self::card::{CardPort, ToCard};
pub use self::exit::{Failure, KeyFault};
use self::inputs::Inputs;
use self::keys::Keys;
use self::losses::Losses;
use self::saying::Saying;
pub use self::start::{Addresses, run};
pub use self::streams::PushFault;
use self::streams::Streams;
use self::supervision::Supervision;
use self::watch::Watch;
use self::writer::{Next, Writer};
use self::zeroize::Zeroizing;
use crate::agreement::{Action, BlockName, Core, Event, Level, Message, Output};
use crate::audit::{What, Who};
use crate::calls::Answer;
use crate::peer::Link;
use crate::timing;
use crate::vault::Vault;

/// While the card's thread is behind with acknowledgements.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

struct Engine {
    core: Core,
    writer: Writer,
    batches: Batches,
    keys: Keys,
    vault: Vault,
    card: CardPort,
    link: Link,
    streams: Streams,
    inputs: Inputs,
    /// Calls that wait for their answer.
    waiting: HashMap<u64, oneshot::Sender<Answer>>,
    next_call: u64,
    /// Orders that the card's thread had no room for.
    orders: VecDeque<ToCard>,
    link_state: Option<qkd_driver::LinkState>,
    secret_key_rate: u64,
    saying: Saying,
    losses: Losses,
    supervision: Supervision,
    watch: Watch,
    auditing: Auditing,
    /// An operator has every key destroyed.
    zeroizing: Option<Zeroizing>,
    /// What the core wants, as far as its writes are not under way.
    out: Output,
}

impl Engine {
    /// Works until `stop` is done or something fails, and then leaves no key behind.
    async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), Failure> {
        let end = self.work(stop).await;
        self.shut_down(end).await
    }

    async fn work(&mut self, stop: impl Future<Output = ()>) -> Result<(), Failure> {
        tokio::pin!(stop);
        self.handle(Event::Start);
        self.settle()?;
        loop {
            let awake = std::sync::Arc::clone(&self.card.awake);
            let tick = self.next_tick();
            let retry = Instant::now() + LOOK_AGAIN;
            let start = self.streams.next_start();
            let losses = self.losses.due();
            let look = self.supervision.due();
            let slow = self.writer.due();
            let zeroizing = self.zeroizing_due();
            let open = self.takes_more();
            tokio::select! {
                () = &mut stop => return Ok(()),
                () = awake.notified() => {}
                next = self.writer.next() => {
                    if let Next::Durable(number) = next? {
                        self.on_written(number);
                    }
                }
                Some(pending) = self.inputs.operator.recv() => self.on_operator(pending),
                Some(()) = self.inputs.wiped.recv() => self.on_wiped(),
                Some(()) = self.inputs.reloads.recv() => {
                    self.auditing.note(Who::Daemon, What::Reloaded { settings: "certificates".into() });
                }
                () = sleep_until(zeroizing.unwrap_or(retry)), if zeroizing.is_some() => {}
                Some(event) = self.inputs.peer.recv(), if open => self.on_peer(event),
                Some(pending) = self.inputs.calls.recv(), if open => self.on_call(pending),
                Some(report) = self.inputs.reports.recv(), if open => self.on_report(report),
                Some(stopped) = self.inputs.stopped.recv(), if open => self.on_stopped(stopped),
                () = sleep_until(tick.unwrap_or(retry)), if tick.is_some() => self.handle(Event::Tick),
                () = sleep_until(retry), if !self.orders.is_empty() => {}
                () = sleep_until(start.unwrap_or(retry)), if start.is_some() => {}
                () = sleep_until(losses.unwrap_or(retry)), if losses.is_some() => {}
                () = sleep_until(look.unwrap_or(retry)), if look.is_some() => {}
                () = sleep_until(slow.unwrap_or(retry)), if slow.is_some() => self.writer.look(Instant::now())?,
            }
            self.streams.start_waiting()?;
            self.losses.say(Instant::now());
            self.take_in()?;
            self.settle()?;
            self.look_at_zeroizing()?;
            self.supervision.stands(&self.core.status(), self.link_state);
            self.supervision.look(Instant::now());
        }
    }

    fn next_tick(&self) -> Option<Instant> {
        let deadline = self.core.deadline()?;
        Some(Instant::now() + Duration::from_millis(deadline.saturating_sub(clock::now().boot_ms)))
    }

    fn handle(&mut self, event: Event) {
        self.core.handle(clock::now(), event, &mut self.out);
    }

    /// A write is durable: the card's cell must know before anything is done that depends on it.
    fn on_written(&mut self, number: u64) {
        self.card.raise_cell(number);
        self.batches.written(number);
    }

    /// Lets the next write begin, and does what no write is waited for any more.
    fn settle(&mut self) -> Result<(), Failure> {
        let nothing = self.out.is_empty() && self.auditing.is_empty();
        // What needs no write has no company to wait for.
        let has_to_write = !self.out.writes.is_empty() || !self.auditing.is_empty();
        let waits = self.writer.is_busy() || (has_to_write && self.writer.rests());
        if !nothing && !waits {
            let Output { writes, actions } = std::mem::take(&mut self.out);
            self.auditing.before(&actions);
            let events = self.auditing.take();
            if writes.is_empty() && events.is_empty() {
                self.batches.follow(actions);
            } else {
                self.batches.begin(actions);
                self.writer.begin(writes, events);
            }
        }
        while let Some(actions) = self.batches.next(self.card.cell_shown()) {
            for action in actions {
                self.carry_out(action)?;
            }
        }
        while let Some(order) = self.orders.pop_front() {
            if !self.card.order(order) {
                self.orders.push_front(order);
                break;
            }
        }
        Ok(())
    }

    fn order(&mut self, order: ToCard) {
        // Behind others that wait, so that their order stays.
        if !self.orders.is_empty() || !self.card.order(order) {
            self.orders.push_back(order);
        }
    }

    fn carry_out(&mut self, action: Action) -> Result<(), Failure> {
        match action {
            Action::Send(message) => self.send(&message),
            Action::Disconnect { reason } => self.link.disconnect(reason),
            Action::Answer { call, answer } => {
                if let Some(reply) = self.waiting.remove(&call) {
                    // A client that has gone does not mind.
                    let _ = reply.send(answer);
                }
            }
            Action::Begin { stream, kms, chunk_size, position } => {
                let count = self.core.status().streams;
                let lives = |stream| self.core.streams().any(|one| one.stream == stream);
                self.watch.begins(stream, chunk_size, lives, count);
                self.streams.begin(stream, &kms, chunk_size, position)?;
            }
            Action::Deliver(_) if self.withholds_key() => {}
            Action::Deliver(delivery) => {
                let committed = timing::now();
                let key = self.keys.take(&delivery.extents)?;
                self.streams.deliver(&delivery, key)?;
                if let Some(last) = delivery.extents.last() {
                    let (stream, first, block) = (delivery.stream, delivery.first, last.block);
                    timing::tell(
                        committed,
                        format_args!("stream {stream} from {first} block {block} committed"),
                    );
                }
            }
            Action::Discard { stream, up_to, cause } => {
                log::debug!("key stream {stream}: nothing below {up_to} is sent any more ({cause:?})");
                self.streams.discard(stream, up_to)?;
            }
            Action::Lost { stream, first, count, cause } => {
                self.watch.lost(stream, cause, count);
                self.losses.add(stream, cause, first, count, Instant::now());
            }
            Action::Resume { stream } => {
                self.watch.resumes(stream);
                self.streams.resume(stream)?;
            }
            Action::Stop { stream } => self.streams.stop(stream),
            Action::Notice { stream, status, position } => self.streams.notice(stream, status, position)?,
            Action::Acknowledge { first, last } => {
                self.order(ToCard::Acknowledge(card_name(first), card_name(last)));
            }
            Action::Release { block } => self.keys.release(block),
            Action::Zeroized => {
                if let Some(zeroizing) = &mut self.zeroizing {
                    zeroizing.agreed = true;
                }
            }
            Action::Say { level, text } => self.saying.say(log_level(level), "agreement.says", &text),
        }
        Ok(())
    }

    fn send(&mut self, message: &Message) {
        match message.encode() {
            Ok(frame) => {
                if !self.link.send(frame) {
                    self.link.disconnect("the peer takes nothing any more".into());
                }
            }
            Err(fault) => log::error!(id = "peer.unsendable"; "peer link: a message cannot be sent: {fault}"),
        }
    }
}

fn log_level(level: Level) -> log::Level {
    match level {
        Level::Debug => log::Level::Debug,
        Level::Info => log::Level::Info,
        Level::Warn => log::Level::Warn,
        Level::Error => log::Level::Error,
    }
}

fn card_name(name: BlockName) -> qkd_driver::BlockName {
    qkd_driver::BlockName { session: name.session, sequence: name.sequence }
}

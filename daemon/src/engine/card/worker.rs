//! The thread's own work: a turn takes orders, tends the cell and takes events, and then it sleeps until somebody wants something.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::EventFd;
use nix::sys::time::TimeSpec;
use qkd_driver::backing::Backing;
use qkd_driver::{Card, CardEvent, Fault, LinkState, TakeError, Woken};
use rtrb::{Consumer, Producer};
use tokio::sync::Notify;

use super::pace::Pace;
use super::{CardEnd, Cell, FromCard, RETRY, ToCard, Zeroize};
use crate::pulse::Pulse;
use crate::timing::{self, Moment};
use crate::vault::Vault;

/// Longest sleep: the thread looks after the card's health and telemetry at least this often.
const PULSE: Duration = Duration::from_millis(250);
/// Between two readings of telemetry.
const TELEMETRY: Duration = Duration::from_secs(1);
/// While the card makes the cell durable: how soon to look first, and how late at last; there is no interrupt for it.
const CELL_LOOK: Duration = Duration::from_micros(50);
const CELL_LOOK_LONG: Duration = Duration::from_micros(200);

pub(super) struct Worker<B: Backing> {
    pub(super) card: Card<B>,
    pub(super) vault: Vault,
    pub(super) news: Producer<FromCard>,
    pub(super) orders: Consumer<ToCard>,
    pub(super) cell: Arc<Cell>,
    pub(super) zeroize: Arc<Zeroize>,
    /// What the card has shown that the cell holds.
    pub(super) stored: u64,
    /// What it was asked to hold and does not show yet.
    pub(super) requested: Option<u64>,
    /// When it was, in the trace.
    pub(super) requested_at: Option<Moment>,
    /// How soon to look whether it does.
    pub(super) cell_look: Duration,
    pub(super) awake: Arc<Notify>,
    pub(super) waker: Arc<EventFd>,
    pub(super) next_telemetry: Instant,
    /// State of the card's link that was told last since it was started.
    pub(super) link_told: Option<LinkState>,
    pub(super) pulse: Pulse,
    pub(super) pace: Pace,
}

/// What a turn came to.
enum Turn {
    /// Nothing is left to do for now; so many news were taken.
    Idle { took: u32 },
    /// Something waits for room in the vault or in a queue; so many news were taken before that.
    HeldBack { took: u32 },
    /// The engine ordered the end.
    Stop,
}

impl<B: Backing> Worker<B> {
    pub(super) fn run(mut self) {
        let end = self.serve();
        let Self { mut card, mut news, awake, .. } = self;
        let given_back = card.give_back();
        let end = match end {
            // A card that is gone, or goes while it is wanted back, cannot be stopped: giving it back only wipes its memory,
            // or leaks it, and says which.
            Err(end @ (CardEnd::Gone | CardEnd::RemovalRequested)) => {
                if let Err(e) = given_back {
                    log::warn!(id = "card.give_back_failed"; "{e}");
                }
                Err(end)
            }
            end => given_back.map_err(CardEnd::NotClosed).and(end),
        };
        tell_for_sure(&mut news, &awake, FromCard::Ended(end));
        // Where the card is gone, the kernel tries to reset it now, and waits for it.
        drop(card);
    }

    fn serve(&mut self) -> Result<(), CardEnd> {
        if let Err(fault) = self.card.start() {
            self.recover(fault)?;
        }
        loop {
            self.pulse.beat();
            // Also while there is no room, when nobody waits for the card.
            if self.card.removal_requested() {
                return Err(CardEnd::RemovalRequested);
            }
            if self.zeroize.ordered.swap(false, Ordering::AcqRel) {
                self.destroy_keys()?;
            }
            let woken = match self.turn() {
                Ok(Turn::Stop) => return Ok(()),
                Ok(Turn::HeldBack { took }) => {
                    let longest = self.pace.held_back(took);
                    self.leave_alone(longest);
                    continue;
                }
                Ok(Turn::Idle { took }) => match self.pace.taken(took, Instant::now()) {
                    Some(pause) => {
                        self.leave_alone(pause);
                        continue;
                    }
                    None => self.sleep(),
                },
                Err(fault) => Err(fault),
            };
            match woken {
                Ok(Woken::RemovalRequested) => return Err(CardEnd::RemovalRequested),
                Ok(_) => {}
                Err(fault) => self.recover(fault)?,
            }
        }
    }

    /// Sleeps until the card, the engine or the clock wants something.
    fn sleep(&mut self) -> Result<Woken, Fault> {
        let longest = self.at_most(PULSE);
        let woken = self.card.wait(longest, Some(self.waker.as_fd()))?;
        let _ = self.waker.read();
        Ok(woken)
    }

    /// Sleeps until the engine orders something, `longest` at most. The card's own events are no reason to wake: they
    /// wait for room, or for others.
    fn leave_alone(&mut self, longest: Duration) {
        let timeout = TimeSpec::from_duration(self.at_most(longest));
        if ppoll(&mut [PollFd::new(self.waker.as_fd(), PollFlags::POLLIN)], Some(timeout), None).is_err() {
            // Interrupted, or out of memory: not in a tight loop.
            std::thread::sleep(RETRY);
        }
        let _ = self.waker.read();
    }

    /// Everything that can be done without waiting.
    fn turn(&mut self) -> Result<Turn, Fault> {
        if self.carry_out_orders()? {
            return Ok(Turn::Stop);
        }
        self.tend_cell()?;
        let turn = self.take_events();
        if Instant::now() >= self.next_telemetry {
            self.next_telemetry = Instant::now() + TELEMETRY;
            let health = self.card.health()?;
            let telemetry = passing(self.card.telemetry())?;
            let newest = passing(self.card.newest())?.flatten();
            // Both are told again in a second: a full queue may lose them.
            let reading = telemetry.map(|telemetry| Box::new((telemetry, self.card.counters().clone())));
            reading.map(FromCard::Telemetry).into_iter().chain(newest.map(FromCard::Newest)).for_each(
                |news| {
                    self.tell(news);
                },
            );
            // The card tells it behind all that it announces or replays, and a full vault stops that until a KMS takes key: for
            // that the link must be known, and that it is down must not be told only then.
            let waits = self.link_told.is_none() || matches!(turn, Ok(Turn::HeldBack { .. }));
            if waits && self.link_told != Some(health.link) && self.tell(FromCard::Link(health.link)) {
                self.link_told = Some(health.link);
            }
        }
        turn
    }

    /// Asks the card for the newest value, one at a time, and tells the engine what the card shows.
    fn tend_cell(&mut self) -> Result<(), Fault> {
        while self.card.identity().has_cell {
            let value = match self.requested {
                Some(value) => value,
                None => {
                    let wanted = self.cell.wanted.load(Ordering::Acquire);
                    if wanted <= self.stored {
                        return Ok(());
                    }
                    self.card.request_cell(wanted)?;
                    wanted
                }
            };
            if self.requested.replace(value).is_none() {
                (self.cell_look, self.requested_at) = (CELL_LOOK, timing::now());
            }
            if !self.card.cell_settled()? {
                return Ok(());
            }
            self.requested = None;
            self.stored = value;
            self.cell.shown.store(value, Ordering::Release);
            self.awake.notify_one();
            timing::took(self.requested_at, timing::now(), format_args!("cell {value}"));
        }
        Ok(())
    }

    /// `longest`, but not so long that the card's showing of the cell would be seen late.
    fn at_most(&mut self, longest: Duration) -> Duration {
        if self.requested.is_none() {
            return longest;
        }
        let look = self.cell_look;
        self.cell_look = (look * 2).min(CELL_LOOK_LONG);
        longest.min(look)
    }

    /// Answers whether to stop.
    fn carry_out_orders(&mut self) -> Result<bool, Fault> {
        while let Ok(&order) = self.orders.peek() {
            match order {
                ToCard::Acknowledge(first, last) => {
                    if !self.card.acknowledge(first, last)? {
                        // The acknowledgement ring is full; the order stays at the head of the queue.
                        return Ok(false);
                    }
                }
                ToCard::Stop => return Ok(true),
            }
            let _ = self.orders.pop();
        }
        Ok(false)
    }

    fn take_events(&mut self) -> Result<Turn, Fault> {
        let mut took = 0_u32;
        loop {
            // Room first, in the queue as well as in the vault: what has no room stays in the card.
            if self.news.is_full() {
                return Ok(Turn::HeldBack { took });
            }
            let news = match self.card.next_event()? {
                None => return Ok(Turn::Idle { took }),
                Some(CardEvent::ReplayEnd) => FromCard::ReplayEnd,
                Some(CardEvent::Session { session, previous_blocks }) => {
                    FromCard::Session { session, previous_blocks }
                }
                Some(CardEvent::Link(state)) => {
                    self.link_told = Some(state);
                    FromCard::Link(state)
                }
                Some(CardEvent::Block(block)) => {
                    let (name, replayed) = (block.name(), block.replayed());
                    timing::tell(timing::now(), format_args!("block {name} seen"));
                    let room =
                        u32::try_from(block.length()).ok().and_then(|length| self.vault.reserve(length));
                    let Some(mut room) = room else { return Ok(Turn::HeldBack { took }) };
                    match block.take(room.as_mut_slice()) {
                        Ok(()) => FromCard::Block { name, key: room.seal(), replayed },
                        Err(TakeError::Lost { name, cause }) => {
                            log::warn!(id = "card.block_lost"; "block {name} is lost at this end: {cause}");
                            FromCard::Lost { name }
                        }
                        Err(TakeError::Fault(fault)) => return Err(fault),
                        Err(TakeError::Room { .. }) => return Ok(Turn::HeldBack { took }),
                    }
                }
            };
            self.tell(news);
            took = took.saturating_add(1);
        }
    }

    /// `false`: the queue is full and nothing was told.
    fn tell(&mut self, news: FromCard) -> bool {
        let told = self.news.push(news).is_ok();
        self.awake.notify_one();
        told
    }

    /// Has the card destroy its keys, and starts it again when the engine wants it. A card that does not prove it is not used
    /// any more: what it retains would come again.
    fn destroy_keys(&mut self) -> Result<(), CardEnd> {
        let count = self.card.zeroize().map_err(CardEnd::NotZeroized)?;
        tell_for_sure(&mut self.news, &self.awake, FromCard::Zeroized { count });
        while !self.zeroize.go_on.load(Ordering::Acquire) && !self.news.is_abandoned() {
            self.pulse.beat();
            if self.card.removal_requested() {
                return Err(CardEnd::RemovalRequested);
            }
            // What the engine waits for is durable only once the cell shows it; the card keeps the cell also now (CEL-1).
            self.tend_cell().map_err(CardEnd::OutOfOrder)?;
            self.leave_alone(PULSE);
        }
        self.requested = None;
        match self.card.reset().and_then(|()| self.card.start()) {
            Ok(()) => {
                self.link_told = None;
                tell_for_sure(&mut self.news, &self.awake, FromCard::Recovered);
                Ok(())
            }
            Err(fault) => self.recover(fault),
        }
    }

    /// Resets a card that broke the contract, so often as the driver allows.
    fn recover(&mut self, fault: Fault) -> Result<(), CardEnd> {
        let mut fault = fault;
        loop {
            if matches!(fault, Fault::Gone) {
                return Err(CardEnd::Gone);
            }
            log::error!(id = "card.fault"; "card: {fault}{}; resetting it", clause_of(&fault));
            reset(&mut self.card, &self.pulse)?;
            match self.card.start() {
                Ok(()) => break,
                Err(next) => fault = next,
            }
        }
        // A reset may have come between the request and the card's memory.
        self.requested = None;
        self.link_told = None;
        tell_for_sure(&mut self.news, &self.awake, FromCard::Recovered);
        Ok(())
    }
}

/// Resets a card after a fault, again where that fails, as often as the driver allows.
fn reset<B: Backing>(card: &mut Card<B>, pulse: &Pulse) -> Result<(), CardEnd> {
    loop {
        // Each attempt has its own deadlines.
        pulse.beat();
        if reset_once(card)? {
            return Ok(());
        }
    }
}

/// One attempt to reset a card after a fault. `false`: it failed, and another may be made.
pub(in crate::engine) fn reset_once<B: Backing>(card: &mut Card<B>) -> Result<bool, CardEnd> {
    match card.recover() {
        Ok(()) => Ok(true),
        Err(Fault::Gone) => Err(CardEnd::Gone),
        Err(last @ Fault::GivenUp { .. }) => Err(CardEnd::OutOfOrder(last)),
        Err(fault) => {
            log::error!(id = "card.reset_failed"; "card: the reset failed: {fault}; trying again");
            Ok(false)
        }
    }
}

/// Tells what must not get lost: waits while the queue is full, unless nobody reads it any more.
fn tell_for_sure(queue: &mut Producer<FromCard>, awake: &Notify, news: FromCard) {
    let mut waiting = news;
    while let Err(rtrb::PushError::Full(back)) = queue.push(waiting) {
        if queue.is_abandoned() {
            return;
        }
        waiting = back;
        awake.notify_one();
        std::thread::sleep(RETRY);
    }
    awake.notify_one();
}

/// A fault that passes by itself is said and gives nothing; another stays one.
fn passing<T>(result: Result<T, Fault>) -> Result<Option<T>, Fault> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(fault) if fault.needs_recovery() => Err(fault),
        Err(fault) => {
            log::warn!(id = "card.passing_fault"; "card: {fault}");
            Ok(None)
        }
    }
}

/// The clause that a fault broke, for the log.
fn clause_of(fault: &Fault) -> String {
    match fault.clause() {
        "" => String::new(),
        clause => format!(" (clause {clause} of the card contract)"),
    }
}

//! The thread that owns the card: it moves blocks from the card's ring into the vault and carries out orders.
//!
//! Nothing else touches the card. The thread shares two lock-free queues with the engine; each side wakes the other
//! only when it has put something in.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use qkd_driver::backing::Backing;
use qkd_driver::{BlockName, Card, CardEvent, CloseError, Fault, LinkState, TakeError, Telemetry, Woken};
use rtrb::{Consumer, Producer, RingBuffer};
use tokio::sync::Notify;

use crate::pulse::Pulse;
use crate::vault::{KeyBlock, Vault};

/// What the card's thread tells the engine, in the order in which it happened.
#[derive(Debug)]
pub(crate) enum FromCard {
    /// A block lies in the vault.
    Block {
        /// Its name.
        name: BlockName,
        /// Its octets.
        key: KeyBlock,
        /// Delivered again after a start.
        replayed: bool,
    },
    /// A block came and cannot be used at this end.
    Lost {
        /// Its name.
        name: BlockName,
    },
    /// All that the card had retained when it was started has been told.
    ReplayEnd,
    /// A session has begun.
    Session {
        /// Its number.
        session: u64,
        /// Blocks of the session before it.
        previous_blocks: u64,
    },
    /// The state of the QKD link.
    Link(LinkState),
    /// A reading of the card's measurements.
    Telemetry(Telemetry),
    /// The newest block that the card has announced.
    Newest(BlockName),
    /// The card broke the contract and was reset; what it retains comes again.
    Recovered,
    /// The card has proven that it retains nothing. It is started again at [`CardPort::go_on`].
    Zeroized {
        /// Its count of zeroizes since power-on.
        count: u32,
    },
    /// The thread has ended and the card is closed. Nothing follows.
    Ended(Result<(), CardEnd>),
}

/// Why the card's thread ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum CardEnd {
    /// The registers read all ones: pulled, or its server has ended.
    #[error(
        "the card is gone; every key of it is wiped here. Check the card's seat and power, or its simulator, and start again"
    )]
    Gone,
    /// The operating system wants the card back.
    #[error("the operating system asked for the card to be released; it is stopped and wiped")]
    RemovalRequested,
    /// An operator had every key destroyed, and the card has not proven that it did.
    #[error("the card has not proven that it destroyed its keys: {0}; it is not used any more")]
    NotZeroized(Fault),
    /// Faults that resets did not mend.
    #[error("the card is out of order: {0}")]
    OutOfOrder(Fault),
    /// The card could not be closed as it should.
    #[error("{0}")]
    NotClosed(CloseError),
}

/// What the engine orders.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ToCard {
    /// The card may forget these blocks, both ends of the range included.
    Acknowledge(BlockName, BlockName),
    /// Stop and close the card.
    Stop,
}

/// Blocks and other news that may wait for the engine.
const NEWS: usize = 1024;
/// Orders that may wait for the card's thread.
const ORDERS: usize = 4096;
/// Longest sleep of the thread: it looks after the card's health and telemetry at least this often.
const PULSE: Duration = Duration::from_millis(250);
/// Between two readings of telemetry.
const TELEMETRY: Duration = Duration::from_secs(1);
/// While the card makes the cell durable: how soon to look.
const CELL_LOOK: Duration = Duration::from_millis(1);
/// While the vault is full or the engine behind: the card's ring fills, as it should, and this is how soon to look, ...
const HELD_BACK: Duration = Duration::from_millis(2);
/// ... and how late when looking goes on and on. An order, which tells that blocks were released, comes before that.
const HELD_BACK_LONG: Duration = Duration::from_millis(64);

/// The host-owned cell, between the engine and the card's thread.
#[derive(Debug, Default)]
struct Cell {
    /// What it is to hold.
    wanted: AtomicU64,
    /// What the card has shown, which is durable.
    shown: AtomicU64,
}

/// The operator's order to destroy every key. It waits behind no other.
#[derive(Debug, Default)]
struct Zeroize {
    ordered: AtomicBool,
    go_on: AtomicBool,
}

/// The engine's side of the card's thread.
pub(crate) struct CardPort {
    pub(crate) news: Consumer<FromCard>,
    pub(crate) awake: Arc<Notify>,
    orders: Producer<ToCard>,
    cell: Arc<Cell>,
    zeroize: Arc<Zeroize>,
    waker: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl CardPort {
    /// Starts the thread on a card that is open and stopped. `pulse` shows that it turns.
    ///
    /// # Errors
    /// When the system has no eventfd or thread to give.
    pub(crate) fn start<B: Backing + Send + 'static>(
        card: Card<B>,
        vault: Vault,
        pulse: Pulse,
    ) -> std::io::Result<Self> {
        let (news_in, news) = RingBuffer::new(NEWS);
        let (orders, orders_out) = RingBuffer::new(ORDERS);
        let awake = Arc::new(Notify::new());
        let cell = Arc::new(Cell::default());
        if !card.identity().has_cell {
            cell.shown.store(u64::MAX, Ordering::Release);
        }
        let waker = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let zeroize = Arc::new(Zeroize::default());
        let worker = Worker {
            card,
            vault,
            news: news_in,
            orders: orders_out,
            cell: Arc::clone(&cell),
            zeroize: Arc::clone(&zeroize),
            stored: 0,
            requested: None,
            awake: Arc::clone(&awake),
            waker: Arc::clone(&waker),
            next_telemetry: Instant::now(),
            pulse,
        };
        let thread = std::thread::Builder::new().name("card".into()).spawn(move || worker.run())?;
        Ok(Self { news, awake, orders, cell, zeroize, waker, thread: Some(thread) })
    }

    /// Queues an order. `false`: the thread is behind; try again later.
    pub(crate) fn order(&mut self, order: ToCard) -> bool {
        let queued = self.orders.push(order).is_ok();
        // A full counter means that the thread has a wake-up waiting already.
        let _ = self.waker.write(1);
        queued
    }

    /// Has the card destroy every key that it holds; [`FromCard::Zeroized`] tells when it has proven it. Nothing follows then
    /// until [`CardPort::go_on`].
    pub(crate) fn zeroize(&self) {
        self.zeroize.go_on.store(false, Ordering::Release);
        self.zeroize.ordered.store(true, Ordering::Release);
        let _ = self.waker.write(1);
    }

    /// Lets a card that was zeroized be reset and started.
    pub(crate) fn go_on(&self) {
        self.zeroize.go_on.store(true, Ordering::Release);
        let _ = self.waker.write(1);
    }

    /// Raises the host-owned cell to `value` soon. Of several values only the last is stored.
    pub(crate) fn raise_cell(&self, value: u64) {
        self.cell.wanted.fetch_max(value, Ordering::Release);
        let _ = self.waker.write(1);
    }

    /// What the cell is known to hold; everything where the card has none. `awake` tells of changes.
    pub(crate) fn cell_shown(&self) -> u64 {
        self.cell.shown.load(Ordering::Acquire)
    }

    /// Whether the thread has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for the thread, which has been told to stop and has said that it ended, `longest` at most.
    pub(crate) async fn join(&mut self, longest: Duration) {
        let end = Instant::now() + longest;
        while !self.has_ended() {
            if Instant::now() >= end {
                log::warn!(
                    "the kernel still waits for the card to answer; this process ends when it gives up"
                );
                return;
            }
            tokio::time::sleep(HELD_BACK).await;
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the card's thread panicked; its memory was not reused");
        }
    }
}

struct Worker<B: Backing> {
    card: Card<B>,
    vault: Vault,
    news: Producer<FromCard>,
    orders: Consumer<ToCard>,
    cell: Arc<Cell>,
    zeroize: Arc<Zeroize>,
    /// What the card has shown that the cell holds.
    stored: u64,
    /// What it was asked to hold and does not show yet.
    requested: Option<u64>,
    awake: Arc<Notify>,
    waker: Arc<EventFd>,
    next_telemetry: Instant,
    pulse: Pulse,
}

/// What a turn came to.
enum Turn {
    /// Nothing is left to do for now.
    Idle,
    /// Something waits for room in the vault or in a queue; whether something was taken before that.
    HeldBack { took: bool },
    /// The engine ordered the end.
    Stop,
}

impl<B: Backing> Worker<B> {
    fn run(mut self) {
        let end = self.serve();
        let Self { mut card, mut news, awake, .. } = self;
        let given_back = card.give_back();
        let end = match end {
            // A card that is gone, or goes while it is wanted back, cannot be stopped: giving it back only wipes its memory,
            // or leaks it, and says which.
            Err(end @ (CardEnd::Gone | CardEnd::RemovalRequested)) => {
                if let Err(e) = given_back {
                    log::warn!("{e}");
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
        let mut held_back = HELD_BACK;
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
                Ok(Turn::HeldBack { took: true }) => {
                    held_back = HELD_BACK;
                    self.wait_for_room(held_back);
                    continue;
                }
                Ok(Turn::HeldBack { took: false }) => {
                    self.wait_for_room(held_back);
                    held_back = (held_back * 2).min(HELD_BACK_LONG);
                    continue;
                }
                Ok(Turn::Idle) => {
                    held_back = HELD_BACK;
                    self.sleep()
                }
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
        let woken = self.card.wait(self.at_most(PULSE), Some(self.waker.as_fd()))?;
        let _ = self.waker.read();
        Ok(woken)
    }

    /// Sleeps until the engine orders something, `longest` at most. The card's own events are no reason to wake: they
    /// wait for room.
    fn wait_for_room(&self, longest: Duration) {
        let timeout = PollTimeout::try_from(self.at_most(longest)).unwrap_or(PollTimeout::ZERO);
        if poll(&mut [PollFd::new(self.waker.as_fd(), PollFlags::POLLIN)], timeout).is_err() {
            // Interrupted, or out of memory: not in a tight loop.
            std::thread::sleep(HELD_BACK);
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
            self.card.health()?;
            let telemetry = passing(self.card.telemetry())?;
            let newest = passing(self.card.newest())?.flatten();
            // Both are told again in a second: a full queue may lose them.
            telemetry.map(FromCard::Telemetry).into_iter().chain(newest.map(FromCard::Newest)).for_each(
                |news| {
                    self.tell(news);
                },
            );
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
            self.requested = Some(value);
            if !self.card.cell_settled()? {
                return Ok(());
            }
            self.requested = None;
            self.stored = value;
            self.cell.shown.store(value, Ordering::Release);
            self.awake.notify_one();
        }
        Ok(())
    }

    /// `longest`, but not so long that the card's showing of the cell would be seen late.
    fn at_most(&self, longest: Duration) -> Duration {
        if self.requested.is_some() { longest.min(CELL_LOOK) } else { longest }
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
        let mut took = false;
        loop {
            // Room first, in the queue as well as in the vault: what has no room stays in the card.
            if self.news.is_full() {
                return Ok(Turn::HeldBack { took });
            }
            let news = match self.card.next_event()? {
                None => return Ok(Turn::Idle),
                Some(CardEvent::ReplayEnd) => FromCard::ReplayEnd,
                Some(CardEvent::Session { session, previous_blocks }) => {
                    FromCard::Session { session, previous_blocks }
                }
                Some(CardEvent::Link(state)) => FromCard::Link(state),
                Some(CardEvent::Block(block)) => {
                    let (name, replayed) = (block.name(), block.replayed());
                    let room =
                        u32::try_from(block.length()).ok().and_then(|length| self.vault.reserve(length));
                    let Some(mut room) = room else { return Ok(Turn::HeldBack { took }) };
                    match block.take(room.as_mut_slice()) {
                        Ok(()) => FromCard::Block { name, key: room.seal(), replayed },
                        Err(TakeError::Lost { name, cause }) => {
                            log::warn!("block {name} is lost at this end: {cause}");
                            FromCard::Lost { name }
                        }
                        Err(TakeError::Fault(fault)) => return Err(fault),
                        Err(TakeError::Room { .. }) => return Ok(Turn::HeldBack { took }),
                    }
                }
            };
            self.tell(news);
            took = true;
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
            self.wait_for_room(PULSE);
        }
        self.requested = None;
        match self.card.reset().and_then(|()| self.card.start()) {
            Ok(()) => {
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
            log::error!("card: {fault}{}; resetting it", clause_of(&fault));
            reset(&mut self.card, &self.pulse)?;
            match self.card.start() {
                Ok(()) => break,
                Err(next) => fault = next,
            }
        }
        // A reset may have come between the request and the card's memory.
        self.requested = None;
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
pub(super) fn reset_once<B: Backing>(card: &mut Card<B>) -> Result<bool, CardEnd> {
    match card.recover() {
        Ok(()) => Ok(true),
        Err(Fault::Gone) => Err(CardEnd::Gone),
        Err(last @ Fault::GivenUp { .. }) => Err(CardEnd::OutOfOrder(last)),
        Err(fault) => {
            log::error!("card: the reset failed: {fault}; trying again");
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
        std::thread::sleep(HELD_BACK);
    }
    awake.notify_one();
}

/// A fault that passes by itself is said and gives nothing; another stays one.
fn passing<T>(result: Result<T, Fault>) -> Result<Option<T>, Fault> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(fault) if fault.needs_recovery() => Err(fault),
        Err(fault) => {
            log::warn!("card: {fault}");
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

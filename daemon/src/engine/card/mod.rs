//! The thread that owns the card: it moves blocks from the card's ring into the vault and carries out orders.
//!
//! Nothing else touches the card. The thread shares two lock-free queues with the engine; each side wakes the other
//! only when it has put something in.

mod pace;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};
use pace::Pace;
use qkd_driver::backing::Backing;
use qkd_driver::{BlockName, Card, CloseError, Counters, Fault, LinkState, Telemetry};
use rtrb::{Consumer, Producer, RingBuffer};
use tokio::sync::Notify;
use worker::Worker;
pub(super) use worker::reset_once;

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
    /// A reading of the card's measurements, and what the driver has counted.
    Telemetry(Box<(Telemetry, Counters)>),
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
/// How soon to look again for room in the engine's queue, or for the end of the thread.
const RETRY: Duration = Duration::from_millis(2);

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
    /// Starts the thread on a card that is open, with so many slots, and stopped. `pulse` shows that it turns.
    ///
    /// # Errors
    /// When the system has no eventfd or thread to give.
    pub(crate) fn start<B: Backing + Send + 'static>(
        card: Card<B>,
        slots: u32,
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
            requested_at: None,
            cell_look: Duration::ZERO,
            awake: Arc::clone(&awake),
            waker: Arc::clone(&waker),
            next_telemetry: Instant::now(),
            link_told: None,
            pulse,
            pace: Pace::new(slots, Instant::now()),
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
                    id = "card.close_slow"; "the kernel still waits for the card to answer; this process ends when it gives up"
                );
                return;
            }
            tokio::time::sleep(RETRY).await;
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!(id = "card.thread_panicked"; "the card's thread panicked; its memory was not reused");
        }
    }
}

//! What goes into the core and what comes out of it.

use qkd_contract::state::LinkState;

use super::message::Message;
use super::names::{BlockName, Extent, Position};
use super::record::Record;
use crate::calls::{Answer, Call};
use crate::interface::{KeyStreamId, Status};

/// The time of an event, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Since the operating system started, with the time it slept; never goes back within one run of it.
    pub boot_ms: u64,
    /// Since 1970; may jump. Used only for the age of key over a restart of the operating system.
    pub wall_ms: u64,
}

/// What has happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The core starts. Always the first event, once.
    Start,
    /// A block is in the vault now. Never reported while the vault still has a block of this name: the engine drops the
    /// second copy.
    BlockHeld {
        /// Its name.
        name: BlockName,
        /// Its octets, at least 1.
        length: u32,
        /// The card had delivered it before the host started anew.
        replayed: bool,
    },
    /// The card has announced a block that this end cannot use, because its copy was damaged.
    BlockLost {
        /// Its name.
        name: BlockName,
    },
    /// The card has delivered again everything that it kept.
    ReplayEnd,
    /// A session of the QKD link has begun; every block of the sessions before has been delivered or is lost.
    Session {
        /// Its number.
        session: u64,
        /// Blocks that the session before had.
        previous_blocks: u64,
    },
    /// The card was reset and has dropped what it kept; what is in the vault stays usable. A replay follows.
    CardReset,
    /// Every key at this end is being destroyed, in the vault and in the card: all streams end, and nothing that the card is
    /// known to have announced is used any more. [`Action::Zeroized`] comes once that is durable.
    Zeroized,
    /// The newest block that the card has announced, when the engine happens to look.
    Newest {
        /// Its name.
        name: BlockName,
    },
    /// The QKD link, at its start and whenever it changes.
    Link {
        /// State.
        state: LinkState,
        /// Secret key rate in bit/s.
        secret_key_rate_bps: u64,
    },
    /// A connection to the other end stands.
    PeerConnected,
    /// The other end said something.
    PeerMessage(Message),
    /// The connection is gone.
    PeerDisconnected,
    /// A KMS calls.
    Call {
        /// Comes back in the answer.
        id: u64,
        /// The call.
        call: Call,
        /// A new random ID, taken where the call asks the module to choose one.
        fresh_stream: KeyStreamId,
    },
    /// The KMS has accepted every chunk below `up_to`, as far as push was given them. What was only sent may have to be
    /// sent again, and means nothing to the core.
    Accepted {
        /// Key stream.
        stream: KeyStreamId,
        /// First position not accepted.
        up_to: Position,
    },
    /// The KMS refuses the stream's key; push waits for [`Action::Resume`].
    Suspended {
        /// Key stream.
        stream: KeyStreamId,
        /// Why, for the log.
        why: String,
    },
    /// Answer to [`Action::Stop`]: nothing of the stream is on its way any more, and nothing will be.
    Stopped {
        /// Key stream.
        stream: KeyStreamId,
        /// First position never sent.
        sent_up_to: Position,
    },
    /// [`Core::deadline`](super::Core::deadline) has come.
    Tick,
}

/// Why chunks were not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossCause {
    /// A block that they were made of is lost at this end.
    BlockLost,
    /// Their time to live is over.
    Expired,
    /// The KMS has asked for a later position.
    Skipped,
    /// The stream was closed at this end, or ended, before the KMS had accepted them.
    Closed,
    /// A new epoch has begun: the two ledgers told different stories.
    Epoch,
}

impl LossCause {
    /// Every cause.
    pub const ALL: [Self; 5] = [Self::BlockLost, Self::Expired, Self::Skipped, Self::Closed, Self::Epoch];
}

/// Chunks for push, in the order of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Key stream.
    pub stream: KeyStreamId,
    /// Position of the first chunk. Beyond the end of the delivery before where chunks were lost or skipped.
    pub first: Position,
    /// Chunks, at least 1.
    pub count: u32,
    /// Octets per chunk.
    pub chunk_size: u32,
    /// Their octets in order: `count` times `chunk_size`. All of these blocks are in the vault.
    pub extents: Vec<Extent>,
}

/// How important a sentence for the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Of use when looking for a fault.
    Debug,
    /// Normal life.
    Info,
    /// An operator should know.
    Warn,
    /// Something is wrong.
    Error,
}

/// What the engine is to do, in this order, once the writes of the same batch are durable.
#[derive(Clone, Debug)]
pub enum Action {
    /// Tell the other end.
    Send(Message),
    /// End the connection to the other end; the link makes a new one.
    Disconnect {
        /// Why, for the log.
        reason: String,
    },
    /// Answer a call.
    Answer {
        /// As in [`Event::Call`].
        call: u64,
        /// The answer.
        answer: Answer,
    },
    /// A stream lives at this end: make its pusher. Comes before anything else of the stream; after a restart it comes
    /// for every stream that the ledger knows.
    Begin {
        /// Key stream.
        stream: KeyStreamId,
        /// The local KMS that gets its key.
        kms: String,
        /// Octets per chunk.
        chunk_size: u32,
        /// First position that may be delivered.
        position: Position,
    },
    /// Give chunks to push.
    Deliver(Delivery),
    /// Nothing below `up_to` may be sent for the first time any more; what was not sent is wiped.
    Discard {
        /// Key stream.
        stream: KeyStreamId,
        /// First position that may still be sent.
        up_to: Position,
        /// Why.
        cause: LossCause,
    },
    /// Chunks are counted as lost. Already durable.
    Lost {
        /// Key stream.
        stream: KeyStreamId,
        /// First position.
        first: Position,
        /// Chunks.
        count: u64,
        /// Why.
        cause: LossCause,
    },
    /// The KMS wants a suspended stream to go on.
    Resume {
        /// Key stream.
        stream: KeyStreamId,
    },
    /// End the stream's pusher, and answer with [`Event::Stopped`], also where there is none. No chunk is sent any more;
    /// what is in flight is settled or its connection cut, and notices given before are tried, all in bounded time.
    Stop {
        /// Key stream.
        stream: KeyStreamId,
    },
    /// Tell the KMS of trouble.
    Notice {
        /// Key stream.
        stream: KeyStreamId,
        /// What.
        status: Status,
        /// The next position.
        position: Position,
    },
    /// Blocks that the card may forget. The engine queues them until the card takes them.
    Acknowledge {
        /// First block.
        first: BlockName,
        /// Last block, of the same session.
        last: BlockName,
    },
    /// The vault may wipe what it still has of this block.
    Release {
        /// The block.
        block: BlockName,
    },
    /// What [`Event::Zeroized`] brought about is durable: every [`Action::Deliver`] before this one is void.
    Zeroized,
    /// A sentence for the log: IDs and numbers, never key.
    Say {
        /// How important.
        level: Level,
        /// The sentence.
        text: String,
    },
}

/// What the core wants done. Several events may be handled into one output. Every write is durable before any action is
/// carried out. Where the writes cannot be made durable, the whole output is dropped, and so is the core: a new one is
/// made from what the ledger holds.
#[derive(Debug, Default)]
pub struct Output {
    /// For the ledger, in this order, all or none.
    pub writes: Vec<Record>,
    /// For everybody else, in this order.
    pub actions: Vec<Action>,
}

impl Output {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.actions.is_empty()
    }

    pub(crate) fn say(&mut self, level: Level, text: impl Into<String>) {
        self.actions.push(Action::Say { level, text: text.into() });
    }

    pub(crate) fn send(&mut self, message: Message) {
        self.actions.push(Action::Send(message));
    }
}

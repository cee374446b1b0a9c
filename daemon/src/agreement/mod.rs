//! The key agreement: decides, together with the daemon at the other end of the QKD link, which octets of key belong to
//! which key stream and position.
//!
//! [`Core`] is a state machine without I/O, clock or randomness. Time and [`Event`]s go in; [`Record`]s for the ledger
//! and [`Action`]s come out, and no action is carried out before the records of its batch are durable.
//!
//! One end leads, for good. The leader appends numbered entries, each with a hash over all before it, to one ordered
//! log: `Open`, `Grant`, `Skip`, `Burn` and `End` ([`Decision`]). The follower applies the next number only, and reports
//! how far it is, which blocks it holds and how its streams stand. The follower delivers a grant once it has applied it
//! durably, the leader once the follower has. Octets below the [`Mark`] are used up for good, whatever became of them.

mod apply;
mod calls;
mod check;
mod close;
mod core;
mod delivery;
mod durable;
mod entry;
mod epoch;
mod event;
mod follower;
mod get_key;
mod grants;
mod holdings;
mod leader;
mod limiter;
mod message;
mod names;
mod open_connect;
mod peer;
mod qos;
mod ranges;
mod record;
mod register;
mod room;
mod scheduler;
mod settings;
mod status;
mod stream;
mod supply;
#[cfg(test)]
mod tests;
mod timers;
mod trouble;

pub use self::core::Core;
pub use check::{MESSAGE_BYTES_MAX, PeerFault};
pub use durable::{Durable, LoggedEntry, StreamState};
pub use entry::{Decision, Digest, Entry, Grant, NoDigest, OpenDecision};
pub use event::{Action, Delivery, Event, Level, LossCause, Now, Output};
pub use message::{
    FollowerLine, Hello, LeaderLine, Log, Message, OpenReply, OpenRequest, PROTOCOL_VERSION, Range, Report,
};
pub use names::{BlockName, Extent, Mark, Position, position_near};
pub use record::{Opened, Pair, Record, Stamp};
pub use settings::{Capacity, CardFacts, Role, Settings};
pub use status::{Counters, HeldUp, Status, StreamStatus};

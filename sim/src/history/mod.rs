//! The recorded history of what a KMS received: which key came when, under which name, and never the key itself.
//!
//! A history is a text file of lines in JSON, one object per line, told apart by `kind`. Times (`t`, `answered`,
//! `until`) are milliseconds since 1970 by the clock of the KMS's host, so two histories can be judged against each
//! other in time only when they come from one host, or from hosts whose clocks agree to the millisecond.
//!
//! | kind | what it tells | members |
//! |---|---|---|
//! | `history` | first line | `version` 1, `recording`, `kms`, `source`, `destination`, `module`, `t` |
//! | `open` | OPEN_CONNECT was answered | `t` sent, `answered`, `stream`, `http`, `status`, `chunk_size` |
//! | `get_key` | GET_KEY was answered | `t` sent, `answered`, `stream`, `index`, `http`, `status` |
//! | `close` | CLOSE was answered | the same |
//! | `chunk` | a chunk came for the first time | `t`, `stream`, `index`, `position`, `length`, `sha256`, `answer`, `origin` |
//! | `run` | many came, see below | `t`, `until`, `stream`, `first`, `count`, `length`, `steps`, `sample`, `origin` |
//! | `duplicates` | chunks came again unchanged | `t`, `stream`, `count`, `unchecked` |
//! | `changed` | a chunk came again with other octets | `t`, `stream`, `position`, `first`, `sha256` |
//! | `gap` | positions were passed over | `t`, `stream`, `from`, `to` |
//! | `notice` | key-material without key | `t`, `stream`, `status`, `index`, `position` |
//! | `unexplained` | test key of which too little is there to place it | `stream`, `position`, `length`, `sha256` |
//! | `violation` | the KMS saw something wrong | `t`, `stream`, `position`, `invariant`, `what` |
//! | `dropped` | the disk was too slow | `lines` |
//! | `end` | last line: the KMS ended in order | `t` |
//!
//! `position` is the chunk's index unwrapped to 64 bits. `http` 0 means that no answer came. `answer` is the HTTP status
//! that the KMS gave: a chunk that it refused on purpose counts as delivered, because delivery is the first send.
//! `origin` is there when the key is the simulator's positional test key: a list of `[session, sequence, offset, length]`
//! in the order of the octets, and `[length]` for octets whose place cannot be told.
//!
//! A stream that delivers faster than a configured number of chunks per second is recorded in runs: up to 1024 chunks at
//! consecutive positions, a run ending at each multiple of 1024. `steps` is base64 of one digest per step, a step being
//! the positions from one multiple of 64 to the next (cut short where the run begins or ends); the digest is the first 16
//! octets of SHA-256 over the SHA-256 digests of the step's chunks. `sample` is the SHA-256 of the run's first chunk. Ten
//! minutes at 450 000 chunks a second fit in 200 MB.
//!
//! A last line without its line end, as a crash leaves it, is left out by the reader, which says so.

pub mod digest;
pub mod position;
pub mod read;
pub mod record;
pub mod run;
pub mod trace;
pub mod write;

#[cfg(test)]
mod tests;

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, as a history writes it.
#[must_use]
pub fn now() -> record::Milliseconds {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

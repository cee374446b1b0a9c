//! The link to the daemon at the QKD link's other end: one TCP connection that carries frames both ways.
//!
//! A frame is a 32-bit big-endian length and that many octets, at most [`FRAME_BYTES_MAX`]; a frame of length 0 only
//! shows that its sender lives. What stands in a frame is the key agreement's affair ([`crate::agreement`]).
//! One end listens, the other connects; which does what is a matter of configuration and says nothing about which
//! end leads. Whoever connects anew replaces the connection before, but only after its first frame has come: a
//! silent connection displaces nobody.

mod connection;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod link;
#[cfg(test)]
mod tests;

pub use link::{Endpoint, Link, LinkError, PeerEvent};

use std::time::Duration;

/// Largest frame in octets.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

/// Times of the link. The defaults suit a link whose round trip is well under a second.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Between two signs of life that this end sends.
    pub keep_alive: Duration,
    /// Without any octet for this long, the connection is taken for dead.
    pub silence: Duration,
    /// Longest time for a connection to be made, for its first frame and for one write.
    pub patience: Duration,
    /// First and greatest pause between two attempts to connect.
    pub back_off: (Duration, Duration),
}

impl Default for Times {
    fn default() -> Self {
        Self {
            keep_alive: Duration::from_secs(1),
            silence: Duration::from_secs(4),
            patience: Duration::from_secs(4),
            back_off: (Duration::from_millis(50), Duration::from_secs(1)),
        }
    }
}

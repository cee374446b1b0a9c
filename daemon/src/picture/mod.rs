//! How the module stands, as an operator sees it: over the operator's socket, in the page, in the metrics and towards the
//! network's control plane. Names, numbers and sentences; nothing in it is ever key.
//!
//! The engine makes a [`Picture`] when somebody asks. Counters begin at 0 when the daemon starts, unless said otherwise.

mod health;
mod stream;

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

pub use self::health::{Cause, Health, Reason, State};
pub use self::stream::{Quality, Stream, StreamState};

/// A picture with a value in every member.
#[cfg(test)]
pub(crate) use self::health::tests::delivering as example;

/// Writes the derives that everything here has.
macro_rules! shown {
    ($($(#[$meta:meta])* $kind:ident $name:ident { $($body:tt)* })+) => {
        $(
            $(#[$meta])*
            #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
            #[cfg_attr(test, derive(schemars::JsonSchema))]
            pub $kind $name { $($body)* }
        )+
    };
}
use shown;

shown! {
    /// How the module stands at one moment.
    struct Picture {
        /// When, in milliseconds since 1970.
        pub taken_unix_ms: u64,
        /// Which module this is.
        pub module: Module,
        /// Whether key flows, and why not.
        pub health: Health,
        /// The QKD link.
        pub link: Link,
        /// The QKD card.
        pub card: Card,
        /// The key agreement with the module at the link's other end.
        pub agreement: Agreement,
        /// Key that waits for the KMSs.
        pub pool: Pool,
        /// How many key streams there are.
        pub streams: StreamCounts,
        /// What became of key.
        pub key: KeyBits,
        /// Pushing key to the KMSs.
        pub push: Push,
        /// The ledger.
        pub ledger: Ledger,
        /// What the card did wrong.
        pub faults: Faults,
        /// Until when certificates, authorities and revocation lists are good. Empty without TLS.
        pub certificates: Vec<Certificate>,
    }

    /// Which module this is.
    struct Module {
        /// Its name.
        pub name: String,
        /// Which end decides the key agreement.
        pub role: Role,
        /// Version of the daemon.
        pub version: String,
        /// When the daemon started, in milliseconds since 1970.
        pub started_unix_ms: u64,
        /// How long it runs, in seconds.
        pub uptime_s: u64,
    }

    /// The QKD link.
    struct Link {
        /// Its state.
        pub state: LinkState,
        /// Since when, in milliseconds since 1970.
        pub since_unix_ms: u64,
        /// Its last changes, the oldest first; few are remembered.
        pub changes: Vec<LinkChange>,
        /// What the card measured last; null before the first measurement.
        pub measured: Option<Measured>,
    }

    /// The QKD link came into a state.
    #[derive(Copy, Eq)]
    struct LinkChange {
        /// When, in milliseconds since 1970.
        pub unix_ms: u64,
        /// Which.
        pub state: LinkState,
    }

    /// One reading of the card's measurements.
    struct Measured {
        /// When it was read, in milliseconds since 1970.
        pub unix_ms: u64,
        /// Quantum bit error rate, 0 to 1.
        pub qber: f64,
        /// Interference visibility, 0 to 1.
        pub visibility: f64,
        /// Secret key rate, bit/s.
        pub secret_key_rate_bps: u64,
        /// Sifted key rate, bit/s.
        pub sifted_key_rate_bps: u64,
    }

    /// The QKD card.
    struct Card {
        /// Where it is: its PCI address or its socket.
        pub location: String,
        /// Its serial number, hexadecimal.
        pub serial: String,
        /// Serial number of the card at the other end; null until the link has come up once.
        pub peer_serial: Option<String>,
        /// Which half of the link it is.
        pub role: CardRole,
        /// Version of the card contract that it keeps.
        pub contract: String,
        /// Everything that it delivers is test key, which anyone can compute.
        pub test_key: bool,
        /// Session of its newest block; null before the first.
        pub session: Option<String>,
        /// Temperature of the detector, in degrees Celsius; null without a sensor.
        pub detector_celsius: Option<f64>,
        /// Temperature of the board, in degrees Celsius; null without a sensor.
        pub board_celsius: Option<f64>,
        /// Octets of key that it retains for this host now.
        pub retained_bytes: u64,
        /// Octets of key that it can retain.
        pub retention_bytes: u64,
        /// Blocks of key that it did not hand over since power-on, by cause.
        pub dropped_blocks: BTreeMap<String, u64>,
        /// When its self-test (DMA pattern and both interrupts) last passed, in milliseconds since 1970.
        pub self_test_unix_ms: u64,
        /// Self-tests that have passed since the daemon started.
        pub self_tests: u64,
    }

    /// The key agreement.
    struct Agreement {
        /// Epoch; 0 for none yet.
        pub epoch: u64,
        /// A connection to the other module stands.
        pub connected: bool,
        /// Both modules have told each other how they stand, and keys can be agreed.
        pub in_step: bool,
        /// Why the last connection ended; null for none.
        pub last_reason: Option<String>,
        /// Number of the last log entry here.
        pub last_entry: u64,
        /// Number of the last log entry that both ends have.
        pub agreed_entry: u64,
        /// Messages of the other module that broke the protocol.
        pub peer_faults: u64,
    }

    /// Key that waits for the KMSs.
    struct Pool {
        /// Octets that the vault can hold.
        pub vault_bytes: u64,
        /// Octets of the vault in use, in whole pages.
        pub vault_used_bytes: u64,
        /// Octets of key in blocks that are held.
        pub held_bytes: u64,
        /// Of these, in blocks of which something granted is not settled yet.
        pub pinned_bytes: u64,
        /// Blocks held.
        pub held_blocks: u64,
    }

    /// How many key streams there are. Each is counted once.
    #[derive(Default)]
    struct StreamCounts {
        /// All that live.
        pub live: u64,
        /// Key flows, as soon as there is some.
        pub delivering: u64,
        /// One of the KMSs has not opened it, or this end's has not asked get-key.
        pub waiting: u64,
        /// The KMS refused key; push waits for its next get-key.
        pub suspended: u64,
        /// The KMS does not take key; push tries again.
        pub failing: u64,
        /// The other end's KMS has much to accept, and nothing more is granted for some seconds.
        pub held_up: u64,
        /// It is being closed.
        pub closing: u64,
    }

    /// What became of key at this end since the daemon started, in bits.
    struct KeyBits {
        /// Granted to key streams.
        pub granted: u64,
        /// Handed to push.
        pub delivered: u64,
        /// Accepted by the KMSs.
        pub accepted: u64,
        /// Held and burnt, because it was missing at one end or of an epoch before.
        pub burnt: u64,
        /// Granted and not delivered, by cause: block_lost, expired, skipped, closed, epoch.
        pub lost: BTreeMap<String, u64>,
    }

    /// Pushing key to the KMSs.
    struct Push {
        /// Key chunks sent for the first time.
        pub chunks_sent: u64,
        /// Key chunks sent again, once for each time.
        pub chunks_sent_again: u64,
        /// Key chunks accepted.
        pub chunks_accepted: u64,
        /// Connections made.
        pub connections: u64,
        /// What went wrong, by cause: connect, deadline, unreadable, http_3xx, http_4xx, http_5xx, http_other.
        pub failures: BTreeMap<String, u64>,
        /// Times that a KMS refused a chunk for good.
        pub suspensions: u64,
        /// From when a request was written until it was answered, of one request in flight at a time.
        pub latency: Latency,
    }

    /// A histogram of times.
    #[derive(Default)]
    struct Latency {
        /// Upper bounds of the buckets, in seconds.
        pub bounds_s: Vec<f64>,
        /// Observations in each bucket, and at the end those above all bounds.
        pub counts: Vec<u64>,
        /// Sum of all observations, in seconds.
        pub sum_s: f64,
    }

    /// The ledger.
    struct Ledger {
        /// Number of the last durable write. It goes on over restarts.
        pub write_number: u64,
        /// How long a write is under way, in milliseconds; null: none is.
        pub writing_for_ms: Option<u64>,
    }

    /// What the card did wrong since the daemon opened it.
    #[derive(Default)]
    struct Faults {
        /// DMA accesses of the card that failed, by its own count since power-on.
        pub dma_errors: u64,
        /// Faults by cause, as the driver names them.
        pub by_cause: BTreeMap<String, u64>,
        /// Resets of the card that succeeded.
        pub resets: u64,
        /// Recoveries after a fault that succeeded.
        pub recoveries: u64,
    }

    /// Something that is good until a time.
    struct Certificate {
        /// What it is.
        pub what: String,
        /// Until when it is good, in seconds since 1970.
        pub expires_unix_s: u64,
        /// It is this module's own certificate.
        pub own: bool,
    }

    /// Something that happened: a message of the log that has an id.
    struct Event {
        /// It is the so-manieth since the daemon started.
        pub number: u64,
        /// When, in milliseconds since 1970.
        pub unix_ms: u64,
        /// How important.
        pub level: Level,
        /// Which message: see docs/messages.md.
        pub id: String,
        /// The message.
        pub text: String,
    }
}

/// Writes an enum whose members are told in words.
macro_rules! words {
    ($(#[doc = $about:literal])+ $name:ident { $($(#[doc = $meaning:literal])+ $member:ident = $word:literal,)+ }) => {
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        pub enum $name {
            $($(#[doc = $meaning])+ #[serde(rename = $word)] $member,)+
        }

        impl $name {
            /// Every member.
            pub const ALL: &'static [Self] = &[$(Self::$member),+];

            /// The word that stands for it in JSON and in metrics.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$member => $word,)+
                }
            }
        }
    };
}
pub(crate) use words;

words! {
    /// Which end decides the key agreement.
    Role {
        /// Decides.
        Leader = "leader",
        /// Follows.
        Follower = "follower",
    }
}

words! {
    /// Which half of the QKD link a card is.
    CardRole {
        /// Sends.
        Transmitter = "transmitter",
        /// Receives.
        Receiver = "receiver",
    }
}

words! {
    /// State of the QKD link.
    LinkState {
        /// The card has not told it yet.
        Unknown = "unknown",
        /// Off.
        Off = "off",
        /// Lasers, detectors and clocks come up.
        Initialising = "initialising",
        /// The optics are being aligned.
        Aligning = "aligning",
        /// Key is being distilled.
        Distilling = "distilling",
        /// The classical channel cannot be authenticated.
        NoAuthenticationKey = "no_authentication_key",
        /// The optics are out of order.
        Fault = "fault",
    }
}

words! {
    /// How important an event is.
    Level {
        /// Something is wrong.
        Error = "error",
        /// An operator should know.
        Warn = "warn",
        /// Normal life.
        Info = "info",
    }
}

impl Latency {
    /// All observations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

/// Milliseconds since 1970.
#[must_use]
pub fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

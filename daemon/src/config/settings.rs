//! The settings, section by section: name, type, default, range and meaning, each said once.

use std::net::SocketAddr;
use std::path::PathBuf;

use qkd_driver::backing::PciIdentity;
use qkd_driver::backing::vfio::PciAddress;

use super::address::{HostPort, KmsEndpoint};
use super::choices::{KeyExchange, KeyMemory, Profile, Role};
use super::read::{Section, SectionReader, SectionReference, SettingReference};
use super::rule::{Choice, Flag, List, Optional, Rule, integer, integer_without_default};
use super::texts::{
    CERTIFICATE_NAME, DIRECTORY, DNS, ENDPOINT, FILE, LISTEN, NAME, PATH, PCI, PCI_ID, SERVER, URI,
};
use crate::tls::CertificateName;

/// Writes a section's structure, its reader and its reference from one list.
macro_rules! section {
    ($(#[doc = $about:literal])+ $visibility:vis struct $name:ident in $table:literal {
        $($(#[doc = $meaning:literal])+ $field:ident: $type:ty = $rule:expr;)+
    }) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq, Eq)]
        $visibility struct $name {
            $($(#[doc = $meaning])+ pub $field: $type,)+
        }

        impl Section for $name {
            const NAME: &'static str = $table;

            fn read(section: &mut SectionReader<'_, '_>) -> Option<Self> {
                $(let $field: Option<$type> = section.setting(stringify!($field), &of::<$type, _>($rule));)+
                Some(Self { $($field: $field?,)+ })
            }

            fn reference() -> SectionReference {
                SectionReference {
                    name: $table,
                    about: concat!($($about),+),
                    settings: vec![$({
                        let rule = of::<$type, _>($rule);
                        SettingReference {
                            name: stringify!($field),
                            meaning: concat!($($meaning),+),
                            allowed: rule.allowed(),
                            default: rule.default_text(),
                        }
                    }),+],
                }
            }
        }
    };
}

/// Ties a rule to the type of its field, so that numbers in it take that type.
const fn of<T, R: Rule<Value = T>>(rule: R) -> R {
    rule
}

/// Most KMSs at one end.
pub(crate) const MOST_KMS: usize = 64;

/// Most names of one KMS's certificates.
const MOST_NAMES: usize = 16;

section! {
    /// This QKD module.
    pub struct Module in "module" {
        /// Name of the module, for the log and for the other end's log.
        name: String = NAME;
        /// Which end decides the key agreement. Exactly one of the two ends leads.
        role: Role = Choice::<Role>(None);
    }
}

section! {
    /// The QKD card.
    pub(crate) struct CardKeys in "card" {
        /// Address of a card in a PCI slot, which is bound to vfio-pci.
        pci: Option<PciAddress> = Optional(PCI);
        /// Instead of pci: socket of a simulated card, which is served over vfio-user.
        socket: Option<PathBuf> = Optional(FILE);
        /// Vendor and device identifier of the card, for makers who have their own: default "5144:0001".
        pci_id: Option<PciIdentity> = Optional(PCI_ID);
        /// Time added to each longest time of the card contract, for the scheduling of this host: default 100 for a
        /// card in a slot, 5000 for a simulated one.
        grace_ms: Option<u32> = Optional(integer_without_default(0..=60_000, "ms"));
        /// Blocks that the card may hand over before the first is taken.
        slots: u32 = integer(64, 2..=65_536, "slots").power_of_two();
        /// Serial number that this end's card must have.
        expected_serial: Option<u64> = Optional(integer_without_default(1..=u64::MAX, ""));
        /// Serial number that the other end's card must have.
        expected_peer_serial: Option<u64> = Optional(integer_without_default(1..=u64::MAX, ""));
        /// Takes a simulated card that delivers test key, which anyone can compute. Never set it where key must be
        /// secret.
        accept_test_key: bool = Flag(false);
    }
}

section! {
    /// The HTTP interface that the KMS calls.
    pub struct Api in "api" {
        /// Address to listen on. A socket that systemd passes under the name "api" takes its place, and must have this address.
        listen: SocketAddr = LISTEN;
        /// How success is told: "openapi" answers 201, 205 and 204, "ok" answers 200 with a body.
        profile: Profile = Choice(Some(Profile::OpenApi));
        /// Connections served at once. More wait unaccepted.
        most_connections: u32 = integer(256, 1..=16_384, "connections");
        /// Of these, connections from one address, or from one network of 64 bits where it is IPv6. More are answered
        /// with 503 and closed, so that one client at its limit leaves room for others.
        most_connections_per_address: u32 = integer(128, 1..=16_384, "connections");
        /// Connections that the operating system keeps waiting.
        backlog: u32 = integer(128, 1..=4_096, "connections");
        /// Threads that serve connections.
        workers: u32 = integer(1, 1..=16, "threads");
        /// Calls that may wait for the key agreement at once. More are answered with 503.
        most_waiting_calls: u32 = integer(256, 1..=65_536, "calls");
        /// Of these, calls of one KMS. More are answered with status 6.
        most_waiting_calls_per_kms: u32 = integer(64, 1..=65_536, "calls");
        /// Time a client has to send the head of a request.
        head_deadline_ms: u32 = integer(5_000, 1_000..=600_000, "ms");
        /// Time a client has to send the body of a request.
        body_deadline_ms: u32 = integer(5_000, 10..=600_000, "ms");
        /// Time an idle connection is kept.
        keep_alive_ms: u32 = integer(30_000, 1_000..=3_600_000, "ms");
        /// Largest body of a request.
        largest_body_bytes: u32 = integer(65_536, 1_024..=1_048_576, "bytes");
    }
}

section! {
    /// The daemon at the other end of the QKD link. Exactly one end listens and the other connects.
    pub(crate) struct PeerKeys in "peer" {
        /// Address to listen on for the other daemon. A socket that systemd passes under the name "peer" takes its place, and
        /// must have this address.
        listen: Option<SocketAddr> = Optional(LISTEN);
        /// Where the other daemon listens.
        connect: Option<HostPort> = Optional(SERVER);
        /// UNIX socket to connect to instead of `connect`, for a daemon that has no network of its own: who listens there
        /// connects on. TLS and its name stay those of `connect`.
        through: Option<PathBuf> = Optional(FILE);
        /// URIs of the KMSs at the other end.
        kms: Vec<String> = List { of: URI, most: MOST_KMS };
        /// DNS name that the other daemon's certificate must have. Without it, the host in `connect` is meant.
        certificate_name: Option<String> = Optional(DNS);
        /// Silence after which the connection to the other daemon is given up.
        silence_deadline_ms: u32 = integer(5_000, 1_000..=600_000, "ms");
        /// Longest wait before the next attempt to connect.
        reconnect_greatest_ms: u32 = integer(2_000, 10..=600_000, "ms");
    }
}

section! {
    /// A KMS at this end; one `[[kms]]` for each.
    pub struct Kms in "kms" {
        /// URI that names the KMS in `source` or `destination`, compared octet by octet.
        uri: String = URI;
        /// Where the KMS takes key material. Without a path, /api/v1/qkd/etsi004/key-material is meant.
        endpoint: KmsEndpoint = ENDPOINT;
        /// UNIX socket to connect to instead of the endpoint's host: of a KMS on the same machine, or of who connects on to
        /// that host for a daemon that has no network of its own. TLS and its names stay those of the endpoint. Whoever can
        /// put a socket there gets the key, unless TLS says who it is.
        through: Option<PathBuf> = Optional(FILE);
        /// Names (subject alternative names) by which this KMS is known when it calls the API over TLS. A name stands for one
        /// KMS; whose certificate has none of them may not call.
        certificate_names: Option<Vec<CertificateName>> = Optional(List { of: CERTIFICATE_NAME, most: MOST_NAMES });
    }
}

section! {
    /// TLS 1.3 with certificates of both ends: on the API, on the peer link, and towards KMSs whose endpoint is https. Without
    /// this section there is none. SIGHUP (`systemctl reload`) reads all files again.
    pub(crate) struct TlsKeys in "tls" {
        /// This QKD module's certificate, followed by those between it and its authority, in PEM form.
        certificate: Option<PathBuf> = Optional(PATH);
        /// Its private key in PEM form, which only the daemon (and its group) may be able to read.
        key: Option<PathBuf> = Optional(PATH);
        /// Certificates of the authorities whose word is taken, in PEM form.
        authorities: Option<PathBuf> = Optional(PATH);
        /// Instead of `authorities`, for KMSs that call the API.
        client_authorities: Option<PathBuf> = Optional(PATH);
        /// Instead of `authorities`, for KMSs that key is pushed to.
        kms_authorities: Option<PathBuf> = Optional(PATH);
        /// Instead of `authorities`, for the other daemon.
        peer_authorities: Option<PathBuf> = Optional(PATH);
        /// Revocation lists of all these authorities, in PEM form. With it, a certificate is refused that is revoked, or whose
        /// authority has no list here that still holds.
        revocation_lists: Option<PathBuf> = Optional(PATH);
        /// Which key exchange a connection must have: X25519MLKEM768, which stays closed to a later quantum computer, before all
        /// others, or nothing else.
        key_exchange: KeyExchange = Choice(Some(KeyExchange::HybridPreferred));
        /// Time a client of the API or the other daemon has for the handshake.
        handshake_deadline_ms: u32 = integer(5_000, 100..=600_000, "ms");
        /// Handshakes with clients of the API that may be under way. One more takes the place of the slowest.
        most_handshakes: u32 = integer(64, 1..=4_096, "handshakes");
    }
}

section! {
    /// What may travel unencrypted.
    pub struct Transport in "transport" {
        /// Allows the API, a KMS's endpoint or the other daemon on an address beyond loopback without TLS. Whoever
        /// can read that network then has every key, and whoever can write to it decides which keys are used.
        plain_text_beyond_loopback_gives_keys_away: bool = Flag(false);
    }
}

section! {
    /// What KMSs may ask of key streams, and what they get when they ask nothing.
    pub struct Streams in "streams" {
        /// Key chunk size when the KMS asks for none.
        default_chunk_size: u32 = integer(32, 1..=1_048_576, "bytes");
        /// Largest key chunk size. More is refused with status 7.
        largest_chunk_size: u32 = integer(65_536, 1..=1_048_576, "bytes");
        /// Timeout of a call when the KMS asks for none.
        default_timeout_ms: u32 = integer(5_000, 100..=3_600_000, "ms");
        /// Greatest timeout.
        greatest_timeout_ms: u32 = integer(60_000, 100..=3_600_000, "ms");
        /// Time after which keys of a stream are erased when the KMS asks for none.
        default_ttl_s: u32 = integer(3_600, 1..=31_536_000, "s");
        /// Greatest time after which keys of a stream are erased.
        greatest_ttl_s: u32 = integer(86_400, 1..=31_536_000, "s");
        /// Priority when the KMS asks for none. Larger is served first.
        default_priority: u32 = integer(0, 0..=u32::MAX, "");
        /// Time after which a stream ends that only one KMS has opened, or for which no KMS has asked get-key.
        half_open_expiry_s: u32 = integer(60, 1..=86_400, "s");
        /// Streams at once.
        most_streams: u32 = integer(1_024, 1..=65_536, "streams");
        /// Of these, streams that one KMS has opened. More are refused with status 4.
        most_per_kms: u32 = integer(512, 1..=65_536, "streams");
        /// Streams at once that a KMS has opened and the other has not, for each KMS.
        most_half_open_per_kms: u32 = integer(64, 1..=65_536, "streams");
        /// Closed key stream IDs that are remembered, so that none starts again.
        most_closed_remembered: u32 = integer(65_536, 1_024..=16_777_216, "key stream IDs");
        /// Key of one stream that may be granted and not yet accepted by the slower KMS.
        window_bytes: u32 = integer(4_194_304, 4_096..=1_073_741_824, "bytes");
        /// Key chunks of one stream that may be granted and not yet accepted by the slower KMS.
        window_chunks: u32 = integer(131_072, 2..=1_048_576, "key chunks");
    }
}

section! {
    /// The memory that holds key.
    pub struct Vault in "vault" {
        /// Size of the memory.
        bytes: u64 = integer(67_108_864, 4_194_304..=68_719_476_736, "bytes").multiple_of(4_096);
        /// Kind of memory: "secret" is memfd_secret, which not even the kernel can read by its own addresses, and with
        /// which the machine cannot hibernate; "locked" is locked memory; "best" is secret where the kernel gives it,
        /// otherwise locked. Which one it is, is said at start.
        memory: KeyMemory = Choice(Some(KeyMemory::Best));
        /// Starts also when the memory cannot be locked. The operating system may then write key to a swap disk.
        unlocked_memory_lets_keys_reach_swap: bool = Flag(false);
    }
}

section! {
    /// The local socket for operators, which qkdctl uses.
    pub struct Operator in "operator" {
        /// The socket's path. Without it, it is qkdd.ctl in the directory that systemd gives (RUNTIME_DIRECTORY), or there is
        /// none.
        socket: Option<PathBuf> = Optional(FILE);
        /// Group whose members may ask, beside root and the daemon's own user.
        group: Option<String> = Optional(NAME);
        /// Loopback address to serve the status page, metrics and state on, over HTTP: /, /metrics, /livez, /readyz, /status,
        /// /streams, /events and /qkd/015. Every user of this host can read them; nothing in them is key, and nothing can be
        /// changed there. Without it, nothing is served.
        http: Option<SocketAddr> = Optional(LISTEN);
    }
}

section! {
    /// The record of who opened, started, closed, was refused or zeroized: IDs and sizes, never key.
    pub struct Audit in "audit" {
        /// Directory for the record alone. Without it, it is the directory audit in the one that systemd gives
        /// (STATE_DIRECTORY), or else in the ledger's.
        directory: Option<PathBuf> = Optional(DIRECTORY);
        /// Files of 4 MiB that are kept; the oldest is removed beyond that.
        most_files: u32 = integer(64, 2..=10_000, "files");
    }
}

section! {
    /// Where this end keeps what was agreed, over restarts: names and numbers, never key.
    pub struct Ledger in "ledger" {
        /// Directory for the ledger alone, on a disk of this host. Without it the one that systemd gives
        /// (STATE_DIRECTORY) is meant.
        directory: Option<PathBuf> = Optional(DIRECTORY);
        /// Keeps no ledger over restarts: each ends all key streams at both ends, and burns what the cards hold.
        in_memory_forgets_everything: bool = Flag(false);
    }
}

section! {
    /// Pushing key chunks to the KMSs.
    pub struct Push in "push" {
        /// Time a KMS has to answer a key chunk. Below the streams' timeout, so that a close is answered in time.
        answer_deadline_ms: u32 = integer(3_000, 10..=600_000, "ms");
        /// Time a KMS has to take a connection.
        connect_deadline_ms: u32 = integer(3_000, 10..=600_000, "ms");
        /// Requests of one stream that may be on their way at once.
        most_in_flight: u32 = integer(256, 1..=256, "requests");
        /// Octets of requests of one stream that may be on their way at once. A larger chunk travels alone.
        most_bytes_in_flight: u32 = integer(90_112, 1_024..=98_303, "bytes");
        /// First wait before a chunk is sent again.
        backoff_first_ms: u32 = integer(100, 1..=60_000, "ms");
        /// Greatest wait before a chunk is sent again.
        backoff_greatest_ms: u32 = integer(10_000, 1..=600_000, "ms");
        /// Greatest wait that a KMS may ask for with Retry-After.
        retry_after_greatest_s: u32 = integer(60, 1..=3_600, "s");
    }
}

section! {
    /// Notices to the KMS: key-material without key, with a status.
    pub struct Notices in "notices" {
        /// Tells a KMS that the QKD link is down, key has run dry or was lost, or the other KMS has closed.
        enabled: bool = Flag(true);
    }
}

section! {
    /// The log.
    pub struct Log in "log" {
        /// Least weight of a line that is written.
        level: log::LevelFilter = Choice(Some(log::LevelFilter::Info));
    }
}

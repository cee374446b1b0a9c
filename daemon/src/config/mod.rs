//! The configuration file of `qkdd`: TOML, read whole, refused with file, line and what was meant.

mod address;
mod check;
mod choices;
mod error;
mod read;
mod reference;
mod rule;
mod settings;
mod texts;
mod tls;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use qkd_driver::backing::PciIdentity;
use qkd_driver::backing::vfio::PciAddress;

use self::read::{Reader, Section};
use self::settings::{CardKeys, MOST_KMS, PeerKeys, TlsKeys};

pub(crate) use self::address::check_uri;
pub use self::address::{HostPort, KEY_MATERIAL_PATH, KmsEndpoint, LONGEST_URI, is_loopback};
pub use self::choices::{KeyExchange, KeyMemory, Profile, Role};
pub use self::error::{ConfigError, Problem};
pub use self::read::{SectionReference, SettingReference};
pub use self::reference::reference_markdown;
pub(crate) use self::rule::excerpt;
pub use self::settings::{
    Api, Audit, Kms, Ledger, Log, Module, Notices, Operator, Push, Streams, Transport, Vault,
};
pub use self::tls::Tls;

/// Most bytes of a configuration file.
const LARGEST_FILE: u64 = 1 << 20;

/// How the card is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CardBacking {
    /// Through the vfio-user socket at this path.
    VfioUser(PathBuf),
    /// Through the kernel, in the PCI slot with this address.
    Vfio(PciAddress),
}

/// The QKD card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// How the card is reached.
    pub backing: CardBacking,
    /// Vendor and device identifier that it must have.
    pub pci_id: PciIdentity,
    /// Time added to each longest time of the card contract.
    pub grace: Duration,
    /// Blocks that the card may hand over before the first is taken: a power of two.
    pub slots: u32,
    /// Serial number that this end's card must have.
    pub expected_serial: Option<u64>,
    /// Serial number that the other end's card must have.
    pub expected_peer_serial: Option<u64>,
    /// Takes a card that delivers test key.
    pub accept_test_key: bool,
}

/// Which end connects, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerAddress {
    /// This end listens here.
    Listen(SocketAddr),
    /// The other end listens there.
    Connect(HostPort),
}

impl PeerAddress {
    /// Where this end listens, if it does.
    #[must_use]
    pub fn listens(&self) -> Option<SocketAddr> {
        match self {
            Self::Listen(address) => Some(*address),
            Self::Connect(_) => None,
        }
    }
}

impl Kms {
    /// The endpoint, and the way to it.
    #[must_use]
    pub fn reached(&self) -> KmsEndpoint {
        KmsEndpoint { through: self.through.clone(), ..self.endpoint.clone() }
    }
}

/// The daemon at the other end of the QKD link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Which end connects, and where.
    pub address: PeerAddress,
    /// UNIX socket to connect to in its place.
    pub through: Option<PathBuf>,
    /// URIs of the KMSs at the other end; none is one of this end's.
    pub kms: Vec<String>,
    /// DNS name or IP address that the other daemon's certificate must have. With [`Config::tls`] it is there.
    pub certificate_name: Option<String>,
    /// Silence in ms after which the connection to the other daemon is given up.
    pub silence_deadline_ms: u32,
    /// Longest wait in ms before the next attempt to connect.
    pub reconnect_greatest_ms: u32,
}

/// The whole configuration. Every value is within its range, and what must hold between values holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This QKD module.
    pub module: Module,
    /// The QKD card.
    pub card: Card,
    /// The HTTP interface that the KMS calls.
    pub api: Api,
    /// The daemon at the other end.
    pub peer: Peer,
    /// The KMSs at this end: at least one, each URI once.
    pub kms: Vec<Kms>,
    /// TLS; `None`: no link has it.
    pub tls: Option<Tls>,
    /// What may travel unencrypted.
    pub transport: Transport,
    /// Limits and defaults of key streams.
    pub streams: Streams,
    /// The memory that holds key.
    pub vault: Vault,
    /// The socket for operators.
    pub operator: Operator,
    /// The audit record.
    pub audit: Audit,
    /// Where the ledger is.
    pub ledger: Ledger,
    /// Pushing key chunks to the KMSs.
    pub push: Push,
    /// Notices to the KMS.
    pub notices: Notices,
    /// The log.
    pub log: Log,
}

impl Config {
    /// Reads the configuration from a file.
    ///
    /// # Errors
    /// [`ConfigError`] names the file, and every problem with its line and column.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |why| ConfigError::Unreadable { file: path.to_owned(), why };
        let mut octets = Vec::new();
        let file = File::open(path).map_err(unreadable)?;
        file.take(LARGEST_FILE + 1).read_to_end(&mut octets).map_err(unreadable)?;
        if u64::try_from(octets.len()).map_or(true, |length| length > LARGEST_FILE) {
            return Err(ConfigError::TooLarge { file: path.to_owned(), most: LARGEST_FILE });
        }
        match str::from_utf8(&octets) {
            Ok(text) => Self::parse(path, text),
            Err(error) => {
                let text = String::from_utf8_lossy(octets.get(..error.valid_up_to()).unwrap_or_default());
                let mut reader = Reader::new(path, &text);
                reader.note(text.len(), "this is not UTF-8: save the file as UTF-8".to_owned());
                Err(ConfigError::Wrong(reader.into_problems()))
            }
        }
    }

    /// Reads the configuration from a text; `path` is what problems name as the file.
    ///
    /// # Errors
    /// [`ConfigError::Wrong`] with every problem, its line and column.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(path, text);
        let config = Self::read(&mut reader, text);
        match config {
            Some(config) if reader.is_right() => Ok(config),
            _ => Err(ConfigError::Wrong(reader.into_problems())),
        }
    }

    fn read(reader: &mut Reader<'_>, text: &str) -> Option<Self> {
        let parsed = read::parse(reader, text)?;
        let root = parsed.get_ref();
        read::refuse_unknown_sections(reader, root, &reference());
        let module = reader.section(root);
        let card = reader.section(root).and_then(|keys| check::card(reader, keys));
        let api = reader.section(root);
        let peer = reader.section(root).and_then(|keys| check::peer(reader, keys));
        let kms = reader.sections(root, MOST_KMS);
        let tls = reader.section(root).map(|keys| tls::tls(reader, keys));
        let transport = reader.section(root);
        let streams = reader.section(root);
        let vault = reader.section(root);
        let operator = reader.section(root);
        let audit = reader.section(root);
        let ledger = reader.section(root);
        let push = reader.section(root);
        let notices = reader.section(root);
        let log = reader.section(root);
        let config = Self {
            module: module?,
            card: card?,
            api: api?,
            peer: peer?,
            kms: kms?,
            tls: tls?,
            transport: transport?,
            streams: streams?,
            vault: vault?,
            operator: operator?,
            audit: audit?,
            ledger: ledger?,
            push: push?,
            notices: notices?,
            log: log?,
        };
        check::together(reader, &config);
        Some(config)
    }
}

/// Every section in the order of the file.
#[must_use]
pub fn reference() -> [SectionReference; 15] {
    [
        Module::reference(),
        CardKeys::reference(),
        Api::reference(),
        PeerKeys::reference(),
        Kms::reference(),
        TlsKeys::reference(),
        Transport::reference(),
        Streams::reference(),
        Vault::reference(),
        Operator::reference(),
        Audit::reference(),
        Ledger::reference(),
        Push::reference(),
        Notices::reference(),
        Log::reference(),
    ]
}

//! How the daemon ends, and the exit code that tells it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use qkd_driver::OpenError;
use qkd_driver::backing::BackingError;
use qkd_driver::backing::vfio::PciAddress;

use super::card::CardEnd;
use super::passed::PassedError;
use super::streams::PushFault;
use crate::agreement::BlockName;
use crate::api::ServeError;
use crate::config::ConfigError;
use crate::ledger::LedgerError;
use crate::operator::OperatorError;
use crate::operator::http::HttpError;
use crate::peer::LinkError;
use crate::tls::TlsError;
use crate::vault::{TakenTwice, VaultError};

/// Why the daemon ended although nobody asked it to.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration is wrong.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// Certificates, key or authorities cannot be used.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// A simulated card cannot be reached.
    #[error("the card at {} cannot be reached: {source}; see that card.socket names it and that it is served", socket.display())]
    Socket {
        /// Where it was looked for.
        socket: PathBuf,
        /// What went wrong.
        source: BackingError,
    },
    /// A card in a slot cannot be had.
    #[error("the card in slot {address} cannot be had: {source}")]
    Slot {
        /// Where it was looked for.
        address: PciAddress,
        /// What went wrong, and what to do.
        source: BackingError,
    },
    /// The card cannot be used.
    #[error("the card cannot be used: {0}")]
    Open(#[from] OpenError),
    /// The card was in use, and is not any more.
    #[error("{0}")]
    Card(#[from] CardEnd),
    /// There is no memory to keep keys in.
    #[error("{0}")]
    Vault(#[from] VaultError),
    /// The API's address cannot be had.
    #[error("the API cannot listen on {address}: {source}; set api.listen to a free address of this host")]
    ApiAddress {
        /// As configured.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// What systemd has passed is not what the configuration says.
    #[error("{0}")]
    Passed(#[from] PassedError),
    /// The API cannot be served.
    #[error("{0}")]
    Api(#[from] ServeError),
    /// The peer link cannot be set up.
    #[error("{0}")]
    Peer(#[from] LinkError),
    /// Nobody says where the ledger is.
    #[error(
        "there is no place for the ledger: give ledger.directory, or start qkdd by its systemd unit, which has one \
         (STATE_DIRECTORY); ledger.in_memory_forgets_everything = true does without"
    )]
    NoLedger,
    /// The ledger cannot keep what it must.
    #[error("{0}")]
    Ledger(#[from] LedgerError),
    /// The key agreement wanted key that is not there. It is never made up, nor given twice.
    #[error(
        "the key agreement asked for key that is not there ({0}); stopping, rather than deliver a wrong key. This is a defect: please report it with the log"
    )]
    Key(KeyFault),
    /// A pusher did not take what it must.
    #[error(
        "{0}; stopping, rather than lose the order of keys. This is a defect: please report it with the log"
    )]
    Push(#[from] PushFault),
    /// An operator had every key destroyed, and not all of it is proven.
    #[error("it is not proven that every key was destroyed: {0}")]
    NotZeroized(String),
    /// The operator's socket cannot be served.
    #[error("{0}")]
    Operator(#[from] OperatorError),
    /// See there.
    #[error(transparent)]
    Page(#[from] HttpError),
    /// The operating system refused something else.
    #[error("the operating system refused: {0}")]
    System(#[from] std::io::Error),
}

/// Key that was asked for is not there to be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// The block is not in the vault.
    #[error("block {0} is not in the vault")]
    Absent(BlockName),
    /// The block has no such octets, or they were handed out before.
    #[error("block {block}: {fault}")]
    Taken {
        /// The block.
        block: BlockName,
        /// What the vault said.
        fault: TakenTwice,
    },
}

impl From<KeyFault> for Failure {
    fn from(fault: KeyFault) -> Self {
        Self::Key(fault)
    }
}

impl Failure {
    /// The process's exit code, one for each thing that an operator can mend; README lists them.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::System(_) | Self::Key(_) | Self::Push(_) => 1,
            Self::Config(_) | Self::Tls(_) | Self::NoLedger => 2,
            Self::Socket { .. } | Self::Slot { .. } | Self::Open(_) => 3,
            Self::Card(CardEnd::Gone | CardEnd::RemovalRequested) => 4,
            Self::Card(CardEnd::OutOfOrder(_) | CardEnd::NotClosed(_) | CardEnd::NotZeroized(_))
            | Self::NotZeroized(_) => 5,
            Self::ApiAddress { .. }
            | Self::Passed(_)
            | Self::Api(_)
            | Self::Peer(_)
            | Self::Operator(_)
            | Self::Page(_) => 6,
            Self::Vault(_) => 7,
            Self::Ledger(_) => 8,
        })
    }
}

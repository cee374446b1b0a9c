//! The operator's interface: a UNIX socket of this host, apart from everything that a KMS or the other module can reach.
//! Who calls is what the kernel says (`SO_PEERCRED`): root, the daemon's own user, and the members of one configured group.

mod access;
pub mod http;
pub mod outcome;
pub mod protocol;
mod server;

use std::path::PathBuf;

use tokio::sync::oneshot;

pub use self::access::Caller;
pub use self::server::{Gate, OperatorError, serve};

use self::protocol::{Answer, Request};

/// What the engine hears of the operator's socket.
#[derive(Debug)]
pub enum FromOperator {
    /// The HTTP listener looks how things stand.
    Look(http::Look),
    /// Somebody who may ask does.
    Request(Pending),
    /// Somebody who may not was sent away. It may be left out where there are too many.
    Refused(Caller),
}

/// A request that waits for the engine.
#[derive(Debug)]
pub struct Pending {
    /// Who asks.
    pub caller: Caller,
    /// What for.
    pub request: Request,
    /// Takes the answer.
    pub reply: oneshot::Sender<Answer>,
}

/// Where the socket is: as configured, or in the directory that systemd gives; `None`: there is none.
#[must_use]
pub fn socket(configured: Option<PathBuf>) -> Option<PathBuf> {
    let given = std::env::var_os("RUNTIME_DIRECTORY").filter(|given| !given.is_empty());
    configured.or_else(|| Some(PathBuf::from(given?).join("qkdd.ctl")))
}

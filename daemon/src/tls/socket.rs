//! What a connection runs over.

use tokio::net::{TcpStream, UnixStream};

use super::either::read_and_write_either;

/// A connection over TCP, or to a UNIX socket behind which somebody else connects on.
#[derive(Debug)]
pub enum Socket {
    /// TCP, to whoever is meant.
    Tcp(TcpStream),
    /// To whoever connects on.
    Unix(UnixStream),
}

impl Socket {
    /// What was written and has not left this host yet must not leave it once the connection is dropped. Behind a UNIX socket
    /// that is for whoever connects on to say.
    pub(super) fn drop_unsent(&self) {
        if let Self::Tcp(stream) = self {
            // Where it cannot be set, the connection is gone already.
            let _ = stream.set_zero_linger();
        }
    }
}

read_and_write_either!(Socket: Tcp, Unix);

//! A connection, encrypted or not.

use rustls::{CommonState, NamedGroup};
use tokio_rustls::TlsStream;

use super::either::read_and_write_either;
use super::socket::Socket;

/// A connection, encrypted or not. What was written to it may lie in its buffers until it is flushed.
#[derive(Debug)]
pub enum Wire {
    /// As it is.
    Plain(Socket),
    /// Over TLS 1.3; the other end is who it must be.
    Secure(Box<TlsStream<Socket>>),
}

impl Wire {
    /// What was written and has not left this host yet must not leave it once the connection is dropped. Behind a UNIX socket
    /// that is for whoever connects on to say.
    pub fn drop_unsent(&self) {
        match self {
            Self::Plain(socket) => socket.drop_unsent(),
            Self::Secure(stream) => stream.get_ref().0.drop_unsent(),
        }
    }

    fn state(&self) -> Option<&CommonState> {
        match self {
            Self::Plain(_) => None,
            Self::Secure(stream) => Some(stream.get_ref().1),
        }
    }

    /// Key exchange that was agreed on; `None`: without TLS.
    #[must_use]
    pub fn key_exchange(&self) -> Option<NamedGroup> {
        self.state()?.negotiated_key_exchange_group().map(|group| group.name())
    }
}

read_and_write_either!(Wire: Plain, Secure);

//! What a connection runs over.

use std::io::{Error, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

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

macro_rules! either {
    ($socket:expr, $stream:ident => $done:expr) => {
        match $socket.get_mut() {
            Socket::Tcp($stream) => $done,
            Socket::Unix($stream) => $done,
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<Result<(), Error>> {
        either!(self, stream => Pin::new(stream).poll_read(cx, into))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<Result<usize, Error>> {
        either!(self, stream => Pin::new(stream).poll_write(cx, octets))
    }

    /// One record of TLS, which is what there mostly is, goes by `send` instead of `writev`: the kernel has less to do for it.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[IoSlice<'_>],
    ) -> Poll<Result<usize, Error>> {
        if let [only] = octets {
            return self.poll_write(cx, only);
        }
        either!(self, stream => Pin::new(stream).poll_write_vectored(cx, octets))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        either!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        either!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

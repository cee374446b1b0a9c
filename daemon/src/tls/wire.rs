//! A connection, encrypted or not.

use std::io::{Error, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::{CommonState, NamedGroup};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

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

macro_rules! either {
    ($wire:expr, $stream:ident => $done:expr) => {
        match $wire.get_mut() {
            Wire::Plain($stream) => $done,
            Wire::Secure($stream) => $done,
        }
    };
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<Result<(), Error>> {
        either!(self, stream => Pin::new(stream).poll_read(cx, into))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<Result<usize, Error>> {
        either!(self, stream => Pin::new(stream).poll_write(cx, octets))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[IoSlice<'_>],
    ) -> Poll<Result<usize, Error>> {
        either!(self, stream => Pin::new(stream).poll_write_vectored(cx, octets))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Secure(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        either!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        either!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

//! A connection with the KMS, and what its answers are passed on to.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;

use super::answer::{AnswerError, AnswerReader, LastHead};
use super::buffer::ReceiveBuffer;
use super::report::Failure;
use super::sender::Sender;
use crate::tls::Wire;

pub(super) type Connecting = Pin<Box<dyn Future<Output = Result<Wire, Failure>> + Send>>;

/// How the KMS is reached now.
pub(super) enum Link {
    None,
    Connecting(Connecting),
    Open(Connection),
}

/// A connection with the KMS.
pub(super) struct Connection {
    pub(super) stream: Wire,
    /// Something that was written may still lie in the stream's own buffers.
    pub(super) unflushed: bool,
    pub(super) reader: AnswerReader,
    /// It has brought a 2xx answer.
    pub(super) progressed: bool,
    /// Nothing can be written any more; answers may still be there to read.
    pub(super) unwritable: Option<Failure>,
}

impl Connection {
    /// `excerpts`: whether answers other than 2xx get one.
    pub(super) fn new(stream: Wire, excerpts: bool) -> Self {
        let reader = AnswerReader::new(excerpts);
        Self { stream, unflushed: false, reader, progressed: false, unwritable: None }
    }
}

/// Passes on every answer that was read. Says whether the connection has ended with it.
pub(super) fn understand(
    connection: &mut Connection,
    receive: &mut ReceiveBuffer,
    last: &mut LastHead,
    sender: &mut Sender,
    now: Instant,
) -> Result<bool, AnswerError> {
    loop {
        if receive.unread().is_empty() {
            return Ok(false);
        }
        if !sender.is_in_flight() {
            // Servers say why they close an idle connection; a request would have to be sent anew anyway.
            return Ok(true);
        }
        let (done, answer) = connection.reader.advance(receive.unread(), last)?;
        receive.done(done);
        let Some(answer) = answer else { return Ok(false) };
        connection.progressed |= answer.is_success();
        let close = answer.close;
        sender.answered(answer, now)?;
        if close {
            return Ok(true);
        }
    }
}

/// Reads what has come.
pub(super) fn poll_read(
    stream: &mut Wire,
    receive: &mut ReceiveBuffer,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let mut free = ReadBuf::new(receive.free_mut());
    ready!(Pin::new(stream).poll_read(cx, &mut free))?;
    Poll::Ready(Ok(free.filled().len()))
}

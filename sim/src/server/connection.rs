//! One client on the socket: whole messages in, whole answers out.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use zerocopy::{FromBytes, IntoBytes};

use super::descriptors;
use super::device::{Answer, Device};
use super::protocol::{Header, MESSAGE_MAX, flag};

/// How long the rest of a message may take once its first octet is there, and how long an answer may take to leave.
const MESSAGE_TIME: Duration = Duration::from_secs(5);
/// How often a waiting thread looks whether the pair ends, in milliseconds.
pub(super) const LOOK_MS: u16 = 200;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    /// The client closed it between two messages.
    #[error("closed by the client")]
    Closed,
    /// The client closed it within a message.
    #[error("closed by the client within a message")]
    Cut,
    /// The rest of a message did not come in time.
    #[error("a message was not complete within {} s", MESSAGE_TIME.as_secs())]
    Slow,
    /// A message had a length that none has; what follows it cannot be understood.
    #[error("a message claimed {0} octets; 16 to {MESSAGE_MAX} are possible")]
    Size(u32),
    /// VERSION came not first, or names a version or capabilities that this server does not know.
    #[error("no version could be agreed on")]
    Version,
    /// The pair is ending.
    #[error("the pair ends")]
    Stopped,
    /// The socket failed.
    #[error(transparent)]
    Socket(#[from] io::Error),
}

/// Serves a client until it goes or breaks the protocol.
pub(crate) fn serve(stream: &UnixStream, device: &mut Device<'_>, stop: &AtomicBool) -> Ended {
    let prepared = stream.set_nonblocking(false).and_then(|()| stream.set_write_timeout(Some(MESSAGE_TIME)));
    if let Err(error) = prepared {
        return error.into();
    }
    loop {
        match serve_message(stream, device, stop) {
            Ok(()) => {}
            Err(ended) => return ended,
        }
    }
}

fn serve_message(stream: &UnixStream, device: &mut Device<'_>, stop: &AtomicBool) -> Result<(), Ended> {
    wait_for_first(stream, stop)?;
    let deadline = Instant::now() + MESSAGE_TIME;
    let mut received = Vec::new();
    let mut head = [0; size_of::<Header>()];
    receive_all(stream, &mut head, &mut received, deadline, Ended::Closed)?;
    let header = Header::read_from_bytes(&head).map_err(|_| Ended::Size(0))?;
    let size = header.size.get();
    let body_bytes = (size as usize).checked_sub(head.len()).filter(|_| size as usize <= MESSAGE_MAX);
    let Some(body_bytes) = body_bytes else {
        reply(stream, header, Err(Errno::EINVAL))?;
        return Err(Ended::Size(size));
    };
    let mut body = vec![0; body_bytes];
    receive_all(stream, &mut body, &mut received, deadline, Ended::Cut)?;

    let answer = if header.flags.get() & flag::TYPE == 0 {
        device.handle(header.command.get(), &body, received)
    } else {
        // The server asks the client nothing, so there is nothing that this could be the answer to.
        Err(Errno::EINVAL)
    };
    let agreed = device.has_version();
    if header.flags.get() & flag::NO_REPLY == 0 || !agreed {
        reply(stream, header, answer)?;
    }
    if agreed { Ok(()) } else { Err(Ended::Version) }
}

/// Waits without an end for a client that has nothing to say, but not beyond the end of the pair.
fn wait_for_first(stream: &UnixStream, stop: &AtomicBool) -> Result<(), Ended> {
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(Ended::Stopped);
        }
        if readable(stream, PollTimeout::from(LOOK_MS))? {
            return Ok(());
        }
    }
}

fn readable(stream: &impl AsFd, timeout: PollTimeout) -> io::Result<bool> {
    let mut waiting = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
    match poll(&mut waiting, timeout) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Fills `into`. `at_start` is the reason when the client has closed before the first octet.
fn receive_all(
    stream: &UnixStream,
    into: &mut [u8],
    received: &mut Vec<OwnedFd>,
    deadline: Instant,
    at_start: Ended,
) -> Result<(), Ended> {
    let mut filled = 0;
    while let Some(rest) = into.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Ended::Slow);
        }
        let left_ms = u16::try_from(left.as_millis().saturating_add(1)).unwrap_or(u16::MAX);
        if !readable(stream, PollTimeout::from(left_ms))? {
            continue;
        }
        match descriptors::receive(stream, rest, received) {
            Ok(0) if filled == 0 => return Err(at_start),
            Ok(0) => return Err(Ended::Cut),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn reply(stream: &UnixStream, to: Header, answer: Result<Answer, Errno>) -> Result<(), Ended> {
    let (body, descriptor, flags, error) = match answer {
        Ok(answer) => (answer.body, answer.descriptor, flag::REPLY, 0),
        Err(errno) => (Vec::new(), None, flag::REPLY | flag::ERROR, errno as u32),
    };
    let size = size_of::<Header>() + body.len();
    let header = Header {
        size: u32::try_from(size).unwrap_or(u32::MAX).into(),
        flags: flags.into(),
        error: error.into(),
        ..to
    };
    let mut message = Vec::with_capacity(size);
    message.extend_from_slice(header.as_bytes());
    message.extend_from_slice(&body);
    descriptors::send(stream, &message, descriptor.as_ref().map(AsFd::as_fd))?;
    Ok(())
}

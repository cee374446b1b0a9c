//! Messages and descriptors over a UNIX socket. Every wait has a deadline.
#![allow(unsafe_code, reason = "descriptors come out of the kernel's control message as plain numbers")]

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, connect,
    recvmsg, sendmsg, socket,
};

use crate::backing::BackingError;
use crate::backing::signals::poll_timeout;

/// Most descriptors accepted with one message; more is a breach of what this client announced.
pub(super) const DESCRIPTORS_MAX: usize = 8;
/// Time between two tries to connect while the server's queue is full.
const TRY_AGAIN: Duration = Duration::from_millis(5);

/// A connected socket.
#[derive(Debug)]
pub(super) struct Socket {
    descriptor: OwnedFd,
}

/// A moment by which something must be done, and what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    what: &'static str,
    at: Instant,
    ms: u64,
}

impl Deadline {
    pub(super) fn new(what: &'static str, timeout: Duration) -> Self {
        Self {
            what,
            at: Instant::now() + timeout,
            ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        }
    }

    pub(super) const fn what(&self) -> &'static str {
        self.what
    }

    pub(super) fn timed_out(&self) -> BackingError {
        BackingError::Timeout { what: self.what, ms: self.ms }
    }

    fn io(&self, errno: Errno) -> BackingError {
        match errno {
            Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN => BackingError::Gone { what: self.what },
            errno => BackingError::Io { what: self.what, source: io::Error::from(errno) },
        }
    }
}

impl Socket {
    /// Connects to the socket at `path`.
    pub(super) fn connect(path: &Path, deadline: Deadline) -> Result<Self, BackingError> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let descriptor =
            socket(AddressFamily::Unix, SockType::Stream, flags, None).map_err(|errno| deadline.io(errno))?;
        let address = UnixAddr::new(path).map_err(|errno| deadline.io(errno))?;
        loop {
            match connect(descriptor.as_raw_fd(), &address) {
                Ok(()) => return Ok(Self { descriptor }),
                // A UNIX socket answers this while the server's queue is full, and poll does not tell when it is not.
                Err(Errno::EAGAIN) if Instant::now() < deadline.at => std::thread::sleep(TRY_AGAIN),
                Err(Errno::EAGAIN) => return Err(deadline.timed_out()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(deadline.io(errno)),
            }
        }
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) const fn of(descriptor: OwnedFd) -> Self {
        Self { descriptor }
    }

    /// Sends all of `message`, with `descriptors` on its first byte.
    pub(super) fn send(
        &self,
        message: &[u8],
        descriptors: &[BorrowedFd<'_>],
        deadline: Deadline,
    ) -> Result<(), BackingError> {
        let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&numbers)];
        let mut sent = 0;
        while let Some(rest) = message.get(sent..).filter(|rest| !rest.is_empty()) {
            let control = if sent == 0 && !numbers.is_empty() { rights.as_slice() } else { &[] };
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            match sendmsg::<UnixAddr>(
                self.descriptor.as_raw_fd(),
                &[IoSlice::new(rest)],
                control,
                flags,
                None,
            ) {
                Ok(count) => sent += count,
                Err(Errno::EAGAIN) => self.ready(PollFlags::POLLOUT, deadline)?,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(deadline.io(errno)),
            }
        }
        Ok(())
    }

    /// Fills `into`. Descriptors that come along are appended to `descriptors`.
    pub(super) fn receive(
        &self,
        into: &mut [u8],
        descriptors: &mut Vec<OwnedFd>,
        deadline: Deadline,
    ) -> Result<(), BackingError> {
        let mut received = 0;
        while let Some(rest) = into.get_mut(received..).filter(|rest| !rest.is_empty()) {
            match self.receive_some(rest, descriptors) {
                Ok(0) => return Err(BackingError::Gone { what: deadline.what }),
                Ok(count) => received += count,
                Err(Errno::EAGAIN) => self.ready(PollFlags::POLLIN, deadline)?,
                Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS) => {
                    let problem = "more descriptors came than can be taken".to_owned();
                    return Err(BackingError::Protocol { what: deadline.what, problem });
                }
                Err(errno) => return Err(deadline.io(errno)),
            }
            if descriptors.len() > DESCRIPTORS_MAX {
                let problem = format!("{} descriptors came with one message", descriptors.len());
                return Err(BackingError::Protocol { what: deadline.what, problem });
            }
        }
        Ok(())
    }

    fn receive_some(&self, into: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> Result<usize, Errno> {
        let mut control = nix::cmsg_space!([RawFd; DESCRIPTORS_MAX]);
        let mut slices = [IoSliceMut::new(into)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
        let message =
            recvmsg::<UnixAddr>(self.descriptor.as_raw_fd(), &mut slices, Some(&mut control), flags)?;
        // Take what came before complaining about what was cut off, so that nothing stays open unowned.
        let mut truncated = message.flags.contains(MsgFlags::MSG_CTRUNC);
        match message.cmsgs() {
            Ok(messages) => {
                for rights in messages {
                    let ControlMessageOwned::ScmRights(numbers) = rights else { continue };
                    for number in numbers {
                        // SAFETY: the kernel made this descriptor for this message alone, and nothing else in the
                        // process knows its number: we are its one owner.
                        descriptors.push(unsafe { OwnedFd::from_raw_fd(number) });
                    }
                }
            }
            Err(_) => truncated = true,
        }
        if truncated { Err(Errno::ENOBUFS) } else { Ok(message.bytes) }
    }

    /// Waits until the socket is ready for `what`.
    fn ready(&self, what: PollFlags, deadline: Deadline) -> Result<(), BackingError> {
        let left = deadline.at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(deadline.timed_out());
        }
        let mut descriptors = [PollFd::new(self.descriptor.as_fd(), what)];
        match ppoll(&mut descriptors, Some(poll_timeout(left)), None) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(deadline.io(errno)),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

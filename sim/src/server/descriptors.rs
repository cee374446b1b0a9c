//! Sending and receiving octets together with file descriptors.
#![allow(unsafe_code, reason = "descriptors arrive as bare numbers; only here they become owned")]

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// Descriptors that one message may bring.
pub(crate) const DESCRIPTORS_MAX: usize = 8;

/// Receives what is there, at most `into`, and appends the descriptors that came with it. Gives 0 at the end.
///
/// # Errors
/// What the socket says; `InvalidData` when more descriptors came than one message may bring.
pub(crate) fn receive(
    stream: &UnixStream,
    into: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut control = cmsg_space!([RawFd; DESCRIPTORS_MAX]);
    let mut octets = [IoSliceMut::new(into)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut octets, Some(&mut control), flags)?;
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = part {
            for number in numbers {
                // SAFETY: the kernel has just made this descriptor for this process and told nobody else of it, so
                // this is its only owner. Each number of the message is taken once.
                descriptors.push(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
    }
    if message.flags.contains(MsgFlags::MSG_CTRUNC) || descriptors.len() > DESCRIPTORS_MAX {
        let text = format!("more than {DESCRIPTORS_MAX} file descriptors in one message");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(message.bytes)
}

/// Sends a whole message, with a descriptor if one is given. The socket's send timeout bounds each part.
///
/// # Errors
/// What the socket says; `WriteZero` when it takes no more.
pub(crate) fn send(stream: &UnixStream, octets: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let numbers: Vec<RawFd> = descriptor.iter().map(AsRawFd::as_raw_fd).collect();
    let control = [ControlMessage::ScmRights(&numbers)];
    let mut control = if numbers.is_empty() { &control[..0] } else { &control[..] };
    let mut rest = octets;
    while !rest.is_empty() {
        let flags = MsgFlags::MSG_NOSIGNAL;
        let sent = sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(rest)], control, flags, None)?;
        if sent == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        control = &[];
        rest = rest.get(sent..).unwrap_or_default();
    }
    Ok(())
}

//! The eventfds through which a card, and the platform it is on, signal.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;

use super::{BackingError, Signals};

const WAITING: &str = "waiting for the card";
/// Longest wait: longer than any that a card has, and a time that the kernel takes.
const LONGEST: Duration = Duration::from_millis(i32::MAX as u64);

/// One eventfd for each thing that can be signalled.
#[derive(Debug)]
pub(super) struct Eventfds {
    event: EventFd,
    control: EventFd,
    error: EventFd,
    request: EventFd,
}

impl Eventfds {
    /// Four that are not signalled.
    pub(super) fn new() -> io::Result<Self> {
        let eventfd = || EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        Ok(Self { event: eventfd()?, control: eventfd()?, error: eventfd()?, request: eventfd()? })
    }

    /// Those of the event and the control vector, in the order of the vectors.
    pub(super) fn vectors(&self) -> [BorrowedFd<'_>; 2] {
        [self.event.as_fd(), self.control.as_fd()]
    }

    /// That of VFIO's error interrupt.
    pub(super) fn error(&self) -> BorrowedFd<'_> {
        self.error.as_fd()
    }

    /// That of VFIO's request interrupt.
    pub(super) fn request(&self) -> BorrowedFd<'_> {
        self.request.as_fd()
    }

    /// Forgets what was signalled, but not a request to give the card back.
    pub(super) fn forget(&self) {
        for eventfd in [&self.event, &self.control, &self.error] {
            let _ = take(eventfd);
        }
    }

    /// Waits for any of them, the waker or `other`, at most `timeout`. Tells what was signalled, which is consumed, and
    /// whether `other` is ready.
    pub(super) fn wait(
        &self,
        timeout: Duration,
        waker: Option<BorrowedFd<'_>>,
        other: Option<BorrowedFd<'_>>,
    ) -> Result<(Signals, bool), BackingError> {
        let own = [self.event.as_fd(), self.control.as_fd(), self.error.as_fd(), self.request.as_fd()];
        let others = [waker, other];
        let all = own.into_iter().chain(others.into_iter().flatten());
        let mut descriptors: Vec<PollFd<'_>> = all.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        match ppoll(&mut descriptors, Some(poll_timeout(timeout)), None) {
            Ok(0) | Err(Errno::EINTR) => return Ok((Signals::default(), false)),
            Ok(_) => {}
            Err(errno) => return Err(BackingError::Io { what: WAITING, source: errno.into() }),
        }
        // Anything but silence counts: an error or a hang-up must wake the caller as well.
        let mut ready =
            descriptors.iter().map(|descriptor| descriptor.revents().is_some_and(|flags| !flags.is_empty()));
        let mut next = |there: bool| there && ready.next().unwrap_or(false);
        let (event, control, error, request) = (next(true), next(true), next(true), next(true));
        let (waker, other) = (next(waker.is_some()), next(other.is_some()));
        let signals = Signals {
            event: event && take(&self.event),
            control: control && take(&self.control),
            removal_requested: request && take(&self.request),
            gone: error && take(&self.error),
            waker,
        };
        Ok((signals, other))
    }
}

/// Empties an eventfd; whether it had been signalled.
fn take(eventfd: &EventFd) -> bool {
    eventfd.read().is_ok_and(|count| count > 0)
}

/// A time for ppoll, of at most some weeks.
pub(super) fn poll_timeout(time: Duration) -> TimeSpec {
    TimeSpec::from_duration(time.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(eventfd: BorrowedFd<'_>) {
        nix::unistd::write(eventfd, &1_u64.to_ne_bytes()).expect("an eventfd takes a signal");
    }

    #[test]
    fn each_signal_is_told_as_itself_and_once() {
        let eventfds = Eventfds::new().expect("eventfds");
        let waker = EventFd::new().expect("an eventfd");
        let other = EventFd::new().expect("an eventfd");
        let wait = || {
            eventfds.wait(Duration::ZERO, Some(waker.as_fd()), Some(other.as_fd())).expect("waiting works")
        };
        assert_eq!(wait(), (Signals::default(), false));
        signal(eventfds.vectors()[0]);
        assert_eq!(wait(), (Signals { event: true, ..Signals::default() }, false));
        signal(eventfds.vectors()[1]);
        assert_eq!(wait(), (Signals { control: true, ..Signals::default() }, false));
        signal(eventfds.error());
        assert_eq!(wait(), (Signals { gone: true, ..Signals::default() }, false));
        signal(eventfds.request());
        assert_eq!(wait(), (Signals { removal_requested: true, ..Signals::default() }, false));
        assert_eq!(wait(), (Signals::default(), false));
        signal(other.as_fd());
        assert_eq!(wait(), (Signals::default(), true));
        // The waker's reader is the caller: it stays signalled.
        signal(waker.as_fd());
        assert_eq!(wait(), (Signals { waker: true, ..Signals::default() }, true));
        // Without a waker, the other descriptor is not taken for it.
        let (signals, ready) =
            eventfds.wait(Duration::ZERO, None, Some(other.as_fd())).expect("waiting works");
        assert_eq!((signals, ready), (Signals::default(), true));
    }

    #[test]
    fn a_request_to_give_the_card_back_outlives_a_reset() {
        let eventfds = Eventfds::new().expect("eventfds");
        for eventfd in [eventfds.vectors()[0], eventfds.error(), eventfds.request()] {
            signal(eventfd);
        }
        eventfds.forget();
        let (signals, _) = eventfds.wait(Duration::ZERO, None, None).expect("waiting works");
        assert_eq!(signals, Signals { removal_requested: true, ..Signals::default() });
    }
}

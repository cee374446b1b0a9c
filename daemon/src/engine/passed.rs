//! Listening sockets that systemd has opened and passed to the daemon (sd_listen_fds(3)), by their names `api` and `peer`
//! (FileDescriptorName= in the socket units). With them the daemon needs no network of its own.
#![allow(unsafe_code, reason = "a passed descriptor is a number that systemd vouches for")]

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Sockets that were passed.
#[derive(Debug, Default)]
pub(super) struct Passed {
    /// For the API.
    pub(super) api: Option<TcpListener>,
    /// For the other daemon, where this end listens.
    pub(super) peer: Option<TcpListener>,
}

/// What was passed is not what the configuration says.
#[derive(Debug, thiserror::Error)]
pub enum PassedError {
    /// The environment says nonsense of what was passed.
    #[error("the sockets that systemd has passed cannot be told: {0}")]
    Environment(#[from] std::io::Error),
    /// Neither of the two names, or one of them twice.
    #[error(
        "systemd has passed a socket named \"{name}\", which is not one of \"api\" and \"peer\" or was passed already; set \
         FileDescriptorName= in the socket unit"
    )]
    Name {
        /// Its name.
        name: String,
    },
    /// A socket at another address, or none of TCP: what the configuration was judged by would not hold.
    #[error(
        "systemd has passed a socket named \"{name}\" at {passed}, but {name}.listen is {configured}: make ListenStream= in \
         the socket unit and the configuration the same"
    )]
    Address {
        /// Its name.
        name: &'static str,
        /// Where it listens.
        passed: String,
        /// Where the configuration says.
        configured: SocketAddr,
    },
    /// This end does not listen for the other.
    #[error(
        "systemd has passed a socket named \"peer\", but this end has no peer.listen: remove its socket unit"
    )]
    PeerConnects,
    /// One is missing: the daemon would listen where nobody can reach it.
    #[error(
        "systemd has passed sockets, but none named \"{name}\": give the daemon a socket unit for {name}.listen as well"
    )]
    Missing {
        /// What is missing.
        name: &'static str,
    },
}

/// Takes what was passed, once in a process; a second call gets nothing. `api` and `peer` are the configured addresses.
///
/// # Errors
/// See [`PassedError`].
pub(super) fn sockets(api: SocketAddr, peer: Option<SocketAddr>) -> Result<Passed, PassedError> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::AcqRel) {
        return Ok(Passed::default());
    }
    let named = sd_notify::listen_fds_with_names()?.map(|(descriptor, name)| {
        // SAFETY: LISTEN_PID names this process, so that systemd has opened the descriptor for it and nothing else in it owns
        // it; the numbers differ, and `TAKEN` keeps any from being taken a second time.
        (name, unsafe { OwnedFd::from_raw_fd(descriptor) })
    });
    sort(named, api, peer)
}

fn sort(
    named: impl Iterator<Item = (String, OwnedFd)>,
    api: SocketAddr,
    peer: Option<SocketAddr>,
) -> Result<Passed, PassedError> {
    let (mut passed, mut any) = (Passed::default(), false);
    for (name, descriptor) in named {
        any = true;
        let listener = TcpListener::from(descriptor);
        match name.as_str() {
            "api" if passed.api.is_none() => passed.api = Some(at("api", listener, api)?),
            "peer" if passed.peer.is_none() => {
                passed.peer = Some(at("peer", listener, peer.ok_or(PassedError::PeerConnects)?)?);
            }
            _ => return Err(PassedError::Name { name }),
        }
    }
    if any && passed.api.is_none() {
        return Err(PassedError::Missing { name: "api" });
    }
    if any && passed.peer.is_none() && peer.is_some() {
        return Err(PassedError::Missing { name: "peer" });
    }
    Ok(passed)
}

/// The listener, where it is at `configured`; port 0 stands for any.
fn at(name: &'static str, listener: TcpListener, configured: SocketAddr) -> Result<TcpListener, PassedError> {
    let wrong = |passed: String| PassedError::Address { name, passed, configured };
    let is = listener.local_addr().map_err(|_| wrong("an address that is not TCP's".to_owned()))?;
    if is.ip() == configured.ip() && (configured.port() == 0 || is.port() == configured.port()) {
        Ok(listener)
    } else {
        Err(wrong(is.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixListener;

    use super::{PassedError, sort};

    const ANY: &str = "127.0.0.1:0";

    fn bound() -> (OwnedFd, SocketAddr) {
        let listener = TcpListener::bind(ANY).unwrap();
        let address = listener.local_addr().unwrap();
        (listener.into(), address)
    }

    fn named(name: &str, descriptor: OwnedFd) -> (String, OwnedFd) {
        (name.to_owned(), descriptor)
    }

    #[test]
    fn without_systemd_nothing_is_passed() {
        let passed = sort([].into_iter(), ANY.parse().unwrap(), Some(ANY.parse().unwrap())).unwrap();
        assert!(passed.api.is_none() && passed.peer.is_none());
    }

    #[test]
    fn each_socket_goes_where_its_name_says_in_any_order() {
        let ((one, api), (other, peer)) = (bound(), bound());
        let passed = sort([named("peer", other), named("api", one)].into_iter(), api, Some(peer)).unwrap();
        assert_eq!(passed.api.unwrap().local_addr().unwrap(), api);
        assert_eq!(passed.peer.unwrap().local_addr().unwrap(), peer);
    }

    #[test]
    fn a_socket_at_another_address_than_the_configured_is_refused() {
        let (descriptor, address) = bound();
        let elsewhere = SocketAddr::new("127.0.0.2".parse().unwrap(), address.port());
        let refused = sort([named("api", descriptor)].into_iter(), elsewhere, None).unwrap_err();
        assert!(matches!(refused, PassedError::Address { name: "api", .. }), "{refused}");
        let (descriptor, address) = bound();
        let other_port = SocketAddr::new(address.ip(), address.port() ^ 1);
        assert!(sort([named("api", descriptor)].into_iter(), other_port, None).is_err());
        let folder = tempfile::tempdir().unwrap();
        let unix = UnixListener::bind(folder.path().join("socket")).unwrap();
        assert!(sort([named("api", unix.into())].into_iter(), ANY.parse().unwrap(), None).is_err());
    }

    #[test]
    fn a_socket_that_is_missing_nameless_or_of_no_use_is_refused() {
        let any = || ANY.parse().unwrap();
        let only = |name: &str, peer| sort([named(name, bound().0)].into_iter(), any(), peer).unwrap_err();
        assert!(matches!(only("api", Some(any())), PassedError::Missing { name: "peer" }));
        assert!(matches!(only("peer", Some(any())), PassedError::Missing { name: "api" }));
        assert!(matches!(only("peer", None), PassedError::PeerConnects));
        assert!(matches!(only("unknown", None), PassedError::Name { .. }));
        let twice = [named("api", bound().0), named("api", bound().0)];
        assert!(matches!(sort(twice.into_iter(), any(), None), Err(PassedError::Name { .. })));
    }
}

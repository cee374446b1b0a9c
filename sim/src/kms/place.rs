//! Where a KMS listens: an address, or a UNIX socket for a QKD module on the same machine.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where a KMS listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Over TCP; port 0 is a free one.
    Tcp(SocketAddr),
    /// A UNIX socket.
    Unix(PathBuf),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with('/') {
            return Ok(Self::Unix(text.into()));
        }
        text.parse().map(Self::Tcp).map_err(|_| {
            "neither an address with a port, such as 127.0.0.1:9001, nor the absolute path of a UNIX socket".to_owned()
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// Listens at `path`, also where one that has ended did before: the socket stays behind.
///
/// # Errors
/// What lies there is no socket, or somebody listens there; or the system's error.
pub(super) fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket lies there"));
        }
        Ok(_) if UnixStream::connect(path).is_ok() => return Err(io::ErrorKind::AddrInUse.into()),
        Ok(_) => std::fs::remove_file(path)?,
        Err(_) => {}
    }
    UnixListener::bind(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_socket_and_all_else_an_address() {
        assert_eq!("/run/kms.sock".parse(), Ok(Place::Unix("/run/kms.sock".into())));
        assert_eq!("127.0.0.1:0".parse(), Ok(Place::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))));
        for wrong in ["", "kms.sock", "localhost", "127.0.0.1"] {
            assert!(wrong.parse::<Place>().unwrap_err().contains("UNIX socket"), "{wrong:?}");
        }
    }

    #[test]
    fn a_socket_that_nobody_serves_is_replaced_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kms.sock");
        let first = listen(&path).unwrap();
        assert_eq!(listen(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        drop(listen(&path).unwrap());
        let file = folder.path().join("history");
        std::fs::write(&file, "kept").unwrap();
        assert_eq!(listen(&file).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
    }
}

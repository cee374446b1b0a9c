//! Where a KMS listens: an address, or a UNIX socket for a QKD module on the same machine.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
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
}

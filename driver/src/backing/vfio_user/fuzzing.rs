//! A way in for fuzzing: a server that is at the other end of a socket already.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use super::client::Client;
use super::socket::Socket;
use super::{BackingError, VfioUser};

/// As [`VfioUser::connect`], on a socket that is connected.
///
/// # Errors
/// As [`VfioUser::connect`].
pub fn over(stream: UnixStream, timeout: Duration) -> Result<VfioUser, BackingError> {
    let client = Client::over(Socket::of(stream.into()), timeout)?;
    VfioUser::over(PathBuf::from("fuzzing"), client)
}

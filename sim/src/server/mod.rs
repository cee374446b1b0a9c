//! A card behind a vfio-user socket: the public protocol by which a device in one process is driven from another.
//!
//! A server takes one client at a time. Another one may connect meanwhile; it waits, unanswered, until the first is
//! gone. When a client goes, its memory is let go and the function is reset, so that the next one finds a card in
//! `Boot` or `Stopped` with everything that a function reset keeps.

mod config_space;
mod connection;
mod descriptors;
mod device;
mod dma;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod msix;
mod port;
mod protocol;
mod shared;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen as listen_on, socket,
};
use nix::sys::stat::{Mode, fchmod};

use connection::LOOK_MS;
use device::Device;
pub(crate) use port::Port;

/// A socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum BadSocket {
    /// Somebody listens there already.
    #[error("{0}: another program serves this socket; end it or name another path")]
    Busy(PathBuf),
    /// What lies there is no socket and is not touched.
    #[error("{0}: exists and is no socket; name another path")]
    NotASocket(PathBuf),
    /// The socket cannot be made.
    #[error("{path}: {error}")]
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// A card's socket and the thread that serves it.
pub(crate) struct Server {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    port: Arc<Port>,
}

impl Server {
    /// Listens on `path` and serves clients until it is dropped. The socket may be used by its owner only.
    pub(crate) fn start(path: &Path, port: Arc<Port>) -> Result<Self, BadSocket> {
        let failed = |error| BadSocket::Io { path: path.into(), error };
        let listener = listen(path)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, served) = (Arc::clone(&stop), Arc::clone(&port));
        let thread = std::thread::Builder::new()
            .name("vfio-user".into())
            .spawn({
                let path = path.to_path_buf();
                move || accept_clients(&path, &listener, &served, &stopped)
            })
            .map_err(failed)?;
        Ok(Self { path: path.into(), stop, thread: Some(thread), port })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.port.request_release();
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("{}: the server thread panicked", self.path.display());
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            log::debug!("{}: not removed: {error}", self.path.display());
        }
    }
}

/// Binds the socket with mode 0600.
fn listen(path: &Path) -> Result<UnixListener, BadSocket> {
    make_way(path)?;
    bind_private(path).map_err(|error| BadSocket::Io { path: path.into(), error: error.into() })
}

/// Removes a socket that nobody listens on: it is left over from a run before. Nothing else is removed.
pub(crate) fn make_way(path: &Path) -> Result<(), BadSocket> {
    let failed = |error| BadSocket::Io { path: path.into(), error };
    match std::fs::symlink_metadata(path) {
        Ok(found) => {
            if !found.file_type().is_socket() {
                return Err(BadSocket::NotASocket(path.into()));
            }
            match UnixStream::connect(path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path).map_err(failed)
                }
                _ => Err(BadSocket::Busy(path.into())),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// A listening socket with mode 0600 from its first moment: on Linux the file takes the mode of the unbound socket.
fn bind_private(path: &Path) -> nix::Result<UnixListener> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen_on(&socket, Backlog::new(8)?)?;
    Ok(UnixListener::from(socket))
}

fn accept_clients(path: &Path, listener: &UnixListener, port: &Port, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let mut waiting = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waiting, PollTimeout::from(LOOK_MS)) {
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(error) => {
                log::error!("waiting for a client: {error}");
                return;
            }
        }
        match listener.accept() {
            Ok((stream, _)) => serve_client(path, &stream, port, stop),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                // Out of descriptors, most likely: the client is told nothing, so do not turn in circles over it.
                log::warn!("a client cannot be taken: {error}");
                std::thread::sleep(std::time::Duration::from_millis(LOOK_MS.into()));
            }
        }
    }
}

fn serve_client(path: &Path, stream: &UnixStream, port: &Port, stop: &AtomicBool) {
    port.client_came();
    let ended = connection::serve(stream, &mut Device::new(port), stop);
    log::info!("{}: client gone: {ended}", path.display());
    if !port.client_left() {
        log::error!("{}: the card did not follow the function reset in time", path.display());
    }
}

//! A connection of the sink: many requests with one read, their answers with one write, plain or over TLS.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection};

/// Octets that one read may bring.
pub const READ: usize = 256 * 1024;
/// Longest record of TLS, and more.
const RECORD: usize = 32 * 1024;

/// A connection, and what came over it and is not read yet.
#[derive(Debug)]
pub struct Wire {
    /// The socket of either kind, which does not block.
    pub socket: File,
    tls: Option<Box<ServerConnection>>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// What the socket did not take, without TLS.
    unsent: Vec<u8>,
}

impl Wire {
    /// Over TCP.
    ///
    /// # Errors
    /// What the socket says.
    pub fn tcp(socket: TcpStream, tls: Option<&Arc<ServerConfig>>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        Self::over(socket.into(), tls)
    }

    /// Over a UNIX socket.
    ///
    /// # Errors
    /// What the socket says.
    pub fn unix(socket: UnixStream, tls: Option<&Arc<ServerConfig>>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Self::over(socket.into(), tls)
    }

    fn over(socket: OwnedFd, tls: Option<&Arc<ServerConfig>>) -> io::Result<Self> {
        let tls = tls.map(|config| ServerConnection::new(Arc::clone(config))).transpose();
        let tls = tls.map_err(io::Error::other)?.map(|mut session| {
            session.set_buffer_limit(None);
            Box::new(session)
        });
        let socket = socket.into();
        Ok(Self { socket, tls, buffer: vec![0; 2 * READ], start: 0, end: 0, unsent: Vec::new() })
    }

    /// Reads once from the socket. `false`: the other end has closed.
    ///
    /// # Errors
    /// What socket or TLS say.
    pub fn read(&mut self, scratch: &mut [u8]) -> io::Result<bool> {
        // With TLS, also the rest of a record that began in the read before.
        self.make_room(READ + RECORD);
        let Some(tls) = &mut self.tls else {
            return match self.socket.read(&mut self.buffer[self.end..]) {
                Ok(octets) => {
                    self.end += octets;
                    Ok(octets > 0)
                }
                Err(error) if is_nothing(&error) => Ok(true),
                Err(error) => Err(error),
            };
        };
        let octets = match self.socket.read(scratch) {
            Ok(octets) => octets,
            Err(error) if is_nothing(&error) => return Ok(true),
            Err(error) => return Err(error),
        };
        let mut came = &scratch[..octets];
        // rustls takes a little at a time.
        while !came.is_empty() {
            let _ = tls.read_tls(&mut came)?;
            let state = tls.process_new_packets().map_err(io::Error::other)?;
            let there = state.plaintext_bytes_to_read();
            if there > 0 {
                // Plain text is no longer than what it came in.
                tls.reader().read_exact(&mut self.buffer[self.end..self.end + there])?;
                self.end += there;
            }
        }
        let _ = self.flush()?;
        Ok(octets > 0)
    }

    fn make_room(&mut self, octets: usize) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.buffer.len() - self.end < octets {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            self.buffer.resize(self.buffer.len().max(self.end + octets), 0);
        }
    }

    /// What came and is not done with.
    #[must_use]
    pub fn unread(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// So many octets of [`Self::unread`] are done with.
    pub fn done(&mut self, octets: usize) {
        self.start += octets;
    }

    /// Writes, with one call for all of it. `false`: the socket is full, and [`Self::flush`] has to be called once it is not.
    ///
    /// # Errors
    /// What socket or TLS say.
    pub fn write(&mut self, octets: &[u8]) -> io::Result<bool> {
        match &mut self.tls {
            Some(tls) => tls.writer().write_all(octets)?,
            None if self.unsent.is_empty() => match self.socket.write(octets) {
                Ok(written) => self.unsent.extend_from_slice(&octets[written..]),
                Err(error) if is_nothing(&error) => self.unsent.extend_from_slice(octets),
                Err(error) => return Err(error),
            },
            None => self.unsent.extend_from_slice(octets),
        }
        self.flush()
    }

    /// Writes what is left. `false`: the socket is full.
    ///
    /// # Errors
    /// What socket or TLS say.
    pub fn flush(&mut self) -> io::Result<bool> {
        let result = match &mut self.tls {
            Some(tls) => loop {
                if !tls.wants_write() {
                    break Ok(());
                }
                if let Err(error) = tls.write_tls(&mut self.socket) {
                    break Err(error);
                }
            },
            None => loop {
                if self.unsent.is_empty() {
                    break Ok(());
                }
                match self.socket.write(&self.unsent) {
                    Ok(written) => drop(self.unsent.drain(..written)),
                    Err(error) => break Err(error),
                }
            },
        };
        match result {
            Ok(()) => Ok(true),
            Err(error) if is_nothing(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

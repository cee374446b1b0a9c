//! A vfio-user client that says exactly what it is told to, and a card behind a server for it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use qkd_contract::registers::Register;
use qkd_contract::state::Role;

use crate::card::{Block, Card, FromLink, Identity, KeyOctets, Name, Remembered, WhileRunning};
use crate::server::descriptors;
use crate::server::{Port, Server};

/// No wait of a test lasts longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A card that lives behind a socket.
pub(super) struct Served {
    pub(super) path: PathBuf,
    pub(super) port: Arc<Port>,
    server: Option<Server>,
    stop: Arc<AtomicBool>,
    card: Option<JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

/// Blocks that the card of [`Served`] retains from the start.
pub(super) const RETAINED: u64 = 3;

impl Served {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    /// With a card that was prepared before its first step.
    pub(super) fn with(prepare: impl FnOnce(&mut Card)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("card.sock");
        let mut card = retaining_card();
        prepare(&mut card);
        let port = Arc::new(Port::new(card.identity().device_id, card.identity().serial).unwrap());
        // As `qkd-sim pair` does it: a client never reads registers that were not set.
        port.step(&mut card, 0);
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (port, stop) = (Arc::clone(&port), Arc::clone(&stop));
            move || {
                let start = Instant::now();
                let mut announced = false;
                while !stop.load(Ordering::Relaxed) {
                    port.step(&mut card, u64::try_from(start.elapsed().as_micros()).unwrap());
                    if !announced {
                        announce(&mut card);
                        announced = true;
                    }
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
        });
        let server = Some(Server::start(&path, Arc::clone(&port)).unwrap());
        Self { path, port, server, stop, card: Some(thread), _folder: folder }
    }

    pub(super) fn client(&self) -> Client {
        Client::connect(&self.path)
    }

    /// A client that has agreed on a version and set Memory Space Enable.
    pub(super) fn agreed(&self) -> Client {
        let mut client = self.client();
        client.agree();
        client.write(7, 4, &[2, 0]);
        client
    }

    pub(super) fn stop_serving(&mut self) {
        self.server = None;
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.server = None;
        self.stop.store(true, Ordering::Relaxed);
        self.card.take().unwrap().join().unwrap();
    }
}

fn retaining_card() -> Card {
    let identity = Identity { block_max: 4096, ..Identity::new(0xA1B2C3, 0xA1B2C4, Role::Transmitter) };
    Card::new(identity, Remembered::default(), Box::new(WhileRunning)).unwrap()
}

fn announce(card: &mut Card) {
    assert!(card.agree_session(1));
    card.receive(FromLink::SessionBegan(1));
    for sequence in 0..RETAINED {
        let key = KeyOctets::filled_by(4096, |octets| octets.fill(0xC5));
        let name = Name { session: 1, sequence };
        card.receive(FromLink::Block(Block { name, qber: 0, distilled_at: 0, key }));
    }
}

/// An answer: errno, what follows the header, descriptors.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) error: u32,
    pub(super) body: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
}

pub(super) struct Client {
    pub(super) stream: UnixStream,
    next_id: u16,
}

impl Client {
    pub(super) fn connect(path: &Path) -> Self {
        Self::over(UnixStream::connect(path).unwrap())
    }

    pub(super) fn over(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, next_id: 1 }
    }

    pub(super) fn agree(&mut self) {
        let mut body = vec![0, 0, 1, 0];
        body.extend_from_slice(b"{\"capabilities\":{\"max_msg_fds\":8}}\0");
        assert_eq!(self.call(1, &body, &[]).error, 0);
    }

    pub(super) fn message(&mut self, command: u16, size: u32, flags: u32) -> [u8; 16] {
        let mut header = [0; 16];
        header[0..2].copy_from_slice(&self.next_id.to_le_bytes());
        header[2..4].copy_from_slice(&command.to_le_bytes());
        header[4..8].copy_from_slice(&size.to_le_bytes());
        header[8..12].copy_from_slice(&flags.to_le_bytes());
        self.next_id = self.next_id.wrapping_add(1);
        header
    }

    pub(super) fn send(&mut self, command: u16, flags: u32, body: &[u8], pass: &[BorrowedFd<'_>]) {
        let size = u32::try_from(16 + body.len()).unwrap();
        let mut octets = self.message(command, size, flags).to_vec();
        octets.extend_from_slice(body);
        let numbers: Vec<i32> = pass.iter().map(AsRawFd::as_raw_fd).collect();
        let control = [nix::sys::socket::ControlMessage::ScmRights(&numbers)];
        let control = if pass.is_empty() { &control[..0] } else { &control[..] };
        let sent = nix::sys::socket::sendmsg::<()>(
            self.stream.as_raw_fd(),
            &[std::io::IoSlice::new(&octets)],
            control,
            nix::sys::socket::MsgFlags::MSG_NOSIGNAL,
            None,
        );
        assert_eq!(sent, Ok(octets.len()));
    }

    pub(super) fn answer(&mut self) -> Answered {
        let mut header = [0; 16];
        let mut received = Vec::new();
        let count = descriptors::receive(&self.stream, &mut header, &mut received).unwrap();
        assert_ne!(count, 0, "the server closed the connection");
        self.stream.read_exact(&mut header[count..]).unwrap();
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
        assert_eq!(word(8) & 0xF, 1, "a reply");
        assert_eq!(word(8) & 0x20 != 0, word(12) != 0, "error bit and errno agree");
        let mut body = vec![0; word(4) as usize - 16];
        self.stream.read_exact(&mut body).unwrap();
        Answered { error: word(12), body, descriptors: received }
    }

    pub(super) fn call(&mut self, command: u16, body: &[u8], pass: &[BorrowedFd<'_>]) -> Answered {
        self.send(command, 0, body, pass);
        self.answer()
    }

    pub(super) fn refused(&mut self, command: u16, body: &[u8], pass: &[BorrowedFd<'_>]) -> Errno {
        let answered = self.call(command, body, pass);
        assert!(answered.body.is_empty() && answered.descriptors.is_empty());
        Errno::from_raw(i32::try_from(answered.error).unwrap())
    }

    /// Whether the server has closed the connection.
    pub(super) fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0; 256]), Ok(0) | Err(_))
    }

    pub(super) fn raw(&mut self, octets: &[u8]) {
        self.stream.write_all(octets).unwrap();
    }

    pub(super) fn read(&mut self, region: u32, offset: u64, count: u32) -> Vec<u8> {
        let answered = self.call(9, &access(region, offset, count), &[]);
        assert_eq!(answered.error, 0);
        answered.body[16..].to_vec()
    }

    pub(super) fn write(&mut self, region: u32, offset: u64, data: &[u8]) {
        let mut body = access(region, offset, u32::try_from(data.len()).unwrap());
        body.extend_from_slice(data);
        assert_eq!(self.call(10, &body, &[]).error, 0);
    }

    pub(super) fn register(&mut self, register: &Register) -> u64 {
        let octets = self.read(0, register.offset.into(), register.width);
        octets.iter().rev().fold(0, |value, octet| value << 8 | u64::from(*octet))
    }

    pub(super) fn set_register(&mut self, register: &Register, value: u64) {
        self.write(0, register.offset.into(), &value.to_le_bytes()[..register.width as usize]);
    }

    /// Reads a register until it has a value.
    pub(super) fn await_register(&mut self, register: &Register, wanted: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.register(register) != wanted {
            assert!(Instant::now() < deadline, "{} never read {wanted:#x}", register.name);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(super) fn map(
        &mut self,
        iova: u64,
        bytes: u64,
        offset: u64,
        memory: Option<BorrowedFd<'_>>,
    ) -> Errno {
        let mut body = Vec::new();
        body.extend_from_slice(&32_u32.to_le_bytes());
        body.extend_from_slice(&3_u32.to_le_bytes());
        for value in [offset, iova, bytes] {
            body.extend_from_slice(&value.to_le_bytes());
        }
        let pass: Vec<BorrowedFd<'_>> = memory.into_iter().collect();
        Errno::from_raw(i32::try_from(self.call(2, &body, &pass).error).unwrap())
    }

    /// The octets that were unmapped.
    pub(super) fn unmap(&mut self, flags: u32, iova: u64, bytes: u64) -> Result<u64, Errno> {
        let mut body = Vec::new();
        body.extend_from_slice(&24_u32.to_le_bytes());
        body.extend_from_slice(&flags.to_le_bytes());
        for value in [iova, bytes] {
            body.extend_from_slice(&value.to_le_bytes());
        }
        let answered = self.call(3, &body, &[]);
        if answered.error != 0 {
            return Err(Errno::from_raw(i32::try_from(answered.error).unwrap()));
        }
        assert_eq!(answered.body[..16], body[..16]);
        Ok(u64::from_le_bytes(answered.body[16..].try_into().unwrap()))
    }

    pub(super) fn set_irqs(&mut self, words: [u32; 4], data: &[u8], pass: &[BorrowedFd<'_>]) -> Errno {
        let mut body = 20_u32.to_le_bytes().to_vec();
        words.iter().for_each(|word| body.extend_from_slice(&word.to_le_bytes()));
        body.extend_from_slice(data);
        Errno::from_raw(i32::try_from(self.call(8, &body, pass).error).unwrap())
    }
}

pub(super) fn access(region: u32, offset: u64, count: u32) -> Vec<u8> {
    let mut body = offset.to_le_bytes().to_vec();
    body.extend_from_slice(&region.to_le_bytes());
    body.extend_from_slice(&count.to_le_bytes());
    body
}

/// Memory that a client may pass, of that many bytes.
pub(super) fn memory(bytes: u64, flags: MFdFlags) -> File {
    named_memory("client", bytes, flags)
}

pub(super) fn named_memory(name: &str, bytes: u64, flags: MFdFlags) -> File {
    let file = File::from(memfd_create(name, flags | MFdFlags::MFD_CLOEXEC).unwrap());
    file.set_len(bytes).unwrap();
    file
}

pub(super) fn sealable(bytes: u64) -> File {
    memory(bytes, MFdFlags::MFD_ALLOW_SEALING)
}

pub(super) fn as_fds<T: AsFd>(all: &[T]) -> Vec<BorrowedFd<'_>> {
    all.iter().map(AsFd::as_fd).collect()
}

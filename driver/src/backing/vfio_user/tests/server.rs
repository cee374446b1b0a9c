//! A small vfio-user server that serves a BAR without a card behind it, and can answer one command wrongly.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use zerocopy::{FromBytes, IntoBytes};

use super::super::socket::{Deadline, Socket};
use super::super::wire::{
    self, Command, DeviceInfo, DmaMap, DmaUnmap, HEADER_BYTES, Header, IrqInfo, RegionAccess, RegionInfo,
    SetIrqs, SparseArea,
};

pub(super) const BAR_BYTES: u64 = 0x1_0000;
/// How long the server waits for its client; tests end long before.
const IDLE: Duration = Duration::from_secs(60);

/// A wrong answer.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// The header claims this size.
    Size(u32),
    /// The id is off by this.
    Id(u16),
    /// The reply is of this command.
    Command(u16),
    /// The message is of this type.
    Type(u32),
    /// Commands come instead, without end.
    Flood,
    /// So many commands come first.
    AfterCommands(u32),
    /// This body, with a good header.
    Body(Vec<u8>),
    /// No descriptor comes along.
    NoDescriptor,
    /// A descriptor whose file is shorter than the BAR.
    ShortFile,
    /// An error with this reason.
    Refusal(u32),
    /// Nothing.
    Silence,
    /// Half a header.
    Half,
}

#[derive(Default)]
struct State {
    memory: BTreeMap<u64, OwnedFd>,
    vectors: BTreeMap<u32, OwnedFd>,
    refusals: u32,
    config: Vec<u8>,
}

pub(super) struct Server {
    state: Arc<Mutex<State>>,
    bar: File,
    /// Another handle of the server's end, to hang up.
    stream: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a server; gives the client's end.
    pub(super) fn start(wrong: Option<(Command, Answer)>) -> (Socket, Self) {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let bar = tempfile::tempfile().expect("a file");
        bar.set_len(BAR_BYTES).expect("as long as the BAR");
        let mut config = vec![0; 4096];
        config[..4].copy_from_slice(&[0x44, 0x51, 0x01, 0x00]);
        let state = Arc::new(Mutex::new(State { config, ..State::default() }));
        let serving = Serving {
            socket: Socket::of(ours.try_clone().expect("a handle").into()),
            state: Arc::clone(&state),
            bar: bar.try_clone().expect("a handle"),
            wrong,
        };
        let thread = std::thread::spawn(move || serving.run());
        (Socket::of(theirs.into()), Self { state, bar, stream: ours, thread: Some(thread) })
    }

    pub(super) fn bar_u32(&self, offset: u32) -> u32 {
        let mut octets = [0; 4];
        self.bar.read_exact_at(&mut octets, offset.into()).expect("inside");
        u32::from_le_bytes(octets)
    }

    pub(super) fn memory(&self, iova: u64, length: usize) -> Vec<u8> {
        let state = self.state.lock().expect("not poisoned");
        let (base, file) = state.memory.range(..=iova).next_back().expect("it is mapped");
        let file = File::from(file.try_clone().expect("a handle"));
        let mut octets = vec![0; length];
        file.read_exact_at(&mut octets, iova - base).expect("inside");
        octets
    }

    pub(super) fn is_unmapped(&self, iova: u64) -> bool {
        !self.state.lock().expect("not poisoned").memory.contains_key(&iova)
    }

    pub(super) fn raise(&self, vector: u32) {
        let state = self.state.lock().expect("not poisoned");
        let eventfd = state.vectors.get(&vector).expect("it is wired");
        nix::unistd::write(eventfd, &1_u64.to_ne_bytes()).expect("signalled");
    }

    pub(super) fn refusals_seen(&self) -> u32 {
        self.state.lock().expect("not poisoned").refusals
    }

    pub(super) fn end(&self) {
        self.stream.shutdown(std::net::Shutdown::Both).expect("hung up");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the server saw something wrong");
        }
    }
}

struct Serving {
    socket: Socket,
    state: Arc<Mutex<State>>,
    bar: File,
    wrong: Option<(Command, Answer)>,
}

impl Serving {
    fn run(self) {
        while let Some((header, body, descriptors)) = self.next() {
            if header.flags & wire::TYPE_MASK == wire::TYPE_REPLY {
                assert_eq!(header.flags & wire::FLAG_ERROR, wire::FLAG_ERROR, "our commands are refused");
                self.state.lock().expect("not poisoned").refusals += 1;
                continue;
            }
            let (answer, handles) = self.honest(header.command, &body, descriptors);
            let wrong = self.wrong.as_ref().filter(|(command, _)| *command as u16 == header.command);
            match wrong {
                Some((_, wrong)) => self.answer_wrongly(header, wrong, answer, handles),
                None => self.reply(header, &answer, &handles),
            }
        }
    }

    fn next(&self) -> Option<(Header, Vec<u8>, Vec<OwnedFd>)> {
        let deadline = Deadline::new("serving", IDLE);
        let mut descriptors = Vec::new();
        let mut octets = [0; HEADER_BYTES];
        self.socket.receive(&mut octets, &mut descriptors, deadline).ok()?;
        let header = Header::read_from_bytes(&octets).expect("16 octets");
        let mut body = vec![0; header.size as usize - HEADER_BYTES];
        self.socket.receive(&mut body, &mut descriptors, deadline).ok()?;
        Some((header, body, descriptors))
    }

    /// The honest body of an answer, and the descriptors that go with it.
    fn honest(&self, command: u16, body: &[u8], mut descriptors: Vec<OwnedFd>) -> (Vec<u8>, Vec<OwnedFd>) {
        let mut state = self.state.lock().expect("not poisoned");
        let answer = match command {
            1 => [&[0, 0, 1, 0], br#"{"capabilities":{"max_msg_fds":16,"other":[1]}}"#.as_slice(), &[0]]
                .concat(),
            2 => {
                let (map, _) = DmaMap::read_from_prefix(body).expect("a mapping");
                state.memory.insert(map.address, descriptors.remove(0));
                vec![]
            }
            3 => {
                let (unmap, _) = DmaUnmap::read_from_prefix(body).expect("an unmapping");
                state.memory.remove(&unmap.address);
                body.to_vec()
            }
            4 => DeviceInfo { argsz: 16, flags: 3, regions: 9, irqs: 5 }.as_bytes().to_vec(),
            5 => {
                let area = SparseArea { offset: 0, size: BAR_BYTES };
                return (sparse(1, &[area]), vec![self.bar.try_clone().expect("a handle").into()]);
            }
            7 => {
                let (info, _) = IrqInfo::read_from_prefix(body).expect("a question");
                let count = if info.index == wire::IRQ_MSIX { 2 } else { 0 };
                IrqInfo { argsz: 16, flags: wire::IRQ_EVENTFD, index: info.index, count }.as_bytes().to_vec()
            }
            8 => {
                let (set, _) = SetIrqs::read_from_prefix(body).expect("a wiring");
                assert_eq!((set.index, set.count, descriptors.len()), (wire::IRQ_MSIX, 1, 1));
                state.vectors.insert(set.start, descriptors.remove(0));
                vec![]
            }
            9 | 10 => {
                let (access, data) = RegionAccess::read_from_prefix(body).expect("an access");
                assert_eq!(access.region, wire::CONFIG_REGION);
                let place = usize::try_from(access.offset).expect("small");
                let place = &mut state.config[place..][..access.count as usize];
                if command == 10 {
                    place.copy_from_slice(data);
                }
                let read = if command == 9 { place.to_vec() } else { vec![] };
                [access.as_bytes(), &read].concat()
            }
            13 => vec![],
            other => panic!("the client sent command {other}"),
        };
        (answer, vec![])
    }

    fn answer_wrongly(&self, header: Header, wrong: &Answer, answer: Vec<u8>, handles: Vec<OwnedFd>) {
        let good = reply_header(header, answer.len());
        match wrong {
            Answer::Size(size) => self.send(Header { size: *size, ..good }, &answer, &handles),
            Answer::Id(by) => {
                self.send(Header { id: header.id.wrapping_add(*by), ..good }, &answer, &handles)
            }
            Answer::Command(command) => self.send(Header { command: *command, ..good }, &answer, &handles),
            Answer::Type(kind) => self.send(Header { flags: *kind, ..good }, &answer, &handles),
            Answer::Flood => self.send_commands(200),
            Answer::AfterCommands(count) => {
                self.send_commands(*count);
                for _ in 0..*count {
                    let (refusal, _, _) = self.next().expect("each is answered");
                    assert_eq!(refusal.flags, wire::TYPE_REPLY | wire::FLAG_ERROR);
                    self.state.lock().expect("not poisoned").refusals += 1;
                }
                self.send(good, &answer, &handles);
            }
            Answer::Body(body) => self.reply(header, body, &handles),
            Answer::NoDescriptor => self.reply(header, &answer, &[]),
            Answer::ShortFile => {
                let file = tempfile::tempfile().expect("a file");
                file.set_len(BAR_BYTES - 1).expect("one octet short");
                self.reply(header, &answer, &[file.into()]);
            }
            Answer::Refusal(error) => {
                let flags = wire::TYPE_REPLY | wire::FLAG_ERROR;
                self.send(Header { flags, error: *error, ..reply_header(header, 0) }, &[], &[]);
            }
            Answer::Silence => {}
            Answer::Half => {
                let _ = self.socket.send(&good.as_bytes()[..8], &[], Deadline::new("answering", IDLE));
            }
        }
    }

    fn send_commands(&self, count: u32) {
        for id in 0..count {
            let header =
                Header { id: u16::try_from(id).expect("few"), command: 11, size: 16, flags: 0, error: 0 };
            self.send(header, &[], &[]);
        }
    }

    fn reply(&self, to: Header, body: &[u8], handles: &[OwnedFd]) {
        self.send(reply_header(to, body.len()), body, handles);
    }

    fn send(&self, header: Header, body: &[u8], handles: &[OwnedFd]) {
        let message = [header.as_bytes(), body].concat();
        let handles: Vec<_> = handles.iter().map(AsFd::as_fd).collect();
        // A client that has hung up is none of the server's trouble.
        let _ = self.socket.send(&message, &handles, Deadline::new("answering", IDLE));
    }
}

fn reply_header(to: Header, length: usize) -> Header {
    let size = u32::try_from(HEADER_BYTES + length).expect("short");
    Header { size, flags: wire::TYPE_REPLY, error: 0, ..to }
}

/// Region information with these flags, a first capability at `at`, and `rest` after the fixed part.
pub(super) fn capability(flags: u32, at: u32, rest: &[u8]) -> Vec<u8> {
    let info = RegionInfo { argsz: 1024, flags, index: 0, cap_offset: at, size: BAR_BYTES, offset: 0 };
    [info.as_bytes(), rest].concat()
}

/// Region information with a list of areas that claims `count` of them.
pub(super) fn sparse(count: u32, areas: &[SparseArea]) -> Vec<u8> {
    let header = [[1, 0, 1, 0], [0; 4], count.to_le_bytes(), [0; 4]].concat();
    let flags = wire::REGION_MAPPABLE | wire::REGION_CAPABILITIES;
    capability(flags, 32, &[&header, areas.as_bytes()].concat())
}

//! Two cores in virtual time, one of them under attack.

use std::collections::VecDeque;

use qkd_contract::state::LinkState;
use qkd_daemon::agreement::{
    Action, BlockName, Capacity, CardFacts, Core, Durable, Event, Message, Now, Output, Record, Role,
    Settings,
};
use qkd_daemon::calls::{Answer, Call, Close, GetKey, Open};
use qkd_daemon::interface::{KeyStreamId, QosRequest};

use super::books::Books;

pub(super) const BLOCK: u32 = 256;
/// Blocks that are ever distilled.
const MOST_BLOCKS: u64 = 64;
const KMS: [&str; 2] = ["kms://a", "kms://b"];

fn settings(end: usize) -> Settings {
    let serials = [1, 2];
    let card = CardFacts {
        serial: serials[end],
        peer_serial: serials[1 - end],
        cell: 0,
        newest: None,
        retention: Capacity { bytes: 64 << 20, blocks: 65_536 },
    };
    let (name, role) = if end == 0 { ("A", Role::Leader) } else { ("B", Role::Follower) };
    let mut settings = Settings::new(name.to_owned(), role, card, 7, vec![KMS[end].to_owned()]);
    settings.most_streams = 8;
    settings.most_streams_per_kms = 6;
    settings.most_half_open_per_kms = 4;
    settings.most_closed_ids = 64;
    settings.most_waiting_calls = 8;
    settings
}

pub(super) struct End {
    pub(super) core: Core,
    pub(super) durable: Durable,
    pub(super) books: Books,
    pub(super) written: Vec<Vec<Record>>,
    /// Streams whose pusher is to end.
    stopping: Vec<KeyStreamId>,
}

impl End {
    fn new(end: usize) -> Self {
        Self {
            core: Core::new(settings(end), Durable::default()),
            durable: Durable::default(),
            books: Books::new(KMS[end]),
            written: Vec::new(),
            stopping: Vec::new(),
        }
    }
}

pub(super) struct Ends {
    pub(super) ends: [End; 2],
    /// The end that is under attack.
    pub(super) attacked: usize,
    time: u64,
    calls: u64,
    blocks: u64,
    pub(super) streams: Vec<KeyStreamId>,
    /// What each end is about to hear.
    pub(super) wires: [VecDeque<Message>; 2],
    /// What the end under attack has heard or could have heard.
    pub(super) heard: Vec<Message>,
}

impl Ends {
    pub(super) fn in_step(attacked: usize) -> Self {
        let mut both = Self {
            ends: [End::new(0), End::new(1)],
            attacked,
            time: 1_000,
            calls: 0,
            blocks: 0,
            streams: Vec::new(),
            wires: [VecDeque::new(), VecDeque::new()],
            heard: Vec::new(),
        };
        for end in 0..2 {
            both.begin(end);
        }
        both.connect();
        both.run(20);
        both
    }

    fn begin(&mut self, end: usize) {
        self.event(end, Event::Start);
        for sequence in 0..self.blocks {
            self.event(
                end,
                Event::BlockHeld { name: BlockName::new(1, sequence), length: BLOCK, replayed: true },
            );
        }
        self.event(end, Event::ReplayEnd);
        self.event(end, Event::Session { session: 1, previous_blocks: 0 });
        self.event(end, Event::Link { state: LinkState::Distilling, secret_key_rate_bps: 1_000_000 });
    }

    pub(super) fn connect(&mut self) {
        self.wires = [VecDeque::new(), VecDeque::new()];
        for end in 0..2 {
            if self.ends[end].core.status().connected {
                self.event(end, Event::PeerDisconnected);
            }
        }
        for end in 0..2 {
            self.event(end, Event::PeerConnected);
        }
    }

    /// An event at one end, and everything that it sets off there.
    pub(super) fn event(&mut self, end: usize, event: Event) {
        let now = Now { boot_ms: self.time, wall_ms: 1_700_000_000_000 + self.time };
        if let Event::BlockHeld { name, length, .. } = &event {
            self.ends[end].books.hold(*name, *length);
        }
        if let Event::Call { id, call, fresh_stream } = &event {
            self.ends[end].books.called(*id, call, *fresh_stream);
        }
        let one = &mut self.ends[end];
        let mark = one.core.status().mark;
        let mut out = Output::default();
        one.core.handle(now, event, &mut out);
        assert!(one.core.status().mark >= mark, "the mark fell");
        assert!(out.actions.len() < 10_000 && out.writes.len() < 10_000, "one event, endless work");
        for record in &out.writes {
            one.durable.apply(record);
        }
        if !out.writes.is_empty() {
            one.written.push(out.writes);
        }
        one.books.bounded(&one.core, &one.durable);
        for action in out.actions {
            one.books.watch(&action);
            match action {
                Action::Send(message) => {
                    if 1 - end == self.attacked {
                        self.heard.push(message.clone());
                    }
                    self.wires[1 - end].push_back(message);
                }
                Action::Stop { stream } => one.stopping.push(stream),
                Action::Disconnect { .. } => self.wires[end].clear(),
                _ => {}
            }
        }
    }

    /// Time passes; what is said arrives.
    pub(super) fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.time += 1;
            for end in 0..2 {
                for _ in 0..self.wires[end].len() {
                    let Some(message) = self.wires[end].pop_front() else { break };
                    self.event(end, Event::PeerMessage(message));
                }
                self.due(end);
            }
        }
    }

    /// A long time passes in which nobody says anything.
    pub(super) fn jump(&mut self, ms: u64) {
        self.time += ms;
        (0..2).for_each(|end| self.due(end));
    }

    fn due(&mut self, end: usize) {
        for _ in 0..1_000 {
            if self.ends[end].core.deadline().is_none_or(|due| due > self.time) {
                break;
            }
            self.event(end, Event::Tick);
        }
        assert!(self.ends[end].core.deadline().is_none_or(|due| due > self.time), "timers that never end");
        for stream in std::mem::take(&mut self.ends[end].stopping) {
            let sent_up_to = self.ends[end].books.delivered_up_to(stream);
            self.event(end, Event::Stopped { stream, sent_up_to });
        }
    }

    pub(super) fn call(&mut self, end: usize, call: Call) -> u64 {
        self.calls += 1;
        let id = self.calls;
        self.event(
            end,
            Event::Call { id, call, fresh_stream: KeyStreamId::from_u128(1_000 + u128::from(id)) },
        );
        id
    }

    pub(super) fn open(&mut self, end: usize, stream: Option<KeyStreamId>, chunk: u32) -> u64 {
        let qos = QosRequest { key_chunk_size: Some(chunk), ..QosRequest::default() };
        let [source, destination] = KMS.map(str::to_owned);
        self.call(end, Call::Open(Open { kms: KMS[end].to_owned(), source, destination, stream, qos }))
    }

    pub(super) fn get_key(&mut self, end: usize, stream: KeyStreamId, index: Option<u32>) {
        self.call(end, Call::GetKey(GetKey { kms: None, stream, index }));
    }

    pub(super) fn close(&mut self, end: usize, stream: KeyStreamId) {
        self.call(end, Call::Close(Close { kms: None, stream }));
    }

    /// Both KMSs open a stream and ask for key.
    pub(super) fn open_stream(&mut self) {
        let call = self.open(0, None, 32);
        self.run(20);
        let Some(Answer::Opened { stream, .. }) = self.ends[0].books.answer(call) else { return };
        let stream = *stream;
        self.streams.push(stream);
        self.open(1, Some(stream), 32);
        self.run(20);
        for end in 0..2 {
            self.get_key(end, stream, None);
        }
        self.run(20);
    }

    /// The next block arrives at the ends that `which` has a bit for.
    pub(super) fn block(&mut self, which: u8) {
        if self.blocks >= MOST_BLOCKS {
            return;
        }
        let name = BlockName::new(1, self.blocks);
        self.blocks += 1;
        for end in 0..2 {
            if which >> end & 1 == 1 {
                self.event(end, Event::BlockHeld { name, length: BLOCK, replayed: false });
            } else {
                self.event(end, Event::BlockLost { name });
            }
        }
    }

    /// The KMS accepts what was delivered.
    pub(super) fn accept(&mut self, end: usize) {
        for (stream, up_to) in self.ends[end].books.delivered() {
            self.event(end, Event::Accepted { stream, up_to });
        }
    }

    /// The end under attack starts anew from its ledger.
    pub(super) fn restart(&mut self) {
        let end = self.attacked;
        let durable = self.ends[end].durable.clone();
        self.ends[end].core = Core::new(settings(end), durable);
        self.ends[end].books.restarted();
        self.ends[end].stopping.clear();
        if self.ends[1 - end].core.status().connected {
            self.event(1 - end, Event::PeerDisconnected);
        }
        self.begin(end);
        self.connect();
    }

    /// The attack is over: the ends find together, and key flows in a new stream.
    pub(super) fn heal(&mut self) {
        for end in 0..2 {
            assert!(!self.ends[end].books.answer_missing_for_ever(), "a call is never answered");
        }
    }
}

/// What the ends say to each other in a usual life, and what one of them writes.
pub(super) fn conversation() -> (Vec<Message>, Vec<Vec<Record>>) {
    let mut said = Vec::new();
    let mut written = Vec::new();
    for attacked in 0..2 {
        let mut both = Ends::in_step(attacked);
        both.open_stream();
        for round in 0..12 {
            both.block(if round == 5 { 1 } else { 3 });
            both.run(10);
            (0..2).for_each(|end| both.accept(end));
            if round == 7 {
                both.connect();
            }
        }
        let stream = both.streams.first().copied().expect("a stream");
        let second = both.open(1, None, 64);
        both.run(20);
        assert!(both.ends[1].books.answer(second).is_some());
        (0..2).for_each(|end| both.close(end, stream));
        both.run(700);
        said.append(&mut both.heard);
        written = std::mem::take(&mut both.ends[0].written);
    }
    (said, written)
}

//! Two cores that talk without loss, for tests that are about something else.

use std::collections::HashMap;

use qkd_contract::state::LinkState;

use crate::agreement::{
    Action, BlockName, Capacity, CardFacts, Core, Delivery, Durable, Event, Message, Now, Output, Role,
    Settings,
};
use crate::calls::{Answer, Call, Close, GetKey, Open};
use crate::interface::{KeyStreamId, QosRequest};

pub(super) const BLOCK: u32 = 1_024;
pub(super) const A: &str = "kms://a";
pub(super) const B: &str = "kms://b";

pub(super) fn settings(role: Role) -> Settings {
    let leads = role == Role::Leader;
    let card = CardFacts {
        serial: if leads { 1 } else { 2 },
        peer_serial: if leads { 2 } else { 1 },
        cell: 0,
        newest: None,
        retention: Capacity { bytes: 64 << 20, blocks: 65_536 },
    };
    let (name, kms) = if leads { ("A", A) } else { ("B", B) };
    Settings::new(name.to_owned(), role, card, 7, vec![kms.to_owned()])
}

/// One end and everything that it wanted done.
pub(super) struct End {
    pub(super) core: Core,
    pub(super) durable: Durable,
    pub(super) actions: Vec<Action>,
    leads: bool,
    /// Octets given to push and forgotten here.
    totals: HashMap<KeyStreamId, u64>,
}

impl End {
    pub(super) fn new(settings: Settings, durable: Durable) -> Self {
        Self {
            leads: settings.role == Role::Leader,
            core: Core::new(settings, durable.clone()),
            durable,
            actions: Vec::new(),
            totals: HashMap::new(),
        }
    }

    /// Returns what is said to the other end.
    pub(super) fn handle(&mut self, time: u64, event: Event) -> Vec<Message> {
        let mut out = Output::default();
        let now = Now { boot_ms: time, wall_ms: 1_700_000_000_000 + time };
        self.core.handle(now, event, &mut out);
        for record in &out.writes {
            self.durable.apply(record);
        }
        // After a crash at any moment there is still all that the follower may have to be given again.
        if self.leads {
            let Durable { last, peer_applied, log, .. } = &self.durable;
            assert_eq!(log.range(peer_applied + 1..).count() as u64, last - peer_applied);
        }
        let mut said = Vec::new();
        for action in out.actions {
            match action {
                Action::Send(message) => said.push(message),
                other => self.actions.push(other),
            }
        }
        said
    }

    pub(super) fn deliveries(&self) -> Vec<&Delivery> {
        self.actions
            .iter()
            .filter_map(|action| if let Action::Deliver(delivery) = action { Some(delivery) } else { None })
            .collect()
    }

    /// Deliveries that are not forgotten yet, taken out.
    pub(super) fn take_deliveries(&mut self) -> Vec<Delivery> {
        let deliveries: Vec<Delivery> = self.deliveries().into_iter().cloned().collect();
        self.forget_old();
        deliveries
    }

    /// Forgets what was done, but for how much was delivered.
    pub(super) fn forget_old(&mut self) {
        for action in std::mem::take(&mut self.actions) {
            if let Action::Deliver(delivery) = action {
                *self.totals.entry(delivery.stream).or_insert(0) +=
                    u64::from(delivery.count) * u64::from(delivery.chunk_size);
            }
        }
    }

    /// Octets given to push for `stream`, forgotten ones included.
    pub(super) fn total(&self, stream: KeyStreamId) -> u64 {
        let kept: u64 = self
            .deliveries()
            .iter()
            .filter(|delivery| delivery.stream == stream)
            .map(|delivery| u64::from(delivery.count) * u64::from(delivery.chunk_size))
            .sum();
        kept + self.totals.get(&stream).copied().unwrap_or(0)
    }

    pub(super) fn answer(&self, call: u64) -> Option<&Answer> {
        self.actions.iter().find_map(|action| match action {
            Action::Answer { call: id, answer } if *id == call => Some(answer),
            _ => None,
        })
    }

    pub(super) fn says(&self, words: &str) -> bool {
        self.actions.iter().any(|action| match action {
            Action::Say { text, .. } => text.contains(words),
            Action::Disconnect { reason } => reason.contains(words),
            _ => false,
        })
    }
}

pub(super) struct Ends {
    pub(super) ends: [End; 2],
    pub(super) time: u64,
    pub(super) connected: bool,
    calls: u64,
    sequence: u64,
    wires: [Vec<Message>; 2],
}

impl Ends {
    /// Both ends are started, connected and in step, and have a link of `rate` bit/s.
    pub(super) fn in_step(rate: u64) -> Self {
        Self::with(settings(Role::Leader), settings(Role::Follower), rate)
    }

    pub(super) fn with(leader: Settings, follower: Settings, rate: u64) -> Self {
        let [leader, follower] = [leader, follower].map(|s| End::new(s, Durable::default()));
        let mut both = Self::unconnected(leader, follower);
        for end in 0..2 {
            both.event(end, Event::Start);
            both.event(end, Event::ReplayEnd);
            both.event(end, Event::Session { session: 1, previous_blocks: 0 });
            both.event(end, Event::Link { state: LinkState::Distilling, secret_key_rate_bps: rate });
        }
        both.connect();
        both.run(20);
        both
    }

    /// Neither is started.
    pub(super) fn unconnected(leader: End, follower: End) -> Self {
        Self {
            ends: [leader, follower],
            time: 1_000,
            connected: false,
            calls: 0,
            sequence: 0,
            wires: [Vec::new(), Vec::new()],
        }
    }

    pub(super) fn connect(&mut self) {
        self.connected = true;
        for end in 0..2 {
            self.event(end, Event::PeerConnected);
        }
    }

    pub(super) fn cut(&mut self) {
        self.connected = false;
        self.wires = [Vec::new(), Vec::new()];
        for end in 0..2 {
            self.event(end, Event::PeerDisconnected);
        }
    }

    /// `end` starts anew from its ledger; its card, which has been told of nothing, replays every block.
    pub(super) fn restart(&mut self, end: usize, settings: Settings) {
        self.cut();
        self.ends[end] = End::new(settings, self.ends[end].durable.clone());
        self.event(end, Event::Start);
        for sequence in 0..self.sequence {
            let name = BlockName::new(1, sequence);
            self.event(end, Event::BlockHeld { name, length: BLOCK, replayed: true });
        }
        self.event(end, Event::ReplayEnd);
        self.event(end, Event::Session { session: 1, previous_blocks: 0 });
        self.event(end, Event::Link { state: LinkState::Distilling, secret_key_rate_bps: 1_000_000 });
        self.connect();
    }

    pub(super) fn event(&mut self, end: usize, event: Event) {
        let said = self.ends[end].handle(self.time, event);
        if self.connected {
            self.wires[1 - end].extend(said);
        }
    }

    /// Time passes; what is said arrives a millisecond later.
    pub(super) fn run(&mut self, ms: u64) {
        self.overhear(ms);
    }

    /// The same; returns what each end has heard.
    pub(super) fn overhear(&mut self, ms: u64) -> [Vec<Message>; 2] {
        let mut heard = [Vec::new(), Vec::new()];
        for _ in 0..ms {
            self.time += 1;
            for end in 0..2 {
                for message in std::mem::take(&mut self.wires[end]) {
                    heard[end].push(message.clone());
                    self.event(end, Event::PeerMessage(message));
                }
                while self.ends[end].core.deadline().is_some_and(|due| due <= self.time) {
                    self.event(end, Event::Tick);
                }
            }
        }
        heard
    }

    pub(super) fn call(&mut self, end: usize, call: Call) -> u64 {
        self.calls += 1;
        let id = self.calls;
        let fresh_stream = KeyStreamId::from_u128(1_000 + u128::from(id));
        self.event(end, Event::Call { id, call, fresh_stream });
        id
    }

    pub(super) fn open(&mut self, end: usize, stream: Option<KeyStreamId>, qos: QosRequest) -> u64 {
        let kms = [A, B][end].to_owned();
        self.call(end, Call::Open(Open { kms, source: A.to_owned(), destination: B.to_owned(), stream, qos }))
    }

    pub(super) fn get_key(&mut self, end: usize, stream: KeyStreamId, index: Option<u32>) -> u64 {
        self.call(end, Call::GetKey(GetKey { kms: None, stream, index }))
    }

    pub(super) fn close(&mut self, end: usize, stream: KeyStreamId) -> u64 {
        self.call(end, Call::Close(Close { kms: None, stream }))
    }

    /// A stream that both KMSs have opened and neither has asked for.
    pub(super) fn opened(&mut self, qos: QosRequest) -> KeyStreamId {
        let call = self.open(0, None, qos);
        let Some(Answer::Opened { stream, .. }) = self.ends[0].answer(call).cloned() else {
            panic!("{:?}", self.ends[0].answer(call));
        };
        self.run(20);
        let joined = self.open(1, Some(stream), QosRequest::default());
        self.run(20);
        assert!(matches!(self.ends[1].answer(joined), Some(Answer::Opened { .. })));
        stream
    }

    /// A stream that both KMSs have opened and want.
    pub(super) fn stream(&mut self, qos: QosRequest) -> KeyStreamId {
        let stream = self.opened(qos);
        for end in 0..2 {
            let wanted = self.get_key(end, stream, None);
            self.run(20);
            assert_eq!(self.ends[end].answer(wanted), Some(&Answer::Done), "end {end}");
        }
        stream
    }

    /// Both cards deliver the next block of [`BLOCK`] octets.
    pub(super) fn block(&mut self) {
        let name = BlockName::new(1, self.sequence);
        self.sequence += 1;
        for end in 0..2 {
            self.event(end, Event::BlockHeld { name, length: BLOCK, replayed: false });
        }
    }

    /// What `end` was given for `stream` so far is accepted by its KMS.
    pub(super) fn accept(&mut self, end: usize, stream: KeyStreamId) {
        let up_to = self.ends[end]
            .deliveries()
            .iter()
            .filter(|delivery| delivery.stream == stream)
            .map(|delivery| delivery.first + u64::from(delivery.count))
            .max();
        if let Some(up_to) = up_to {
            self.event(end, Event::Accepted { stream, up_to });
        }
    }

    /// Octets that `end` was given for `stream`.
    pub(super) fn delivered(&self, end: usize, stream: KeyStreamId) -> u64 {
        self.ends[end].total(stream)
    }
}

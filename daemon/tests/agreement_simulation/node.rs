//! One end: a daemon without its I/O. The core, a ledger, a vault, a pusher for each stream, and what the engine does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use qkd_contract::state::LinkState;
use qkd_daemon::agreement::{
    Action, BlockName, Capacity, CardFacts, Core, Durable, Event, Message, Now, Output, Range, Role, Settings,
};
use qkd_daemon::calls::Answer;
use qkd_daemon::interface::KeyStreamId;
use qkd_daemon::ledger::{Ledger, MemoryLedger};

use super::card::{Card, CardEvent, RETAINED_MOST, length_of};
use super::checker::{Checker, Verdict, broken};
use super::defects::Defect;
use super::push::{Order, Pusher};

pub(crate) const VAULT_BYTES: u64 = 320;

/// How far a batch gets before the power fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PowerFails {
    Never,
    BeforeTheCommit,
    AfterTheCommit,
    AfterActions(usize),
}

/// A call that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Open,
    GetKey(KeyStreamId),
    Close(KeyStreamId),
}

pub(crate) struct Node {
    pub(crate) end: usize,
    pub(crate) core: Core,
    pub(crate) ledger: MemoryLedger,
    pub(crate) backup: Option<MemoryLedger>,
    /// For an engine that acts before it writes: what the ledger and the card's cell really held, some batches ago.
    unwritten: VecDeque<(Durable, u64)>,
    pub(crate) card: Card,
    pub(crate) vault: BTreeMap<BlockName, u32>,
    /// Octets given to push from blocks in the vault: each may be taken once.
    taken: BTreeSet<(BlockName, u32)>,
    pub(crate) pushers: BTreeMap<KeyStreamId, Pusher>,
    /// What push tells the core, on its way.
    pub(crate) news: VecDeque<Event>,
    pub(crate) asked: BTreeMap<u64, Asked>,
    pub(crate) outbox: Vec<Message>,
    pub(crate) hangs_up: bool,
    pub(crate) boot_id: u128,
    pub(crate) boot_offset: u64,
    pub(crate) opened: Vec<(KeyStreamId, String, String)>,
    pub(crate) counts: BTreeMap<&'static str, u64>,
    pub(crate) trace: Option<Vec<String>>,
}

impl Node {
    pub(crate) fn new(end: usize) -> Self {
        let mut node = Self {
            end,
            core: Core::new(settings(end, &Card::default(), 1), Durable::default()),
            ledger: MemoryLedger::new(),
            backup: None,
            unwritten: VecDeque::new(),
            card: Card::default(),
            vault: BTreeMap::new(),
            taken: BTreeSet::new(),
            pushers: BTreeMap::new(),
            news: VecDeque::new(),
            asked: BTreeMap::new(),
            outbox: Vec::new(),
            hangs_up: false,
            boot_id: 1,
            boot_offset: 0,
            opened: Vec::new(),
            counts: BTreeMap::new(),
            trace: None,
        };
        node.card.start();
        node
    }

    pub(crate) fn say(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let text = text();
            trace.push(format!("end {}: {text}", self.end));
        }
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_insert(0) += 1;
    }

    pub(crate) fn now(&self, time: u64) -> Now {
        Now { boot_ms: time - self.boot_offset, wall_ms: 1_700_000_000_000 + time }
    }

    /// A new process, with whatever the ledger holds.
    pub(crate) fn restart(&mut self, time: u64, checker: &mut Checker, defect: Option<Defect>) -> Verdict {
        self.vault.clear();
        self.taken.clear();
        self.pushers.clear();
        self.news.clear();
        self.asked.clear();
        self.outbox.clear();
        if let Some((durable, cell)) = self.unwritten.pop_front() {
            self.ledger = MemoryLedger::holding(durable);
            self.card.cell = cell;
            self.unwritten.clear();
        }
        self.card.start();
        let mut settings = settings(self.end, &self.card, self.boot_id);
        match defect {
            Some(Defect::CellIsNotRead) => settings.card.cell = 0,
            Some(Defect::NewestIsNotRead) => settings.card.newest = None,
            _ => {}
        }
        let durable = self.ledger.load().expect("memory");
        self.core = Core::new(settings, durable);
        self.handle(time, Event::Start, PowerFails::Never, checker, defect)?;
        let link = Event::Link { state: LinkState::Distilling, secret_key_rate_bps: 1_000_000 };
        self.handle(time, link, PowerFails::Never, checker, defect)
    }

    /// The engine's way with one event: the core handles it, the writes become durable, the actions are carried out.
    pub(crate) fn handle(
        &mut self,
        time: u64,
        event: Event,
        fails: PowerFails,
        checker: &mut Checker,
        defect: Option<Defect>,
    ) -> Verdict {
        let event = match (event, defect) {
            (Event::PeerMessage(message), Some(defect)) => Event::PeerMessage(self.distort(message, defect)),
            (event, _) => event,
        };
        let mut out = Output::default();
        let now = self.now(time);
        self.core.handle(now, event, &mut out);
        if fails == PowerFails::BeforeTheCommit {
            return Ok(());
        }
        let writes_late = defect == Some(Defect::ActsBeforeItWrites);
        if writes_late {
            self.unwritten.push_back((self.ledger.durable().clone(), self.card.cell));
            if self.unwritten.len() > 8 {
                self.unwritten.pop_front();
            }
        }
        if !out.writes.is_empty() {
            let get_keys: BTreeSet<KeyStreamId> = self
                .asked
                .values()
                .filter_map(|asked| if let Asked::GetKey(stream) = asked { Some(*stream) } else { None })
                .collect();
            let mut number = 0;
            for record in &out.writes {
                checker.writes(self.end, self.ledger.durable(), record, &self.card.lost, &get_keys)?;
                self.say(|| format!("writes {record:?}"));
                // One by one, so that the checker sees what each finds.
                number = self.ledger.commit(std::slice::from_ref(record)).expect("memory");
            }
            if fails == PowerFails::AfterTheCommit {
                return Ok(());
            }
            self.card.cell = self.card.cell.max(number);
        }
        let most = if let PowerFails::AfterActions(most) = fails { most } else { usize::MAX };
        self.act(out.actions, most, checker, defect)
    }

    fn act(
        &mut self,
        actions: Vec<Action>,
        most: usize,
        checker: &mut Checker,
        defect: Option<Defect>,
    ) -> Verdict {
        for action in actions.into_iter().take(most) {
            self.say(|| format!("{action:?}"));
            match action {
                Action::Send(message) => self.outbox.push(message),
                Action::Disconnect { .. } => {
                    self.count("disconnect");
                    self.hangs_up = true;
                }
                Action::Answer { call, answer } => self.answered(call, answer, checker),
                Action::Begin { stream, .. } => {
                    self.pushers.insert(stream, Pusher::default());
                }
                Action::Deliver(mut delivery) => {
                    if defect == Some(Defect::ShiftsExtents) && self.end == 1 {
                        delivery.extents[0].offset += 1;
                    }
                    for extent in &delivery.extents {
                        let Some(length) = self.vault.get(&extent.block) else {
                            return broken(
                                "vault",
                                format!("{} is delivered but not in the vault", extent.block),
                            );
                        };
                        let end = extent.offset + extent.length;
                        if end > *length && defect.is_none() {
                            return broken("vault", format!("{extent:?} is beyond its block of {length}"));
                        }
                        for at in extent.offset..end {
                            if !self.taken.insert((extent.block, at)) {
                                return broken(
                                    "vault",
                                    format!("octet {at} of {} is taken twice", extent.block),
                                );
                            }
                        }
                    }
                    self.order(delivery.stream, Order::Deliver(delivery))?;
                }
                Action::Discard { stream, up_to, .. } => self.order(stream, Order::Discard(up_to))?,
                Action::Lost { .. } => self.count("lost"),
                Action::Resume { stream } => self.order(stream, Order::Resume)?,
                Action::Stop { stream, .. } => {
                    if defect == Some(Defect::AnswersCloseAtOnce) {
                        self.news.push_back(Event::Stopped { stream, sent_up_to: 0 });
                    }
                    self.order(stream, Order::Stop)?;
                }
                Action::Notice { stream, status, .. } => {
                    self.count("notice");
                    self.order(stream, Order::Notice(status))?;
                }
                Action::Acknowledge { first, last } => self.card.acknowledge(first, last),
                Action::Release { block } => {
                    self.vault.remove(&block);
                    let gone: Vec<_> = self.taken.range((block, 0)..=(block, u32::MAX)).copied().collect();
                    for octet in gone {
                        self.taken.remove(&octet);
                    }
                }
                Action::Say { .. } => {}
            }
        }
        Ok(())
    }

    fn order(&mut self, stream: KeyStreamId, order: Order) -> Verdict {
        match self.pushers.get_mut(&stream) {
            Some(pusher) => {
                pusher.orders.push_back(order);
                Ok(())
            }
            None => broken("begin", format!("stream {stream} has no pusher for {order:?}")),
        }
    }

    fn answered(&mut self, call: u64, answer: Answer, checker: &mut Checker) {
        let Some(asked) = self.asked.remove(&call) else { return };
        match (asked, answer) {
            (Asked::Open, Answer::Opened { stream, source, destination, .. }) => {
                self.count("opened");
                if !self.opened.iter().any(|(id, ..)| *id == stream) {
                    self.opened.push((stream, source, destination));
                }
            }
            (Asked::GetKey(_), Answer::Done) => self.count("get-key done"),
            (Asked::Close(stream), Answer::Done) => {
                self.count("closed");
                checker.close_done(self.end, stream);
            }
            (_, Answer::Refused { status, .. }) => self.count(match status as u32 {
                1..=2 => "refused 1 to 2",
                3 => "refused 3",
                4 => "refused 4",
                5 => "refused 5",
                6 => "refused 6",
                _ => "refused 7 or 8",
            }),
            (asked, answer) => panic!("{asked:?} is answered with {answer:?}"),
        }
    }

    /// Takes one event from the card, if the vault has room. `damaged`: the copy is.
    pub(crate) fn take_from_card(&mut self, damaged: bool, defect: Option<Defect>) -> Option<Event> {
        let held: u64 = self.vault.values().map(|length| u64::from(*length)).sum();
        let event = self.card.next_event(VAULT_BYTES.saturating_sub(held))?;
        self.say(|| format!("card: {event:?}{}", if damaged { ", damaged" } else { "" }));
        Some(match event {
            CardEvent::ReplayEnd => Event::ReplayEnd,
            CardEvent::Session(session) => Event::Session { session, previous_blocks: 0 },
            CardEvent::Block { name, replayed } => {
                if self.vault.contains_key(&name) {
                    return Some(Event::Tick);
                }
                if damaged {
                    self.card.lost.insert(name, "damaged");
                    Event::BlockLost { name }
                } else {
                    let length = length_of(name);
                    self.vault.insert(name, length);
                    if defect == Some(Defect::AcknowledgesOnReading) {
                        self.card.acknowledge(name, name);
                    }
                    Event::BlockHeld { name, length, replayed }
                }
            }
        })
    }

    fn distort(&self, mut message: Message, defect: Defect) -> Message {
        if let Message::Report(report) = &mut message {
            match defect {
                Defect::VotesForBlocksItLacks => {
                    let session = report.complete.session;
                    let last = report.complete.sequence + 4;
                    report.have = vec![Range { session, first: 0, last }];
                }
                Defect::DoesNotWaitForTheFollower => {
                    let durable = self.ledger.durable();
                    if report.epoch == durable.epoch {
                        report.applied = durable.last;
                        report.hash = durable.hash;
                    }
                }
                _ => {}
            }
        }
        message
    }
}

pub(crate) fn kms(end: usize) -> String {
    ["kms://a", "kms://b"][end].to_owned()
}

fn settings(end: usize, card: &Card, boot_id: u128) -> Settings {
    let facts = CardFacts {
        serial: 100 + end as u64,
        peer_serial: 101 - end as u64,
        cell: card.cell,
        newest: card.newest,
        retention: Capacity { bytes: 10_000, blocks: RETAINED_MOST as u64 },
    };
    let role = if end == 0 { Role::Leader } else { Role::Follower };
    Settings {
        vault_bytes: VAULT_BYTES,
        default_chunk_size: 3,
        default_timeout_ms: 300,
        half_open_expiry_ms: 5_000,
        most_streams: 12,
        window_bytes: 24,
        window_chunks: 5,
        most_entries_in_flight: 8,
        keep_alive_ms: 50,
        resend_ms: 40,
        progress_interval_ms: 30,
        ..Settings::new(format!("end{end}"), role, facts, boot_id, vec![kms(end)])
    }
}

//! One end: a daemon without its I/O. The core, a ledger, a vault, a pusher for each stream, and the engine's way with them:
//! events are handled, their writes are committed together, the card's cell is raised, and only then is anything done.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use qkd_contract::state::LinkState;
use qkd_daemon::agreement::{
    Action, BlockName, Capacity, CardFacts, Core, Decision, Durable, Event, Extent, LossCause, Message, Now,
    Output, Record, Role, Settings,
};
use qkd_daemon::interface::{KeyStreamId, Status};

use super::card::{Card, CardEvent, RETAINED_MOST, length_of};
use super::checker::{Checker, Verdict, broken};
use super::disk::Disk;
use super::mutants::Mutant;
use super::push::{Mood, Pusher};
use super::trace::Trace;
use super::zeroize::Zeroizing;

pub(crate) const VAULT_BYTES: u64 = 320;
/// KMSs at each end.
pub(crate) const KMS_EACH: usize = 2;

/// Of every stream.
const TIMEOUT_MS: u64 = 300;

/// How far a batch gets before the power fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PowerFails {
    Never,
    BeforeTheFlush,
    BeforeTheCell,
    BeforeTheActions,
    AfterActions(usize),
}

/// A call that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Open,
    /// By this end's KMS of this number, which the stream is not for.
    WrongOpen(usize),
    GetKey(KeyStreamId),
    Close(KeyStreamId),
    /// get-key or close by a KMS that the stream is not for.
    Stranger(KeyStreamId),
}

pub(crate) struct Node {
    pub(crate) end: usize,
    pub(crate) core: Core,
    pub(crate) disk: Disk,
    pub(crate) backup: Option<Durable>,
    pub(crate) card: Card,
    pub(crate) vault: BTreeMap<BlockName, u32>,
    /// Octets given to push from blocks in the vault: each may be taken once.
    pub(crate) taken: BTreeSet<(BlockName, u32)>,
    pub(crate) pushers: BTreeMap<KeyStreamId, Pusher>,
    pub(crate) moods: [Mood; KMS_EACH],
    /// What push tells the core, on its way.
    pub(crate) news: VecDeque<Event>,
    pub(crate) asked: BTreeMap<u64, Asked>,
    /// What the core wants; its writes are not committed.
    pub(crate) out: Output,
    /// What may be done: the writes before are durable, and the cell shows it.
    pub(crate) due: VecDeque<Action>,
    pub(crate) outbox: Vec<Message>,
    /// Acknowledgements that the card has not taken yet.
    pub(crate) acknowledgements: VecDeque<(BlockName, BlockName)>,
    pub(crate) hangs_up: bool,
    /// An order to destroy every key is being carried out.
    pub(crate) zeroizing: Option<Zeroizing>,
    /// The daemon does not run before this time.
    pub(crate) down_until: Option<u64>,
    pub(crate) boot_id: u128,
    pub(crate) boot_offset: u64,
    pub(crate) wall_offset: i64,
    pub(crate) time: u64,
    /// When the core last heard the time.
    pub(crate) heard: u64,
    pub(crate) opened: Vec<KeyStreamId>,
    /// Streams whose KMS has been told of loss since it last took a chunk.
    pub(crate) told: BTreeSet<KeyStreamId>,
    /// When something was last granted to a stream.
    fed: BTreeMap<KeyStreamId, u64>,
    /// Events that cores have handled.
    pub(crate) events: u64,
    pub(crate) counts: BTreeMap<&'static str, u64>,
    pub(crate) mutant: Option<Mutant>,
    pub(crate) commits: u64,
    pub(crate) restarted: bool,
    /// Key has come to the end of its time to live in the last batch.
    pub(crate) expired: bool,
    pub(crate) trace: Trace,
}

impl Node {
    pub(crate) fn new(end: usize, mutant: Option<Mutant>, trace: Trace) -> Self {
        let mut node = Self {
            end,
            core: Core::new(settings(end, &Card::default(), 1), Durable::default()),
            disk: Disk::default(),
            backup: None,
            card: Card::default(),
            vault: BTreeMap::new(),
            taken: BTreeSet::new(),
            pushers: BTreeMap::new(),
            moods: [Mood::Well; KMS_EACH],
            news: VecDeque::new(),
            asked: BTreeMap::new(),
            out: Output::default(),
            due: VecDeque::new(),
            outbox: Vec::new(),
            acknowledgements: VecDeque::new(),
            hangs_up: false,
            zeroizing: None,
            down_until: None,
            boot_id: 1,
            boot_offset: 0,
            wall_offset: 0,
            time: 0,
            heard: 0,
            opened: Vec::new(),
            told: BTreeSet::new(),
            fed: BTreeMap::new(),
            events: 0,
            counts: BTreeMap::new(),
            mutant,
            commits: 0,
            restarted: false,
            expired: false,
            trace,
        };
        node.card.start();
        node
    }

    pub(crate) fn say(&self, text: impl FnOnce() -> String) {
        self.trace.say(|| format!("{}: {}", ["leader", "follower"][self.end], text()));
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_insert(0) += 1;
    }

    pub(crate) fn wall(&self) -> u64 {
        (1_700_000_000_000 + self.time).saturating_add_signed(self.wall_offset)
    }

    pub(crate) fn now(&self) -> Now {
        Now { boot_ms: self.time - self.boot_offset, wall_ms: self.wall() }
    }

    /// The process ends, and with it everything that it kept in memory.
    pub(crate) fn die(&mut self, until: u64) {
        self.say(|| format!("DIES, down until {until}"));
        self.vault.clear();
        self.taken.clear();
        self.pushers.clear();
        self.news.clear();
        self.asked.clear();
        self.out = Output::default();
        self.due.clear();
        self.outbox.clear();
        self.acknowledgements.clear();
        self.told.clear();
        self.hangs_up = false;
        self.zeroizing = None;
        self.disk.lose_unflushed();
        self.down_until = Some(until);
    }

    /// A new process, with whatever the ledger holds. Its first batch is left open.
    pub(crate) fn start(&mut self, checker: &mut Checker) -> Verdict {
        self.say(|| "STARTS".into());
        self.down_until = None;
        self.restarted = true;
        self.card.start();
        let mut settings = settings(self.end, &self.card, self.boot_id);
        self.distort_facts(&mut settings.card);
        checker.ages(self.end, self.time, self.boot_id, self.wall());
        checker.books[self.end].agrees_with(self.end, self.disk.durable())?;
        let mut durable = self.disk.durable().clone();
        self.distort_ledger(&mut durable);
        self.core = Core::new(settings, durable);
        self.feed(Event::Start)?;
        self.feed(Event::Link { state: LinkState::Distilling, secret_key_rate_bps: 1_000_000 })
    }

    /// The core handles an event. What it wants gathers in a batch.
    pub(crate) fn feed(&mut self, event: Event) -> Verdict {
        self.say(|| format!("<- {event:?}"));
        self.events += 1;
        let event = match event {
            Event::PeerMessage(message) if self.mutant.is_some() => Event::PeerMessage(self.distort(message)),
            event => event,
        };
        if let Event::Accepted { stream, up_to } = &event
            && self.core.streams().any(|s| s.stream == *stream && s.position < *up_to)
        {
            self.told.remove(stream);
        }
        self.heard = self.time;
        let now = self.now();
        let (writes, actions) = (self.out.writes.len(), self.out.actions.len());
        self.core.handle(now, event, &mut self.out);
        self.judge_notices(writes, actions)
    }

    /// What is lost without the KMS's own doing is told to it at once, and once for each stretch without acceptance. The
    /// notice that a stream has run dry has the same status, and comes only with nothing granted for its timeout.
    fn judge_notices(&mut self, writes: usize, actions: usize) -> Verdict {
        if self.is(Mutant::LossIsNotTold) {
            self.out.actions.retain(|action| !matches!(action, Action::Notice { .. }));
        }
        let written = self.out.writes[writes..].iter().filter(|w| matches!(w, Record::Lost { .. })).count();
        let said = self.out.actions.iter().skip(actions).filter(|a| matches!(a, Action::Lost { .. })).count();
        if written != said {
            return broken("notice", format!("end {} counts {written} losses and says {said}", self.end));
        }
        let mut lost = None;
        for action in self.out.actions.iter().skip(actions) {
            match action {
                Action::Lost { stream, cause, .. } => {
                    let told = matches!(cause, LossCause::BlockLost | LossCause::Expired | LossCause::Epoch);
                    lost = told.then_some(*stream);
                }
                Action::Say { .. } | Action::Discard { .. } => {}
                Action::Notice { stream, status: Status::InsufficientKey, .. } if lost == Some(*stream) => {
                    lost = None;
                    let fed = self.fed.get(stream).copied().unwrap_or(0);
                    if !self.told.insert(*stream) && self.time < fed + TIMEOUT_MS {
                        return broken(
                            "notice",
                            format!("end {} tells twice of one loss of {stream}", self.end),
                        );
                    }
                }
                _ => self.was_told(lost.take())?,
            }
        }
        self.was_told(lost)?;
        for record in &self.out.writes[writes..] {
            if let Record::Entry { entry, .. } = record
                && let Decision::Grant(grant) = &entry.decision
            {
                self.fed.insert(grant.stream, self.time);
            }
        }
        Ok(())
    }

    fn was_told(&self, lost: Option<KeyStreamId>) -> Verdict {
        match lost {
            Some(stream) if !self.told.contains(&stream) => {
                broken("notice", format!("end {} does not tell its KMS of a loss of {stream}", self.end))
            }
            _ => Ok(()),
        }
    }

    /// The batch becomes durable, the cell shows it, and what it wants may be done.
    pub(crate) fn commit(&mut self, fails: PowerFails, checker: &mut Checker) -> Verdict {
        let out = std::mem::take(&mut self.out);
        if fails == PowerFails::BeforeTheFlush {
            if self.is(Mutant::SendsBeforeItWrites) {
                self.due.extend(out.actions);
                return self.act(usize::MAX, checker);
            }
            return Ok(());
        }
        if !out.writes.is_empty() {
            let writes: Vec<Record> = match self.mutant {
                Some(_) => out.writes.into_iter().filter(|record| self.keeps(record)).collect(),
                None => out.writes,
            };
            for record in &writes {
                self.say(|| format!("writes {record:?}"));
                self.expired |= matches!(record, Record::Lost { cause: LossCause::Expired, .. });
                if let Record::Wanted { stream } = record
                    && !self.asked.values().any(|asked| *asked == Asked::GetKey(*stream))
                {
                    return broken(
                        "I5",
                        format!("end {} takes {stream} for wanted without a get-key", self.end),
                    );
                }
                checker.writes(self.end, self.time, self.wall(), record)?;
            }
            let flush = self.flush();
            let number = self.disk.commit(&writes, flush);
            if fails == PowerFails::BeforeTheCell {
                return Ok(());
            }
            self.card.cell = self.card.cell.max(number);
        }
        if fails != PowerFails::BeforeTheActions {
            self.due.extend(out.actions);
        }
        Ok(())
    }

    /// Takes one event from the card, if the vault has room. `damaged`: the copy is.
    pub(crate) fn take_from_card(&mut self, damaged: bool, checker: &mut Checker) -> Option<Event> {
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
                if self.zeroizing.is_some() {
                    // It was handed over before the card took the order.
                    Event::BlockLost { name }
                } else if damaged {
                    checker.key.destroy(self.end, name, "damaged");
                    Event::BlockLost { name }
                } else {
                    let length = length_of(name);
                    self.vault.insert(name, length);
                    if self.is(Mutant::AcknowledgesOnReading) {
                        self.card.acknowledge(name, name);
                    }
                    Event::BlockHeld { name, length, replayed }
                }
            }
        })
    }

    /// Takes the octets of `extents` out of the vault, each once.
    pub(crate) fn take_from_vault(&mut self, extents: &[Extent]) -> Verdict {
        for extent in extents {
            let Some(length) = self.vault.get(&extent.block) else {
                return broken("vault", format!("{} is delivered but not in the vault", extent.block));
            };
            let end = extent.offset + extent.length;
            if end > *length && self.mutant.is_none() {
                return broken("vault", format!("{extent:?} is beyond its block of {length}"));
            }
            for at in extent.offset..end {
                if !self.taken.insert((extent.block, at)) && self.mutant.is_none() {
                    return broken("vault", format!("octet {at} of {} is taken twice", extent.block));
                }
            }
        }
        Ok(())
    }
}

pub(crate) fn kms(end: usize, which: usize) -> String {
    format!("kms://{}{which}", ["a", "b"][end])
}

/// Which of an end's KMSs `uri` names.
pub(crate) fn kms_number(uri: &str) -> usize {
    usize::from(uri.ends_with('1'))
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
    let local = (0..KMS_EACH).map(|which| kms(end, which)).collect();
    Settings {
        vault_bytes: VAULT_BYTES,
        default_chunk_size: 3,
        default_timeout_ms: TIMEOUT_MS as u32,
        half_open_expiry_ms: 5_000,
        most_streams: 12,
        window_bytes: 24,
        window_chunks: 5,
        most_entries_in_flight: 8,
        keep_alive_ms: 50,
        resend_ms: 40,
        progress_interval_ms: 30,
        ..Settings::new(format!("end{end}"), role, facts, boot_id, local)
    }
}

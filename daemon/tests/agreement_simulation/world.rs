//! Two ends, the QKD link and the peer link between them, and everything that may go wrong, in virtual time.

use std::collections::{BTreeMap, BTreeSet};

use qkd_daemon::agreement::{BlockName, Event, Message};
use qkd_daemon::interface::KeyStreamId;

use super::card::Distilled;
use super::checker::{Checker, Verdict};
use super::defects::Defect;
use super::dice::Dice;
use super::node::{Node, PowerFails};
use super::trouble::Fault;

pub(crate) struct World {
    pub(crate) dice: Dice,
    pub(crate) time: u64,
    pub(crate) nodes: [Node; 2],
    pub(crate) checker: Checker,
    pub(crate) connected: bool,
    /// Messages on their way to each end.
    wires: [Vec<Message>; 2],
    session: u64,
    sequence: u64,
    pub(crate) faults: BTreeSet<Fault>,
    pub(crate) struck: BTreeMap<Fault, u64>,
    pub(crate) defect: Option<Defect>,
    pub(crate) calls: u64,
    pub(crate) streams: u128,
    /// A stream whose KMS at one end takes nothing.
    pub(crate) stuck: Option<(usize, KeyStreamId)>,
    pub(crate) healed: bool,
    /// Which ends have lost their ledger, or had an old one, at some time.
    pub(crate) forgetful: [bool; 2],
    /// Messages go over the wire as they would.
    as_json: bool,
}

impl World {
    pub(crate) fn new(seed: u64, defect: Option<Defect>, traced: bool) -> Self {
        let mut dice = Dice::new(seed);
        let mut faults: BTreeSet<Fault> = Fault::ALL.into_iter().filter(|_| dice.hits(550)).collect();
        for rare in [Fault::LedgerLost, Fault::LedgerRolledBack] {
            if dice.hits(500) {
                faults.remove(&rare);
            }
        }
        let mut nodes = [Node::new(0), Node::new(1)];
        if traced {
            for node in &mut nodes {
                node.trace = Some(Vec::new());
            }
        }
        Self {
            dice,
            time: 1_000_000,
            nodes,
            checker: Checker::default(),
            connected: false,
            wires: [Vec::new(), Vec::new()],
            session: 0,
            sequence: 0,
            faults,
            struck: BTreeMap::new(),
            defect,
            calls: 0,
            streams: 0,
            stuck: None,
            healed: false,
            forgetful: [false; 2],
            as_json: seed.is_multiple_of(8),
        }
    }

    pub(crate) fn begin(&mut self) -> Verdict {
        for end in 0..2 {
            self.nodes[end].restart(self.time, &mut self.checker, self.defect)?;
        }
        self.new_session();
        self.connect()
    }

    pub(crate) fn strikes(&mut self, fault: Fault, per_mille: u64) -> bool {
        let strikes = !self.healed && self.faults.contains(&fault) && self.dice.hits(per_mille);
        if strikes {
            self.struck(fault);
        }
        strikes
    }

    fn struck(&mut self, fault: Fault) {
        *self.struck.entry(fault).or_insert(0) += 1;
        if let Some(trace) = &mut self.nodes[0].trace {
            trace.push(format!("---- {fault:?} at {}", self.time));
        }
    }

    /// One event at one end; the power may fail in the middle of what follows from it.
    pub(crate) fn handle(&mut self, end: usize, event: Event) -> Verdict {
        let mut fails = PowerFails::Never;
        if self.strikes(Fault::CrashInABatch, 6) {
            fails = match self.dice.below(3) {
                0 => PowerFails::BeforeTheCommit,
                1 => PowerFails::AfterTheCommit,
                _ => PowerFails::AfterActions(self.dice.index(4)),
            };
        }
        if let Some(trace) = &mut self.nodes[end].trace {
            trace.push(format!("end {end} at {}: {event:?}", self.time));
        }
        self.nodes[end].handle(self.time, event, fails, &mut self.checker, self.defect)?;
        if fails != PowerFails::Never {
            self.crash(end)?;
        }
        self.collect(end)
    }

    fn collect(&mut self, end: usize) -> Verdict {
        let messages = std::mem::take(&mut self.nodes[end].outbox);
        if self.connected {
            for message in messages {
                // Reading and writing JSON is the greater part of a schedule's time: some schedules do it.
                let message = if self.as_json {
                    let frame = message.encode().expect("no message is too long");
                    Message::decode(&frame).expect("what one end writes the other can read")
                } else {
                    message
                };
                self.wires[1 - end].push(message);
            }
        }
        if std::mem::take(&mut self.nodes[end].hangs_up) {
            self.cut()?;
        }
        Ok(())
    }

    pub(crate) fn connect(&mut self) -> Verdict {
        if self.connected {
            return Ok(());
        }
        self.connected = true;
        for end in 0..2 {
            if self.connected {
                self.handle(end, Event::PeerConnected)?;
            }
        }
        Ok(())
    }

    pub(crate) fn cut(&mut self) -> Verdict {
        if !self.connected {
            return Ok(());
        }
        self.connected = false;
        self.wires = [Vec::new(), Vec::new()];
        for end in 0..2 {
            self.handle(end, Event::PeerDisconnected)?;
        }
        Ok(())
    }

    pub(crate) fn crash(&mut self, end: usize) -> Verdict {
        let connected = std::mem::replace(&mut self.connected, false);
        self.wires = [Vec::new(), Vec::new()];
        if self.stuck.is_some_and(|(e, _)| e == end) && self.dice.hits(300) {
            self.stuck = None;
        }
        self.nodes[end].restart(self.time, &mut self.checker, self.defect)?;
        self.collect(end)?;
        if connected {
            self.handle(1 - end, Event::PeerDisconnected)?;
        }
        Ok(())
    }

    pub(crate) fn new_session(&mut self) {
        self.session += 1;
        self.sequence = 0;
        for node in &mut self.nodes {
            node.card.incoming.push_back(Distilled::Session(self.session));
        }
    }

    pub(crate) fn distil(&mut self) {
        let name = BlockName::new(self.session, self.sequence);
        self.sequence += 1;
        for node in &mut self.nodes {
            node.card.incoming.push_back(Distilled::Block(name));
        }
    }

    pub(crate) fn arrive(&mut self, end: usize) {
        let loses = self.strikes(Fault::BlockLost, 60);
        let lost = self.nodes[end].card.arrive(loses);
        if lost == Some("overflow") {
            self.struck(Fault::Overflow);
        }
    }

    pub(crate) fn read_card(&mut self, end: usize) -> Result<bool, super::checker::Violation> {
        let damaged = self.strikes(Fault::BlockDamaged, 40);
        match self.nodes[end].take_from_card(damaged, self.defect) {
            Some(event) => self.handle(end, event).map(|()| true),
            None => Ok(false),
        }
    }

    /// The pusher of one stream does something.
    pub(crate) fn push(&mut self, end: usize, stream: KeyStreamId) -> Verdict {
        let stuck = self.stuck == Some((end, stream));
        let outcome = self.dice.below(1_000);
        let healed = self.healed;
        let lossy = !healed && self.faults.contains(&Fault::AnswerLost);
        let node = &mut self.nodes[end];
        let Some(pusher) = node.pushers.get_mut(&stream) else { return Ok(()) };
        if !pusher.orders.is_empty() && (healed || outcome < 600) {
            if let Some(event) = pusher.obey(stream) {
                node.news.push_back(event);
            }
            return Ok(());
        }
        if let Some(chunk) = pusher.sends() {
            let (position, octets) = (chunk.position, chunk.octets.clone());
            node.say(|| format!("sends {stream} {position}: {octets:?}"));
            self.checker.sends(end, stream, position, &octets)?;
        }
        let node = &mut self.nodes[end];
        let Some(pusher) = node.pushers.get_mut(&stream) else { return Ok(()) };
        if stuck {
            if outcome < 300 && !pusher.suspended && !pusher.stopped {
                let event = pusher.refused(stream);
                node.news.push_back(event);
            }
        } else if healed || outcome < 800 {
            if let Some(event) = pusher.accepted(stream) {
                node.news.push_back(event);
            }
        } else if outcome < 850 && lossy && !pusher.suspended && !pusher.stopped {
            let event = pusher.refused(stream);
            node.news.push_back(event);
            self.struck(Fault::AnswerLost);
        }
        Ok(())
    }

    /// The core hears the oldest news of push.
    pub(crate) fn hear_push(&mut self, end: usize) -> Verdict {
        match self.nodes[end].news.pop_front() {
            Some(event) => self.handle(end, event),
            None => Ok(()),
        }
    }

    /// A message arrives at `end`, or does not.
    pub(crate) fn carry(&mut self, end: usize) -> Verdict {
        if self.wires[end].is_empty() {
            return Ok(());
        }
        let mut at = 0;
        if self.wires[end].len() > 1 && self.strikes(Fault::MessagesReordered, 300) {
            at = self.dice.index(self.wires[end].len());
        }
        if self.strikes(Fault::MessageLost, 120) {
            self.wires[end].remove(at);
            return Ok(());
        }
        let message = if self.strikes(Fault::MessageTwice, 120) {
            self.wires[end][at].clone()
        } else {
            self.wires[end].remove(at)
        };
        self.handle(end, Event::PeerMessage(message))
    }

    pub(crate) fn tick(&mut self, end: usize) -> Verdict {
        let node = &self.nodes[end];
        let now = node.now(self.time).boot_ms;
        match node.core.deadline() {
            Some(due) if due <= now => self.handle(end, Event::Tick),
            _ => Ok(()),
        }
    }

    pub(crate) fn step(&mut self) -> Verdict {
        let end = self.dice.index(2);
        self.time += self.dice.below(8);
        for end in 0..2 {
            if self.dice.hits(700) {
                self.tick(end)?;
            }
        }
        match self.dice.below(1_000) {
            0..100 => self.distil(),
            100..220 => self.arrive(end),
            220..340 => {
                self.read_card(end)?;
            }
            340..560 => {
                for _ in 0..2 {
                    self.carry(end)?;
                }
            }
            560..780 => {
                let streams: Vec<KeyStreamId> = self.nodes[end].pushers.keys().copied().collect();
                if !streams.is_empty() {
                    let stream = streams[self.dice.index(streams.len())];
                    self.push(end, stream)?;
                }
            }
            780..880 => self.hear_push(end)?,
            880..910 => self.some_open()?,
            910..950 => self.some_get_key()?,
            950..960 => self.connect()?,
            _ => self.trouble(end)?,
        }
        Ok(())
    }
}

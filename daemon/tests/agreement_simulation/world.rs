//! Two ends, the QKD link and the peer link between them, in virtual time.

use std::collections::BTreeSet;

use qkd_daemon::agreement::{Action, BlockName, Event};
use qkd_daemon::interface::KeyStreamId;

use super::card::Distilled;
use super::checker::{Checker, Verdict, Violation};
use super::dice::Dice;
use super::faults::{Fault, Matrix};
use super::mutants::Mutant;
use super::node::{Node, PowerFails};
use super::trace::Trace;
use super::wire::Wire;

pub(crate) struct World {
    pub(crate) dice: Dice,
    pub(crate) time: u64,
    pub(crate) nodes: [Node; 2],
    pub(crate) checker: Checker,
    /// Messages sent now arrive.
    pub(crate) wire_up: bool,
    pub(crate) wires: [Wire; 2],
    /// When an end finds out that the connection is gone.
    pub(crate) notices_at: [Option<u64>; 2],
    pub(crate) late_until: [u64; 2],
    session: u64,
    sequence: u64,
    pub(crate) faults: BTreeSet<Fault>,
    pub(crate) matrix: Matrix,
    pub(crate) calls: u64,
    pub(crate) streams: u128,
    /// A stream whose KMS at one end takes nothing, ever.
    pub(crate) stuck: Option<(usize, KeyStreamId)>,
    pub(crate) healed: bool,
    /// Which ends have lost their ledger, or had an old one, at some time.
    pub(crate) forgetful: [bool; 2],
    /// Messages go over the wire as they would.
    pub(crate) as_json: bool,
    /// Something of an earlier connection was heard on this one.
    pub(crate) haunted: bool,
    /// How long after the last fault delivery went on everywhere, ms.
    pub(crate) recovered_ms: u64,
    /// The link distils a block in every round.
    pub(crate) steady: bool,
    pub(crate) trace: Trace,
}

impl World {
    pub(crate) fn new(seed: u64, mutant: Option<Mutant>, traced: bool) -> Self {
        let mut dice = Dice::new(seed);
        let mut faults: BTreeSet<Fault> = Fault::ALL.iter().copied().filter(|_| dice.hits(550)).collect();
        for rare in [
            Fault::LedgerLost,
            Fault::LedgerRolledBack,
            Fault::BothLedgers,
            Fault::MessageOfBefore,
            Fault::Zeroize,
        ] {
            if dice.hits(500) {
                faults.remove(&rare);
            }
        }
        let trace = Trace::new(traced);
        let mut nodes = [Node::new(0, mutant, trace.clone()), Node::new(1, mutant, trace.clone())];
        if dice.hits(200) {
            for node in &mut nodes {
                node.disk.keep_before();
            }
        }
        let mut world = Self {
            dice,
            time: 0,
            nodes,
            checker: Checker::default(),
            wire_up: false,
            wires: [Wire::default(), Wire::default()],
            notices_at: [None; 2],
            late_until: [0; 2],
            session: 0,
            sequence: 0,
            faults,
            matrix: Matrix::default(),
            calls: 0,
            streams: 0,
            stuck: None,
            healed: false,
            forgetful: [false; 2],
            as_json: seed.is_multiple_of(8),
            haunted: false,
            recovered_ms: 0,
            steady: false,
            trace,
        };
        world.set_time(1_000_000);
        world.checker.close_is_not_durable = mutant == Some(Mutant::CloseIsNotDurable);
        world
    }

    pub(crate) fn set_time(&mut self, time: u64) {
        self.time = time;
        self.trace.time_is(time);
        for node in &mut self.nodes {
            node.time = time;
        }
    }

    pub(crate) fn begin(&mut self) -> Verdict {
        self.new_session();
        for end in 0..2 {
            self.start(end)?;
        }
        self.connect()
    }

    pub(crate) fn strikes(&mut self, fault: Fault, end: usize, per_mille: u64) -> bool {
        let strikes = !self.healed && self.faults.contains(&fault) && self.dice.hits(per_mille);
        if strikes {
            self.struck(fault, end);
        }
        strikes
    }

    pub(crate) fn strikes_if_up(&mut self, fault: Fault, end: usize, per_mille: u64) -> bool {
        self.is_up(end) && self.strikes(fault, end, per_mille)
    }

    pub(crate) fn is_up(&self, end: usize) -> bool {
        self.nodes[end].down_until.is_none()
    }

    pub(crate) fn struck(&mut self, fault: Fault, end: usize) {
        self.trace.say(|| format!("---- {fault:?} strikes the {}", ["leader", "follower"][end]));
        let (here, there) = (self.states(end), self.states(1 - end));
        self.matrix.strikes(fault, here, there);
    }

    /// One event at one end. The batch that it is in may stay open for others.
    pub(crate) fn handle(&mut self, end: usize, event: Event) -> Verdict {
        if !self.is_up(end) {
            return Ok(());
        }
        self.nodes[end].feed(event)?;
        if !self.healed && self.dice.hits(120) {
            return Ok(());
        }
        self.settle(end)
    }

    /// Ends the batch of an end: commit, cell, actions. The power may fail anywhere in it.
    pub(crate) fn settle(&mut self, end: usize) -> Verdict {
        let (fails, down) = self.perhaps_fails(end);
        let node = &mut self.nodes[end];
        node.commit(fails, &mut self.checker)?;
        if std::mem::take(&mut node.expired) {
            self.struck(Fault::Expiry, end);
        }
        let node = &mut self.nodes[end];
        match fails {
            PowerFails::Never if !self.healed && self.dice.hits(80) => {
                // What was decided may be due and not carried out when the operator has every key destroyed.
                let delivers = node.due.iter().any(|action| matches!(action, Action::Deliver(_)));
                return if delivers && self.dice.hits(150) { self.zeroize(end) } else { Ok(()) };
            }
            PowerFails::Never => node.act(usize::MAX, &mut self.checker)?,
            PowerFails::AfterActions(most) => node.act(most, &mut self.checker)?,
            _ => {}
        }
        self.collect(end)?;
        if fails == PowerFails::Never { Ok(()) } else { self.crash(end, down) }
    }

    fn perhaps_fails(&mut self, end: usize) -> (PowerFails, u64) {
        let out = &self.nodes[end].out;
        let (writes, actions) = (out.writes.len(), out.actions.len());
        let kinds = [
            (Fault::CrashBeforeTheFlush, PowerFails::BeforeTheFlush, writes > 0),
            (Fault::CrashBeforeTheCell, PowerFails::BeforeTheCell, writes > 0),
            (Fault::CrashBeforeTheActions, PowerFails::BeforeTheActions, actions > 0),
            (Fault::CrashAmongTheActions, PowerFails::AfterActions(1), actions > 1),
            (Fault::DiskFull, PowerFails::BeforeTheFlush, writes > 0),
        ];
        for (fault, fails, may) in kinds {
            if may && self.strikes(fault, end, 4) {
                let fails = match fails {
                    PowerFails::AfterActions(_) => {
                        PowerFails::AfterActions(1 + self.dice.index(actions.min(8)))
                    }
                    other => other,
                };
                let down = self.dice_down() + if fault == Fault::DiskFull { 20 } else { 0 };
                return (fails, down);
            }
        }
        (PowerFails::Never, 0)
    }

    /// Does what is due at an end, where the engine has been slow.
    pub(crate) fn act(&mut self, end: usize) -> Verdict {
        self.nodes[end].act(usize::MAX, &mut self.checker)?;
        self.collect(end)
    }

    /// The daemon of `end` dies, and starts again after `down`.
    pub(crate) fn crash(&mut self, end: usize, down: u64) -> Verdict {
        // What it sent may still arrive; what was sent to it does not.
        self.wire_up = false;
        self.wires[end].ends();
        self.notices_at[end] = None;
        let noticed = if self.dice.hits(500) { 0 } else { self.dice.below(60) };
        self.notices_at[1 - end] = Some(self.time + noticed);
        if self.stuck.is_some_and(|(e, _)| e == end) && self.dice.hits(300) {
            self.stuck = None;
        }
        self.nodes[end].die(self.time + down);
        if down == 0 { self.start(end) } else { Ok(()) }
    }

    pub(crate) fn start(&mut self, end: usize) -> Verdict {
        if self.nodes[end].card.is_zeroized {
            self.reset_card(end);
        }
        self.nodes[end].start(&mut self.checker)?;
        self.settle(end)
    }

    pub(crate) fn new_session(&mut self) {
        self.session += 1;
        self.sequence = 0;
        self.checker.key.begin_session();
        for node in &mut self.nodes {
            node.card.incoming.push_back(Distilled::Session(self.session));
        }
    }

    pub(crate) fn next_block(&mut self) -> BlockName {
        let name = BlockName::new(self.session, self.sequence);
        self.sequence += 1;
        self.checker.key.distil(name);
        name
    }

    pub(crate) fn distil(&mut self) {
        let end = self.dice.index(2);
        if self.strikes(Fault::Gap, end, 60) {
            self.gap();
        }
        let name = self.next_block();
        for node in &mut self.nodes {
            node.card.incoming.push_back(Distilled::Block(name));
        }
    }

    pub(crate) fn arrive(&mut self, end: usize) {
        let loses = self.strikes(Fault::BlockLost, end, 60);
        if let Some((name, why)) = self.nodes[end].card.arrive(loses) {
            self.checker.key.destroy(end, name, why);
            if why == "overflow" {
                self.struck(Fault::Overflow, end);
            }
        }
    }

    pub(crate) fn read_card(&mut self, end: usize) -> Result<bool, Violation> {
        if !self.is_up(end) {
            return Ok(false);
        }
        let node = &mut self.nodes[end];
        let taken = if self.healed { usize::MAX } else { 3 };
        for (first, last) in node.acknowledgements.drain(..taken.min(node.acknowledgements.len())) {
            node.card.acknowledge(first, last);
        }
        let damaged = self.strikes(Fault::BlockDamaged, end, 40);
        match self.nodes[end].take_from_card(damaged, &mut self.checker) {
            Some(event) => self.handle(end, event).map(|()| true),
            None => Ok(false),
        }
    }

    /// The core hears the oldest news of push.
    pub(crate) fn hear_push(&mut self, end: usize) -> Verdict {
        match self.nodes[end].news.pop_front() {
            Some(event) => self.handle(end, event),
            None => Ok(()),
        }
    }

    pub(crate) fn tick(&mut self, end: usize) -> Verdict {
        let node = &self.nodes[end];
        match node.core.deadline() {
            Some(due) if due <= node.now().boot_ms => self.handle(end, Event::Tick),
            _ => Ok(()),
        }
    }

    /// What comes about by itself: daemons start again, and find out that they are alone; slow batches end.
    pub(crate) fn comes_about(&mut self) -> Verdict {
        for end in 0..2 {
            if self.nodes[end].down_until.is_some_and(|until| until <= self.time) {
                self.start(end)?;
            }
            if self.notices_at[end].is_some_and(|at| at <= self.time || self.healed) {
                self.notices_at[end] = None;
                self.wires[end].ends();
                self.handle(end, Event::PeerDisconnected)?;
            }
            self.zeroizing_goes_on(end)?;
            if !self.nodes[end].out.is_empty() && (self.healed || self.dice.hits(350)) {
                self.settle(end)?;
            }
            if !self.nodes[end].due.is_empty() && (self.healed || self.dice.hits(450)) {
                self.act(end)?;
            }
        }
        Ok(())
    }

    pub(crate) fn step(&mut self) -> Verdict {
        let end = self.dice.index(2);
        let later = self.time + self.dice.below(8);
        self.set_time(later);
        self.comes_about()?;
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
                let streams = self.nodes[end].pushers.len();
                if streams > 0 {
                    let which = self.dice.index(streams);
                    let stream = self.nodes[end].pushers.keys().nth(which).copied();
                    self.push(end, stream.expect("as many streams"))?;
                }
            }
            780..880 => self.hear_push(end)?,
            880..910 => self.some_open()?,
            910..945 => self.some_get_key()?,
            945..960 => self.connect()?,
            _ => self.trouble(end)?,
        }
        Ok(())
    }
}

impl World {
    /// Events that both cores have handled.
    pub(crate) fn events(&self) -> u64 {
        self.nodes.iter().map(|node| node.events).sum()
    }
}

//! The troubles that strike out of the blue.

use std::collections::BTreeSet;

use qkd_contract::state::LinkState;
use qkd_daemon::agreement::{BlockName, Durable, Event};
use qkd_daemon::interface::KeyStreamId;

use super::checker::Verdict;
use super::faults::Fault;
use super::node::KMS_EACH;
use super::push::Mood;
use super::world::World;

impl World {
    pub(crate) fn trouble(&mut self, end: usize) -> Verdict {
        match self.dice.below(18) {
            0 | 1 => self.close_at_any_moment(end)?,
            2 if self.strikes_if_up(Fault::Crash, end, 400) => {
                let down = self.dice_down();
                self.crash(end, down)?;
            }
            3 => self.reboots(end)?,
            4 if self.strikes(Fault::CardReset, end, 150) => {
                self.reset_card(end);
                self.handle(end, Event::CardReset)?;
            }
            5 if self.strikes(Fault::NewSession, end, 250) => self.new_session(),
            6 if self.wire_up && self.strikes_if_up(Fault::ConnectionCut, end, 400) => self.cut()?,
            7 if self.wire_up && self.strikes_if_up(Fault::Silence, end, 400) => self.falls_silent(end),
            8 | 9 => self.ledger_trouble(end)?,
            10 | 11 => self.kms_trouble(end),
            12 if self.strikes_if_up(Fault::LinkDown, end, 200) => {
                for state in [LinkState::Aligning, LinkState::Distilling] {
                    self.handle(end, Event::Link { state, secret_key_rate_bps: 1_000_000 })?;
                }
            }
            13 if self.faults.contains(&Fault::Expiry) => self.time_passes(400),
            14 if self.strikes_if_up(Fault::MessagesLate, end, 400) => {
                self.late_until[end] = self.time + 20 + self.dice.below(200);
            }
            15 if self.strikes_if_up(Fault::BlockTwice, end, 500) => {
                let which = self.dice.index(64);
                self.nodes[end].card.repeat(which);
            }
            16 => self.zeroize(end)?,
            17 => {
                if let Some(name) = self.nodes[end].card.newest {
                    self.handle(end, Event::Newest { name })?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// How long a daemon is down.
    pub(crate) fn dice_down(&mut self) -> u64 {
        match self.dice.below(10) {
            0..=4 => 0,
            5..=7 => self.dice.below(40),
            _ => self.dice.below(300),
        }
    }

    fn close_at_any_moment(&mut self, end: usize) -> Verdict {
        let live = self.live(end);
        if live.is_empty() || !self.strikes_if_up(Fault::Close, end, 250) {
            return Ok(());
        }
        let stream = live[self.dice.index(live.len())];
        self.close(end, stream)?;
        if self.dice.hits(300) && self.strikes_if_up(Fault::CloseTwice, end, 900) {
            self.close(end, stream)?;
        }
        Ok(())
    }

    fn reboots(&mut self, end: usize) -> Verdict {
        let which =
            [Fault::Reboot, Fault::ClockForward, Fault::ClockBack, Fault::PowerLoss][self.dice.index(4)];
        if !self.strikes_if_up(which, end, 300) {
            return Ok(());
        }
        match which {
            Fault::ClockForward => self.nodes[end].wall_offset += self.dice.below(3_000) as i64,
            Fault::ClockBack => self.nodes[end].wall_offset -= self.dice.below(3_000) as i64,
            Fault::PowerLoss => self.reset_card(end),
            _ => {}
        }
        let node = &mut self.nodes[end];
        node.boot_id += 1;
        node.boot_offset = self.time - 10;
        let down = self.dice_down();
        self.crash(end, down)?;
        self.time_passes(800);
        Ok(())
    }

    pub(crate) fn reset_card(&mut self, end: usize) {
        for (name, why) in self.nodes[end].card.reset() {
            self.checker.key.destroy(end, name, why);
        }
        self.new_session();
    }

    /// Time passes in which nothing comes about but what is due.
    fn time_passes(&mut self, most: u64) {
        let more = self.dice.below(most);
        self.set_time(self.time + more);
    }

    fn falls_silent(&mut self, end: usize) {
        self.drop_wire();
        for end in 0..2 {
            self.notices_at[end] = Some(self.time + self.dice.below(120));
        }
        self.notices_at[end] = Some(self.time + 100 + self.dice.below(200));
    }

    fn kms_trouble(&mut self, end: usize) {
        let which = self.dice.index(KMS_EACH);
        let (fault, mood) =
            if self.dice.hits(500) { (Fault::KmsDown, Mood::Down) } else { (Fault::KmsSlow, Mood::Slow) };
        if self.nodes[end].moods[which] != Mood::Well {
            if self.dice.hits(400) {
                self.nodes[end].moods[which] = Mood::Well;
            }
        } else if self.strikes_if_up(fault, end, 200) {
            self.nodes[end].moods[which] = mood;
        }
    }

    fn ledger_trouble(&mut self, end: usize) -> Verdict {
        let both = self.dice.hits(250);
        let fault = if both {
            Fault::BothLedgers
        } else if self.dice.hits(500) {
            Fault::LedgerLost
        } else {
            Fault::LedgerRolledBack
        };
        if self.nodes[end].backup.is_none() || self.dice.hits(100) {
            for node in &mut self.nodes {
                node.backup = Some(node.disk.durable().clone());
            }
            return Ok(());
        }
        if !self.strikes(fault, end, 250) {
            return Ok(());
        }
        for other in 0..2 {
            if both || other == end {
                let lost = if both { self.dice.hits(500) } else { fault == Fault::LedgerLost };
                self.ledger_is(other, lost)?;
            }
        }
        Ok(())
    }

    /// The ledger of `end` is lost, or an old copy takes its place.
    fn ledger_is(&mut self, end: usize, lost: bool) -> Verdict {
        if self.nodes[end].down_until.is_none() {
            self.crash(end, 0)?;
        }
        self.nodes[end].die(self.time);
        let node = &mut self.nodes[end];
        let fine = if self.dice.hits(500) { node.disk.before().cloned() } else { None };
        let old = if lost { Some(Durable::default()) } else { fine.or_else(|| node.backup.take()) };
        let Some(old) = old else { return Ok(()) };
        // A copy that the card has not seen to be old holds everything that was ever acted on.
        if !lost && old.write_number >= node.card.cell {
            return Ok(());
        }
        node.say(|| format!("LEDGER goes back to write {}", old.write_number));
        node.disk.restore(old);
        self.checker.epochs_may_begin = true;
        self.checker.books[end].forgetful = true;
        self.forgets(end)
    }

    /// IDs that only this end knew, and all once both ends have forgotten which were used, nobody can refuse, and the KMSs
    /// must not come with them again, nor wait for an answer to a call that does.
    fn forgets(&mut self, end: usize) -> Verdict {
        self.forgetful[end] = true;
        let known: BTreeSet<KeyStreamId> = self
            .nodes
            .iter()
            .map(|node| node.disk.durable())
            .flat_map(|durable| durable.streams.keys().chain(&durable.forbidden))
            .copied()
            .collect();
        for node in &mut self.nodes {
            node.opened.retain(|id| known.contains(id));
        }
        if self.forgetful != [true; 2] {
            return Ok(());
        }
        for node in &mut self.nodes {
            node.opened.clear();
        }
        if self.nodes[1 - end].down_until.is_none() {
            self.crash(1 - end, 0)?;
        }
        self.nodes[1 - end].die(self.time);
        Ok(())
    }

    /// A block that neither end gets.
    pub(crate) fn gap(&mut self) {
        let name: BlockName = self.next_block();
        for end in 0..2 {
            self.checker.key.destroy(end, name, "lost at both ends");
        }
    }
}

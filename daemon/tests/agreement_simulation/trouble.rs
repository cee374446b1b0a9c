//! The kinds of trouble, and those of them that strike out of the blue.

use qkd_contract::state::LinkState;
use qkd_daemon::agreement::Event;
use qkd_daemon::ledger::MemoryLedger;

use super::checker::Verdict;
use super::world::World;

/// A kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    MessageLost,
    MessageTwice,
    MessagesReordered,
    ConnectionCut,
    Crash,
    CrashInABatch,
    Reboot,
    CardReset,
    NewSession,
    BlockLost,
    BlockDamaged,
    Overflow,
    LedgerLost,
    LedgerRolledBack,
    KmsStuck,
    LinkDown,
    IdReused,
    IndexGiven,
    Close,
    Expiry,
    AnswerLost,
}

impl Fault {
    pub(crate) const ALL: [Self; 21] = [
        Self::MessageLost,
        Self::MessageTwice,
        Self::MessagesReordered,
        Self::ConnectionCut,
        Self::Crash,
        Self::CrashInABatch,
        Self::Reboot,
        Self::CardReset,
        Self::NewSession,
        Self::BlockLost,
        Self::BlockDamaged,
        Self::Overflow,
        Self::LedgerLost,
        Self::LedgerRolledBack,
        Self::KmsStuck,
        Self::LinkDown,
        Self::IdReused,
        Self::IndexGiven,
        Self::Close,
        Self::Expiry,
        Self::AnswerLost,
    ];
}

impl World {
    /// The ledger of `end` is lost or old. Once both ends have forgotten which IDs were used, nobody can refuse them, and
    /// the KMSs must not come with them again, nor wait for an answer to a call that does.
    fn forgets(&mut self, end: usize) -> Verdict {
        self.forgetful[end] = true;
        if self.forgetful != [true; 2] {
            return Ok(());
        }
        for node in &mut self.nodes {
            node.opened.clear();
        }
        self.crash(1 - end)
    }

    pub(crate) fn trouble(&mut self, end: usize) -> Verdict {
        match self.dice.below(11) {
            0 if self.strikes(Fault::Close, 500) => {
                let live = self.live(end);
                if !live.is_empty() {
                    let stream = live[self.dice.index(live.len())];
                    self.close(end, stream)?;
                }
            }
            1 if self.strikes(Fault::Crash, 500) => self.crash(end)?,
            2 if self.strikes(Fault::Reboot, 300) => {
                let node = &mut self.nodes[end];
                node.boot_id += 1;
                node.boot_offset = self.time - 10;
                self.time += self.dice.below(800);
                self.crash(end)?;
            }
            3 if self.strikes(Fault::CardReset, 200) => {
                self.nodes[end].card.reset();
                self.new_session();
                self.handle(end, Event::CardReset)?;
            }
            4 if self.strikes(Fault::NewSession, 250) => self.new_session(),
            5 if self.strikes(Fault::ConnectionCut, 500) => self.cut()?,
            6 if self.strikes(Fault::LedgerLost, 400) => {
                let both = self.dice.hits(400);
                for lost in 0..2 {
                    if both || lost == end {
                        self.forgets(lost)?;
                        self.nodes[lost].ledger = MemoryLedger::new();
                        self.crash(lost)?;
                    }
                }
            }
            7 => {
                let node = &mut self.nodes[end];
                if node.backup.is_none() {
                    node.backup = Some(MemoryLedger::holding(node.ledger.durable().clone()));
                } else if self.strikes(Fault::LedgerRolledBack, 300)
                    && let Some(backup) = self.nodes[end].backup.take()
                {
                    self.forgets(end)?;
                    self.nodes[end].ledger = backup;
                    self.crash(end)?;
                }
            }
            8 if self.stuck.is_none() => {
                let live = self.live(end);
                if !live.is_empty() && self.strikes(Fault::KmsStuck, 300) {
                    self.stuck = Some((end, live[self.dice.index(live.len())]));
                }
            }
            9 if self.strikes(Fault::LinkDown, 200) => {
                for state in [LinkState::Aligning, LinkState::Distilling] {
                    self.handle(end, Event::Link { state, secret_key_rate_bps: 1_000_000 })?;
                }
            }
            10 if self.faults.contains(&Fault::Expiry) => self.time += self.dice.below(400),
            _ => {}
        }
        Ok(())
    }
}

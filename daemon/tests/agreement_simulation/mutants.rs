//! Errors planted in the core, by changing what goes in and out of it, and in the engine's order. The checker must catch
//! each: a checker that finds nothing proves nothing.

use qkd_daemon::agreement::{CardFacts, Decision, Durable, Entry, Mark, Message, Range, Record};

use super::card::length_of;
use super::disk::Flush;
use super::node::Node;

/// A planted error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// Some commits are not flushed, and the card's cell is raised all the same.
    FlushIsDropped,
    /// Commits are not flushed and the cell is not read: nobody sees that the ledger is old.
    FlushIsDroppedUnseen,
    /// The engine acts first and commits then.
    SendsBeforeItWrites,
    /// After a restart a stream's first delivery has the index of the one before.
    IndexIsReused,
    /// A ledger that is read again has a mark of long ago.
    MarkIsNotRaised,
    /// A restored ledger passes for the present one.
    CellIsNotRead,
    /// A fresh ledger does not burn what the card had announced.
    NewestIsNotRead,
    /// The follower applies entries that have been altered on their way.
    HashIsNotChecked,
    /// The leader grants and delivers without the other KMS's get-key.
    ConsentIsNotAsked,
    /// A close is answered and not written.
    CloseIsNotDurable,
    /// Close is answered before push has stopped.
    AnswersCloseAtOnce,
    /// The engine acknowledges blocks when it has read them.
    AcknowledgesOnReading,
    /// What was sent counts as accepted.
    TakesSendingForAcceptance,
    /// Over a restart of the operating system key is young again.
    TtlStartsAnew,
    /// Chunks past their time to live are sent.
    DiscardIsIgnored,
    /// In the place of a lost chunk comes the next key.
    LossIsFilled,
    /// One end takes its chunks one octet further on.
    ShiftsExtents,
    /// The follower's report names blocks that it does not hold.
    VotesForBlocksItLacks,
    /// The leader takes entries for applied that are not.
    DoesNotWaitForTheFollower,
    /// Loss is not written down.
    LossIsNotCounted,
    /// The KMS is not told of loss.
    LossIsNotTold,
    /// Pushers keep what they hold when every key is to be destroyed.
    ZeroizeSparesPushers,
    /// What was decided before every key was destroyed is delivered.
    ZeroizeGivesWhatWasDue,
}

impl Mutant {
    pub(crate) const ALL: [Self; 23] = [
        Self::FlushIsDropped,
        Self::FlushIsDroppedUnseen,
        Self::SendsBeforeItWrites,
        Self::IndexIsReused,
        Self::MarkIsNotRaised,
        Self::CellIsNotRead,
        Self::NewestIsNotRead,
        Self::HashIsNotChecked,
        Self::ConsentIsNotAsked,
        Self::CloseIsNotDurable,
        Self::AnswersCloseAtOnce,
        Self::AcknowledgesOnReading,
        Self::TakesSendingForAcceptance,
        Self::TtlStartsAnew,
        Self::DiscardIsIgnored,
        Self::LossIsFilled,
        Self::ShiftsExtents,
        Self::VotesForBlocksItLacks,
        Self::DoesNotWaitForTheFollower,
        Self::LossIsNotCounted,
        Self::LossIsNotTold,
        Self::ZeroizeSparesPushers,
        Self::ZeroizeGivesWhatWasDue,
    ];
}

impl Node {
    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// How the next commit is flushed.
    pub(crate) fn flush(&mut self) -> Flush {
        self.commits += 1;
        let drops = self.is(Mutant::FlushIsDropped) || self.is(Mutant::FlushIsDroppedUnseen);
        if drops && !self.commits.is_multiple_of(4) { Flush::Dropped } else { Flush::Done }
    }

    pub(crate) fn distort_facts(&self, facts: &mut CardFacts) {
        match self.mutant {
            Some(Mutant::CellIsNotRead | Mutant::FlushIsDroppedUnseen) => {
                facts.cell = 0;
            }
            Some(Mutant::NewestIsNotRead) => facts.newest = None,
            _ => {}
        }
    }

    pub(crate) fn distort_ledger(&self, durable: &mut Durable) {
        if self.is(Mutant::MarkIsNotRaised) {
            durable.mark = Mark::ZERO;
        }
        if self.is(Mutant::TtlStartsAnew) {
            let now = self.now();
            for logged in durable.log.values_mut() {
                logged.stamp.boot_id = self.boot_id;
                logged.stamp.boot_ms = now.boot_ms;
            }
        }
    }

    pub(crate) fn keeps(&self, record: &Record) -> bool {
        match record {
            Record::Closed { .. } => !self.is(Mutant::CloseIsNotDurable),
            Record::Lost { .. } => !self.is(Mutant::LossIsNotCounted),
            _ => true,
        }
    }

    /// What the core hears in place of what was said.
    pub(crate) fn distort(&self, mut message: Message) -> Message {
        let durable = self.disk.durable();
        match (self.mutant, &mut message) {
            (Some(Mutant::VotesForBlocksItLacks), Message::Report(report)) => {
                let session = report.complete.session;
                let last = report.complete.sequence + 4;
                report.have = vec![Range { session, first: 0, last }];
            }
            (Some(Mutant::DoesNotWaitForTheFollower), Message::Report(report))
                if report.epoch == durable.epoch =>
            {
                report.applied = durable.last;
                report.hash = durable.hash;
            }
            (Some(Mutant::ConsentIsNotAsked), Message::Report(report)) => {
                for line in &mut report.streams {
                    line.wanted |= line.opened;
                }
            }
            (Some(Mutant::HashIsNotChecked), Message::Log(log)) if log.epoch == durable.epoch => {
                let (mut next, mut hash) = (durable.last + 1, durable.hash);
                for entry in &mut log.entries {
                    if entry.number == next {
                        if let Decision::Grant(grant) = &mut entry.decision
                            && let [extent] = &mut grant.extents[..]
                            && extent.offset + extent.length < length_of(extent.block)
                        {
                            extent.offset += 1;
                            let after = Mark { block: extent.block, offset: extent.offset + extent.length };
                            grant.mark = grant.mark.max(after);
                        }
                        *entry = Entry::chained(&hash, next, entry.decision.clone());
                        hash = entry.hash;
                        next += 1;
                    }
                }
            }
            _ => {}
        }
        message
    }
}

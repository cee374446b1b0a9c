//! The blocks that this end's card has announced: which are in the vault, which are owed to a stream, which are done with.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::event::{Action, Output};
use super::message::Range;
use super::names::{BlockName, Mark};
use super::ranges::BlockRanges;
use super::settings::Capacity;

/// Whether an extent can be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Its octets are in the vault.
    Here,
    /// The card may still deliver them.
    Awaited,
    /// They are lost at this end for good.
    Lost,
}

/// This end's blocks.
#[derive(Debug)]
pub(crate) struct Holdings {
    /// What the card has delivered and keeps until it is acknowledged: length in octets, or `None` where it was damaged.
    kept: BTreeMap<BlockName, Option<u32>>,
    /// In the vault and not wholly used up.
    have: BlockRanges,
    /// Unsettled grants by block.
    owed: BTreeMap<BlockName, u32>,
    /// Extents of those grants.
    owed_extents: u64,
    /// To be acknowledged.
    done: BlockRanges,
    /// Every block below was delivered or is lost.
    complete: BlockName,
    /// Everything that the card kept when it started has been delivered.
    replayed: bool,
    /// The newest block known to have been announced is below.
    announced: BlockName,
    mark: Mark,
    held: Capacity,
    pinned: Capacity,
    burnt_bytes: u64,
    /// Octets of the largest block so far.
    largest: u32,
}

const NOTHING: Capacity = Capacity { bytes: 0, blocks: 0 };

impl Holdings {
    pub(crate) fn new(mark: Mark, newest: Option<BlockName>) -> Self {
        let lowest = BlockName::new(0, 0);
        Self {
            kept: BTreeMap::new(),
            have: BlockRanges::default(),
            owed: BTreeMap::new(),
            owed_extents: 0,
            done: BlockRanges::default(),
            complete: lowest,
            replayed: false,
            announced: newest.map_or(lowest, BlockName::next),
            mark,
            held: NOTHING,
            pinned: NOTHING,
            burnt_bytes: 0,
            largest: 0,
        }
    }

    /// The card has announced `name`.
    pub(crate) fn announce(&mut self, name: BlockName) {
        self.announced = self.announced.max(name.next());
    }

    /// A mark above everything that the card is known to have announced.
    pub(crate) fn above_all(&self) -> Mark {
        self.mark.max(Mark::at(self.announced.max(self.complete)))
    }

    /// A block is in the vault. Returns whether it was news.
    pub(crate) fn hold(&mut self, name: BlockName, length: u32, out: &mut Output) -> bool {
        self.announce(name);
        self.complete = self.complete.max(name.next());
        self.largest = self.largest.max(length);
        if self.length(name).is_some() {
            return false;
        }
        let owed = self.owed.contains_key(&name);
        if name < self.mark.block && !owed {
            self.done.insert(name);
            out.actions.push(Action::Release { block: name });
            return true;
        }
        self.kept.insert(name, Some(length));
        add(&mut self.held, length);
        if owed {
            add(&mut self.pinned, length);
        }
        if name >= self.mark.block {
            self.have.insert(name);
        }
        true
    }

    /// A block came damaged.
    pub(crate) fn lose(&mut self, name: BlockName) {
        self.announce(name);
        self.complete = self.complete.max(name.next());
        if name < self.mark.block && !self.owed.contains_key(&name) {
            self.done.insert(name);
        } else {
            self.kept.entry(name).or_insert(None);
        }
    }

    /// All blocks of earlier sessions than `session` were delivered or are lost. Returns whether the number rose.
    pub(crate) fn session(&mut self, session: u64) -> bool {
        let begin = BlockName::new(session, 0);
        let rose = begin >= self.complete || session == self.complete.session;
        self.complete = self.complete.max(begin);
        rose
    }

    pub(crate) fn replay_begins(&mut self) {
        self.replayed = false;
    }

    pub(crate) fn replay_ends(&mut self) {
        self.replayed = true;
    }

    /// Octets of a block in the vault.
    pub(crate) fn length(&self, name: BlockName) -> Option<u32> {
        self.kept.get(&name).copied().flatten()
    }

    /// Whether `length` octets of `name` from `offset` on can be delivered.
    pub(crate) fn presence(&self, name: BlockName, end: u32) -> Presence {
        match self.kept.get(&name) {
            Some(Some(length)) if *length >= end => Presence::Here,
            Some(_) => Presence::Lost,
            None if self.replayed || name < self.complete => Presence::Lost,
            None => Presence::Awaited,
        }
    }

    /// The first block at or after `from` that is in the vault and not wholly used up, or, where there is none, the
    /// first that may still come.
    pub(crate) fn next_or_unknown(&self, from: BlockName) -> BlockName {
        self.have.next_from(from).unwrap_or_else(|| self.complete.max(from))
    }

    /// The same, only where it is in the vault.
    pub(crate) fn next_held(&self, from: BlockName) -> Option<(BlockName, u32)> {
        let name = self.have.next_from(from)?;
        Some((name, self.length(name)?))
    }

    /// Blocks in the vault at or above `from` and below `to`, counted up to about `enough`.
    pub(crate) fn count_between(&self, from: BlockName, to: BlockName, enough: u64) -> u64 {
        self.have.count_between(from, to, enough)
    }

    /// Ranges in the vault and not wholly used up, at most `most`, and the bound below which this says everything.
    pub(crate) fn report(&self, most: usize) -> (Vec<Range>, BlockName) {
        let mut ranges: Vec<Range> = self.have.iter().take(most.saturating_add(1)).collect();
        if ranges.len() <= most {
            return (ranges, self.complete);
        }
        let first_left_out = ranges.pop().map_or(self.complete, |r| BlockName::new(r.session, r.first));
        (ranges, self.complete.min(first_left_out))
    }

    /// A grant names `blocks`.
    pub(crate) fn owe(&mut self, blocks: impl Iterator<Item = BlockName>) {
        for name in blocks {
            let count = self.owed.entry(name).or_insert(0);
            *count = count.saturating_add(1);
            self.owed_extents = self.owed_extents.saturating_add(1);
            if *count == 1
                && let Some(Some(length)) = self.kept.get(&name)
            {
                add(&mut self.pinned, *length);
            }
        }
    }

    /// A grant that names `blocks` is settled, durably.
    pub(crate) fn settle(&mut self, blocks: impl Iterator<Item = BlockName>, out: &mut Output) {
        for name in blocks {
            let Some(count) = self.owed.get_mut(&name) else { continue };
            *count = count.saturating_sub(1);
            self.owed_extents = self.owed_extents.saturating_sub(1);
            if *count > 0 {
                continue;
            }
            self.owed.remove(&name);
            if let Some(Some(length)) = self.kept.get(&name) {
                subtract(&mut self.pinned, *length);
            }
            if name < self.mark.block {
                self.finish(name, out);
            }
        }
    }

    /// Nothing is owed any more: all streams have ended.
    pub(crate) fn forgive(&mut self, out: &mut Output) {
        let names: Vec<BlockName> = self.owed.keys().copied().collect();
        for name in names {
            self.owed.insert(name, 1);
            self.settle(std::iter::once(name), out);
        }
        self.owed_extents = 0;
    }

    /// Extents of grants that are not settled.
    pub(crate) fn owed_extents(&self) -> u64 {
        self.owed_extents
    }

    /// Every block below was delivered by this end's card or is lost.
    pub(crate) fn complete(&self) -> BlockName {
        self.complete
    }

    /// The mark has risen, durably. `granted` octets of that went to streams; the rest is burnt.
    pub(crate) fn raise(&mut self, mark: Mark, granted: u64, out: &mut Output) {
        let before = self.mark;
        if mark <= before {
            return;
        }
        self.mark = mark;
        self.have.remove_below(mark.block);
        let passed: Vec<(BlockName, Option<u32>)> = self
            .kept
            .range((Bound::Included(before.block), Bound::Excluded(mark.block.max(before.block))))
            .map(|(name, length)| (*name, *length))
            .collect();
        let mut gone: u64 = 0;
        for (name, length) in passed {
            let used = if name == before.block { before.offset } else { 0 };
            gone = gone.saturating_add(u64::from(length.unwrap_or(0).saturating_sub(used)));
            if !self.owed.contains_key(&name) {
                self.finish(name, out);
            }
        }
        if self.length(mark.block).is_some() {
            let used = if mark.block == before.block { before.offset } else { 0 };
            gone = gone.saturating_add(u64::from(mark.offset.saturating_sub(used)));
        }
        self.burnt_bytes = self.burnt_bytes.saturating_add(gone.saturating_sub(granted));
    }

    /// Sets a mark that may be lower: the pair of cards is another one.
    pub(crate) fn restart_at(&mut self, mark: Mark) {
        self.mark = mark;
    }

    /// Acknowledges what is done with.
    pub(crate) fn acknowledge(&mut self, out: &mut Output) {
        if self.done.is_empty() {
            return;
        }
        for range in std::mem::take(&mut self.done).iter() {
            out.actions.push(Action::Acknowledge {
                first: BlockName::new(range.session, range.first),
                last: BlockName::new(range.session, range.last),
            });
        }
    }

    pub(crate) fn held(&self) -> Capacity {
        self.held
    }

    pub(crate) fn pinned(&self) -> Capacity {
        self.pinned
    }

    pub(crate) fn largest(&self) -> u32 {
        self.largest
    }

    pub(crate) fn burnt_bytes(&self) -> u64 {
        self.burnt_bytes
    }

    fn finish(&mut self, name: BlockName, out: &mut Output) {
        match self.kept.remove(&name) {
            Some(Some(length)) => {
                subtract(&mut self.held, length);
                self.have.remove(name);
                out.actions.push(Action::Release { block: name });
                self.done.insert(name);
            }
            Some(None) => self.done.insert(name),
            None => {}
        }
    }
}

fn add(to: &mut Capacity, bytes: u32) {
    to.bytes = to.bytes.saturating_add(u64::from(bytes));
    to.blocks = to.blocks.saturating_add(1);
}

fn subtract(from: &mut Capacity, bytes: u32) {
    from.bytes = from.bytes.saturating_sub(u64::from(bytes));
    from.blocks = from.blocks.saturating_sub(1);
}

//! Sets of block names, kept as ranges of consecutive numbers: their cost is that of the gaps, not of the blocks.

use std::collections::BTreeMap;

use super::message::Range;
use super::names::BlockName;

/// A set of block names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BlockRanges {
    /// First name of a range to its last sequence number. Ranges neither overlap nor touch.
    ranges: BTreeMap<BlockName, u64>,
}

impl BlockRanges {
    /// Adds `name`, which must be usable.
    pub(crate) fn insert(&mut self, name: BlockName) {
        self.insert_range(Range { session: name.session, first: name.sequence, last: name.sequence });
    }

    /// Adds a range that is not empty and does not end at the last number.
    pub(crate) fn insert_range(&mut self, range: Range) {
        let Range { session, mut first, mut last } = range;
        let before = self.ranges.range(..=BlockName::new(session, first)).next_back();
        if let Some((&start, &end)) = before
            && start.session == session
            && end.saturating_add(1) >= first
        {
            first = start.sequence;
            last = last.max(end);
        }
        let swallowed: Vec<(BlockName, u64)> = self
            .ranges
            .range(BlockName::new(session, first)..=BlockName::new(session, last.saturating_add(1)))
            .map(|(start, end)| (*start, *end))
            .collect();
        for (start, end) in swallowed {
            last = last.max(end);
            self.ranges.remove(&start);
        }
        self.ranges.insert(BlockName::new(session, first), last);
    }

    /// Whether `name` is in the set.
    pub(crate) fn contains(&self, name: BlockName) -> bool {
        self.at_or_before(name)
            .is_some_and(|(start, last)| start.session == name.session && name.sequence <= last)
    }

    /// The smallest member that is not below `name`.
    pub(crate) fn next_from(&self, name: BlockName) -> Option<BlockName> {
        if self.contains(name) {
            return Some(name);
        }
        self.ranges.range(name..).next().map(|(start, _)| *start)
    }

    /// Removes `name`.
    pub(crate) fn remove(&mut self, name: BlockName) {
        let Some((start, last)) = self.at_or_before(name) else { return };
        if start.session != name.session || name.sequence > last {
            return;
        }
        self.ranges.remove(&start);
        if let Some(before) = name.sequence.checked_sub(1)
            && before >= start.sequence
        {
            self.ranges.insert(start, before);
        }
        if name.sequence < last {
            self.ranges.insert(name.next(), last);
        }
    }

    /// Removes every name below `bound`.
    pub(crate) fn remove_below(&mut self, bound: BlockName) {
        while let Some(entry) = self.ranges.first_entry() {
            let (start, last) = (*entry.key(), *entry.get());
            if start >= bound {
                return;
            }
            entry.remove();
            if start.session == bound.session && last >= bound.sequence {
                self.ranges.insert(bound, last);
                return;
            }
        }
    }

    /// How many members lie at or above `from` and below `to`, counted up to about `enough`.
    pub(crate) fn count_between(&self, from: BlockName, to: BlockName, enough: u64) -> u64 {
        let mut count: u64 = 0;
        let mut cursor = from;
        while count < enough {
            let Some(start) = self.next_from(cursor).filter(|start| *start < to) else { break };
            let Some((_, last)) = self.at_or_before(start) else { break };
            let end =
                if start.session == to.session { last.min(to.sequence.saturating_sub(1)) } else { last };
            count = count.saturating_add(end.saturating_sub(start.sequence).saturating_add(1));
            cursor = BlockName::new(start.session, last.saturating_add(1));
        }
        count
    }

    /// The ranges in rising order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Range> {
        self.ranges.iter().map(|(start, last)| Range {
            session: start.session,
            first: start.sequence,
            last: *last,
        })
    }

    /// Whether the set is empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    fn at_or_before(&self, name: BlockName) -> Option<(BlockName, u64)> {
        self.ranges.range(..=name).next_back().map(|(start, last)| (*start, *last))
    }
}

impl FromIterator<Range> for BlockRanges {
    fn from_iter<I: IntoIterator<Item = Range>>(ranges: I) -> Self {
        let mut set = Self::default();
        for range in ranges {
            set.insert_range(range);
        }
        set
    }
}

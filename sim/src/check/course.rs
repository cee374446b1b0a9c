//! I4 and I5: the course that one stream took at one end.

use std::ops::Range;

use crate::history::record::{Called, Milliseconds, Notice};

/// Gaps, notices and calls that are kept per stream and end; a stream with more is told to have too many.
const MOST_KEPT: usize = 100_000;
/// Status of a notice of chunks that were lost or have expired.
const LOST: u32 = 2;

/// Positions that were passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) positions: Range<u64>,
    /// When the chunk after it came.
    pub(super) t: Milliseconds,
    /// When the chunk before it came; 0 if there was none.
    pub(super) before: Milliseconds,
}

/// What came when.
#[derive(Debug, Default)]
pub(super) struct Course {
    /// Chunks, each counted once.
    pub(super) chunks: u64,
    /// Chunks that came again.
    pub(super) duplicates: u64,
    /// Positions that came, in rising order, joined.
    pub(super) had: Vec<Range<u64>>,
    pub(super) missing: Vec<Missing>,
    notices: Vec<Notice>,
    /// Successful get-keys and those that nobody knows the outcome of.
    get_keys: Vec<Called>,
    first: Option<Milliseconds>,
    last: Milliseconds,
    closed: Option<Milliseconds>,
    /// Something was not kept because there was too much of it.
    pub(super) overflowed: bool,
}

impl Course {
    /// Takes positions that came for the first time. False: they are not beyond those before.
    pub(super) fn came(&mut self, positions: Range<u64>, t: Milliseconds, until: Milliseconds) -> bool {
        let next = self.had.last().map_or(0, |range| range.end);
        if !self.had.is_empty() && positions.start < next {
            return false;
        }
        self.chunks += positions.end - positions.start;
        let full = self.had.len() >= MOST_KEPT;
        match self.had.last_mut() {
            Some(last) if last.end == positions.start => last.end = positions.end,
            _ if full => self.overflowed = true,
            last => {
                if last.is_some() {
                    let missing = Missing { positions: next..positions.start, t, before: self.last };
                    self.missing.push(missing);
                }
                self.had.push(positions);
            }
        }
        self.first = Some(self.first.map_or(t, |first| first.min(t)));
        self.last = self.last.max(until);
        true
    }

    pub(super) fn notice(&mut self, notice: Notice) {
        self.overflowed |= !keep(&mut self.notices, notice);
    }

    pub(super) fn get_key(&mut self, call: Called) {
        // Without an answer it may have been carried out all the same.
        if call.accepted() || call.http == 0 {
            self.overflowed |= !keep(&mut self.get_keys, call);
        }
    }

    pub(super) fn close(&mut self, call: &Called) {
        if call.accepted() {
            self.closed.get_or_insert(call.answered);
        }
    }

    /// The earliest moment from which this end's KMS may be said to have asked for key.
    pub(super) fn asked(&self) -> Option<Milliseconds> {
        self.get_keys.iter().map(|call| call.t).min()
    }

    /// When the first chunk came.
    pub(super) fn first(&self) -> Option<Milliseconds> {
        self.first
    }

    /// When a chunk came after close had been answered: both moments.
    pub(super) fn after_close(&self) -> Option<(Milliseconds, Milliseconds)> {
        self.closed.filter(|closed| self.last > *closed).map(|closed| (closed, self.last))
    }

    /// True if the positions before the first one are missing at this end, seen from `other`, which has some of them.
    pub(super) fn missing_before_first(&self, other: &Self) -> Option<Missing> {
        let first = self.had.first()?.start;
        let theirs = other.had.first()?.start;
        let positions = theirs..first;
        (theirs < first).then_some(Missing { positions, t: self.first.unwrap_or(0), before: 0 })
    }

    /// True if a KMS asked to begin at the end of the gap, or after it.
    pub(super) fn wished_past(&self, missing: &Missing) -> bool {
        self.get_keys.iter().any(|call| {
            call.t <= missing.t
                && call.index.is_some_and(|index| index >= low(missing.positions.end) && index > 0)
        })
    }

    /// True if a notice told of lost chunks: for the position after the gap, or a later one once the gap had opened.
    pub(super) fn told_of(&self, missing: &Missing) -> bool {
        self.notices.iter().any(|notice| {
            notice.status == LOST && notice.position >= missing.positions.end && notice.t >= missing.before
        })
    }
}

/// Low 32 bits, as get-key has them.
fn low(position: u64) -> u32 {
    u32::try_from(position & u64::from(u32::MAX)).unwrap_or(u32::MAX)
}

fn keep<T>(kept: &mut Vec<T>, item: T) -> bool {
    let room = kept.len() < MOST_KEPT;
    if room {
        kept.push(item);
    }
    room
}

/// How many positions two rising lists of ranges have in common.
pub(super) fn common(a: &[Range<u64>], b: &[Range<u64>]) -> u64 {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    let mut sum = 0;
    while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
        sum += x.end.min(y.end).saturating_sub(x.start.max(y.start));
        if x.end <= y.end {
            a.next()
        } else {
            b.next()
        };
    }
    sum
}

/// True if `ranges`, in any order, cover all of `whole`.
pub(super) fn covered(whole: &Range<u64>, ranges: &mut [Range<u64>]) -> bool {
    ranges.sort_unstable_by_key(|range| range.start);
    let end = ranges
        .iter()
        .fold(whole.start, |end, range| if range.start <= end { end.max(range.end) } else { end });
    end >= whole.end
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "lists of one range are meant")]
mod tests {
    use super::*;

    #[test]
    fn a_range_counted_twice_or_not_at_all_is_caught() {
        assert_eq!(common(&[0..10, 20..30], &[5..25]), 10);
        assert_eq!(common(&[0..10], &[10..20]), 0);
        assert_eq!(common(&[0..1, 2..3, 4..5], &[0..100]), 3);
        assert_eq!(common(&[], &[0..1]), 0);
    }

    #[test]
    fn a_gap_that_is_counted_only_in_part_is_caught() {
        assert!(covered(&(5..10), &mut [7..12, 0..7]));
        assert!(!covered(&(5..10), &mut [0..7, 8..12]));
        assert!(!covered(&(5..10), &mut []));
    }

    #[test]
    fn positions_that_go_back_are_caught() {
        let mut course = Course::default();
        assert!(course.came(3..5, 10, 10));
        assert!(course.came(7..8, 11, 11));
        assert!(!course.came(6..7, 12, 12));
        assert!(!course.came(7..8, 12, 12));
        assert_eq!(course.missing, [Missing { positions: 5..7, t: 11, before: 10 }]);
        assert_eq!((course.chunks, course.had), (3, vec![3..5, 7..8]));
    }
}

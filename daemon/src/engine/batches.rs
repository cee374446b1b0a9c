//! Actions that wait for what they depend on: that their batch's writes are durable, and that the card's cell shows it.
//! They come out in the order in which they went in.

use std::collections::VecDeque;

use crate::agreement::Action;

/// Batches on their way.
#[derive(Debug, Default)]
pub(super) struct Batches {
    /// Of the write under way.
    writing: Option<Vec<Action>>,
    /// Durable, with the number that the cell must show; numbers never fall.
    durable: VecDeque<(u64, Vec<Action>)>,
    /// Number of this process's last durable write, which the cell must show; 0 before the first one.
    number: u64,
    /// Write at which the ledger was opened. No action waits for the cell to show that one again.
    opened: u64,
}

impl Batches {
    /// A write begins, on which `actions` depend. The one before is done.
    pub(super) fn begin(&mut self, actions: Vec<Action>) {
        self.writing.get_or_insert_default().extend(actions);
    }

    /// The write under way is durable as number `number`.
    pub(super) fn written(&mut self, number: u64) {
        self.number = number.max(self.number);
        if let Some(actions) = self.writing.take() {
            self.durable.push_back((self.number, actions));
        }
    }

    /// Actions that depend on no write of their own, and only come after those before. No write is under way.
    pub(super) fn follow(&mut self, actions: Vec<Action>) {
        match &mut self.writing {
            Some(before) => before.extend(actions),
            None => self.durable.push_back((self.number, actions)),
        }
    }

    /// The next actions that may be carried out now that the cell shows `shown`.
    pub(super) fn next(&mut self, shown: u64) -> Option<Vec<Action>> {
        self.durable.pop_front_if(|(number, _)| *number <= shown).map(|(_, actions)| actions)
    }

    /// Number of the last durable write, also of a process before this one.
    pub(super) fn number(&self) -> u64 {
        self.number.max(self.opened)
    }

    /// The ledger was at this write when it was opened.
    pub(super) fn opened_at(number: u64) -> Self {
        Self { opened: number, ..Self::default() }
    }

    /// Actions on their way.
    pub(super) fn waiting(&self) -> usize {
        let durable: usize = self.durable.iter().map(|(_, actions)| actions.len()).sum();
        durable + self.writing.as_ref().map_or(0, Vec::len)
    }
}

#[cfg(test)]
mod tests {
    use super::Batches;
    use crate::agreement::{Action, BlockName};

    fn actions(from: u64, to: u64) -> Vec<Action> {
        (from..to).map(|sequence| Action::Release { block: BlockName::new(1, sequence) }).collect()
    }

    #[test]
    fn what_depends_on_no_write_of_this_process_waits_for_no_write_of_the_one_before() {
        let mut batches = Batches::opened_at(48);
        batches.follow(actions(0, 2));
        assert_eq!((batches.number(), batches.next(0).map(numbers)), (48, Some(vec![0, 1])));
    }

    fn numbers(actions: Vec<Action>) -> Vec<u64> {
        actions
            .into_iter()
            .map(|action| match action {
                Action::Release { block } => block.sequence,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn nothing_is_done_before_its_write_is_durable_and_the_cell_shows_it() {
        let mut batches = Batches::default();
        batches.begin(actions(0, 2));
        assert_eq!(batches.waiting(), 2);
        assert!(batches.next(u64::MAX).is_none(), "it is not durable");
        batches.written(7);
        assert!(batches.next(6).is_none(), "the cell does not show it");
        assert_eq!(numbers(batches.next(7).unwrap()), [0, 1]);
        assert!(batches.next(u64::MAX).is_none());
    }

    #[test]
    fn what_needs_no_write_does_not_overtake_what_does() {
        let mut batches = Batches::default();
        batches.begin(actions(0, 1));
        batches.written(7);
        batches.follow(actions(1, 2));
        batches.begin(actions(2, 3));
        assert!(batches.next(6).is_none());
        batches.written(8);
        assert_eq!(numbers(batches.next(7).unwrap()), [0]);
        assert_eq!(numbers(batches.next(7).unwrap()), [1], "it waits for nothing more");
        assert!(batches.next(7).is_none());
        assert_eq!(numbers(batches.next(9).unwrap()), [2]);
        batches.follow(actions(3, 4));
        assert_eq!(numbers(batches.next(8).unwrap()), [3]);
    }
}

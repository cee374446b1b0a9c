//! Which pages of the vault are in use: a bitmap, first fit.
//!
//! First fit is enough: blocks of one card have one size, so that every hole left by one takes the next.

/// Octets of a page, the vault's granularity.
pub(super) const PAGE: usize = 4096;

/// Pages in use.
#[derive(Debug)]
pub(super) struct PageMap {
    // Bit i of word w stands for page 64 w + i; set: in use. Bits beyond `count` are set for good.
    words: Vec<u64>,
    count: usize,
    used: usize,
}

impl PageMap {
    pub(super) fn new(count: usize) -> Self {
        let mut words = vec![0; count.div_ceil(64)];
        let beyond = count % 64;
        if let (Some(last), true) = (words.last_mut(), beyond != 0) {
            *last = u64::MAX << beyond;
        }
        Self { words, count, used: 0 }
    }

    /// Takes the first `count` free pages in a row; gives the first one's number.
    pub(super) fn take(&mut self, count: usize) -> Option<usize> {
        if count == 0 || count > self.count.saturating_sub(self.used) {
            return None;
        }
        let mut start = self.next_free(0)?;
        loop {
            let end = self.next_used(start, count);
            if end - start >= count {
                self.mark(start, count, true);
                self.used += count;
                return Some(start);
            }
            start = self.next_free(end)?;
        }
    }

    /// Gives back pages that [`Self::take`] gave.
    pub(super) fn give_back(&mut self, start: usize, count: usize) {
        self.mark(start, count, false);
        self.used = self.used.saturating_sub(count);
    }

    /// Pages in use.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    fn word(&self, index: usize) -> u64 {
        self.words.get(index).copied().unwrap_or(u64::MAX)
    }

    /// First free page from `from` on.
    fn next_free(&self, from: usize) -> Option<usize> {
        let mut index = from / 64;
        // The bits below `from` are taken for used.
        let mut word = self.word(index) | !(u64::MAX << (from % 64));
        while word == u64::MAX {
            index += 1;
            if index >= self.words.len() {
                return None;
            }
            word = self.word(index);
        }
        Some(index * 64 + word.trailing_ones() as usize)
    }

    /// First used page from `from` on, looked for over `most` pages.
    fn next_used(&self, from: usize, most: usize) -> usize {
        let mut index = from / 64;
        let mut word = self.word(index) & (u64::MAX << (from % 64));
        while word == 0 && index * 64 < from + most {
            index += 1;
            word = self.word(index);
        }
        index * 64 + word.trailing_zeros() as usize
    }

    fn mark(&mut self, start: usize, count: usize, used: bool) {
        let end = start + count;
        let mut page = start;
        while page < end {
            let bit = page % 64;
            let run = (64 - bit).min(end - page);
            let mask = (u64::MAX >> (64 - run)) << bit;
            if let Some(word) = self.words.get_mut(page / 64) {
                debug_assert_eq!(
                    *word & mask,
                    if used { 0 } else { mask },
                    "pages taken or given back twice"
                );
                *word = if used { *word | mask } else { *word & !mask };
            }
            page += run;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::PageMap;

    proptest! {
        #[test]
        fn no_page_is_given_twice_or_lost(count in 1usize..300, steps in prop::collection::vec((0usize..80, any::<prop::sample::Index>(), any::<bool>()), 1..200)) {
            let mut map = PageMap::new(count);
            let mut model = vec![false; count];
            let mut taken: Vec<(usize, usize)> = Vec::new();
            for (pages, pick, give_back) in steps {
                if give_back && !taken.is_empty() {
                    let (start, pages) = taken.swap_remove(pick.index(taken.len()));
                    map.give_back(start, pages);
                    model[start..start + pages].fill(false);
                } else {
                    let first_fit = (0..count.saturating_sub(pages - pages.min(1)))
                        .find(|start| pages > 0 && start + pages <= count && model[*start..start + pages].iter().all(|used| !used));
                    let given = map.take(pages);
                    prop_assert_eq!(given, first_fit);
                    if let Some(start) = given {
                        model[start..start + pages].fill(true);
                        taken.push((start, pages));
                    }
                }
                prop_assert_eq!(map.used(), model.iter().filter(|used| **used).count());
            }
        }

        #[test]
        fn holes_of_equal_blocks_are_all_filled_again(pages in 1usize..20, blocks in 1usize..40, freed in prop::collection::vec(any::<prop::sample::Index>(), 0..40)) {
            let mut map = PageMap::new(pages * blocks);
            let mut taken: Vec<usize> = (0..blocks).map(|_| map.take(pages).unwrap()).collect();
            for pick in freed {
                if taken.is_empty() { break; }
                map.give_back(taken.swap_remove(pick.index(taken.len())), pages);
            }
            for _ in taken.len()..blocks {
                prop_assert!(map.take(pages).is_some());
            }
            prop_assert!(map.take(1).is_none());
        }
    }
}

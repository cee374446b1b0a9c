//! Every octet that the QKD link has ever distilled, and what became of it at each end.

use qkd_daemon::agreement::{BlockName, Extent, Mark};

use super::card::length_of;
use super::checker::{Verdict, broken};

/// An octet of key, by number.
pub(crate) type Octet = u32;

/// What became of an octet at one end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fate {
    /// A fault has destroyed it: the card's or the link's loss.
    pub(crate) destroyed: Option<&'static str>,
    /// Burnt, and why.
    pub(crate) burnt: Option<&'static str>,
    /// Granted, durably.
    pub(crate) granted: bool,
    /// The operator was told that it is destroyed.
    pub(crate) zeroized: bool,
}

impl Fate {
    pub(crate) fn usable(self) -> bool {
        self.destroyed.is_none() && self.burnt.is_none()
    }
}

/// All key.
#[derive(Debug, Default)]
pub(crate) struct Key {
    /// Sessions from 1 on; for each block the number of its first octet.
    sessions: Vec<Vec<Octet>>,
    blocks: Vec<BlockName>,
    pub(crate) fates: Vec<[Fate; 2]>,
    /// The chunk that an octet was first sent as, by stream and position.
    pub(crate) used: Vec<Option<(u128, u64)>>,
}

impl Key {
    pub(crate) fn begin_session(&mut self) {
        self.sessions.push(Vec::new());
    }

    /// The link distils a block.
    pub(crate) fn distil(&mut self, name: BlockName) {
        let first = self.fates.len();
        let length = length_of(name) as usize;
        self.sessions.last_mut().expect("a session").push(first as Octet);
        self.blocks.push(name);
        self.fates.resize(first + length, [Fate::default(); 2]);
        self.used.resize(first + length, None);
    }

    pub(crate) fn octet(&self, name: BlockName, offset: u32) -> Octet {
        let first = |name: BlockName| {
            let session = self.sessions.get((name.session as usize).wrapping_sub(1))?;
            session.get(name.sequence as usize).copied()
        };
        // A wrong name or place is a defect's; it becomes a number that is wrong as well.
        first(name).unwrap_or(0) + offset
    }

    pub(crate) fn octets<'a>(&'a self, extents: &'a [Extent]) -> impl Iterator<Item = Octet> + 'a {
        extents.iter().flat_map(move |extent| {
            let first = self.octet(extent.block, extent.offset);
            first..first + extent.length
        })
    }

    pub(crate) fn destroy(&mut self, end: usize, name: BlockName, why: &'static str) {
        let first = self.octet(name, 0) as usize;
        for fate in &mut self.fates[first..first + length_of(name) as usize] {
            fate[end].destroyed.get_or_insert(why);
        }
    }

    /// The operator is told that all of `blocks` is destroyed at `end`.
    pub(crate) fn is_zeroized(&mut self, end: usize, blocks: &[BlockName]) {
        for name in blocks {
            let first = self.octet(*name, 0) as usize;
            for fate in &mut self.fates[first..first + length_of(*name) as usize] {
                fate[end].zeroized = true;
            }
        }
    }

    pub(crate) fn is_destroyed(&self, end: usize, octet: Octet) -> bool {
        self.fates.get(octet as usize).is_none_or(|fate| fate[end].destroyed.is_some())
    }

    /// The number of the first octet at or above `mark`.
    pub(crate) fn place(&self, mark: Mark) -> Octet {
        let name = mark.block;
        let Some(session) = self.sessions.get((name.session as usize).wrapping_sub(1)) else {
            return if name.session == 0 { 0 } else { self.fates.len() as Octet };
        };
        match session.get(name.sequence as usize) {
            Some(first) => first + mark.offset,
            // Beyond the session's last block.
            None => self.sessions[name.session as usize..]
                .iter()
                .find_map(|session| session.first().copied())
                .unwrap_or(self.fates.len() as Octet),
        }
    }

    /// The mark of `end` rises over octets that were not granted. `most` is the longest run of key that both ends have that
    /// may be burnt with it.
    pub(crate) fn burn(
        &mut self,
        end: usize,
        from: Mark,
        to: Mark,
        why: &'static str,
        most: usize,
    ) -> Verdict {
        let (from, to) = (self.place(from) as usize, self.place(to) as usize);
        let mut run = 0;
        for octet in from..to {
            let fates = &mut self.fates[octet];
            if fates[end].granted {
                continue;
            }
            run = if fates[0].usable() && fates[1].usable() { run + 1 } else { 0 };
            fates[end].burnt.get_or_insert(why);
            if run > most {
                return broken(
                    "key",
                    format!(
                        "end {end} burns {run} octets in a row that both ends have ({why}), up to octet {octet}"
                    ),
                );
            }
        }
        Ok(())
    }

    /// The block and place of an octet.
    pub(crate) fn name(&self, octet: Octet) -> (BlockName, u32) {
        let starts = self.sessions.iter().flatten();
        let at = starts.take_while(|first| **first <= octet).count();
        let name = self.blocks[at.saturating_sub(1)];
        (name, octet - self.octet(name, 0))
    }
}

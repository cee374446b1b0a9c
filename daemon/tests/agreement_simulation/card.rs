//! A QKD card and the link between two of them, by their contract: names, retention, overflow, loss, replay, sessions.

use std::collections::{BTreeSet, VecDeque};

use qkd_daemon::agreement::BlockName;

/// Octets of a block: a function of its name.
pub(crate) fn length_of(name: BlockName) -> u32 {
    4 + ((name.session * 31 + name.sequence * 7) % 13) as u32
}

/// What the link gives to a card, in order.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Distilled {
    Block(BlockName),
    Session(u64),
}

/// What a card writes to its ring, in order.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CardEvent {
    Block { name: BlockName, replayed: bool },
    ReplayEnd,
    Session(u64),
}

#[derive(Debug, Default)]
pub(crate) struct Card {
    pub(crate) incoming: VecDeque<Distilled>,
    retained: BTreeSet<BlockName>,
    ring: VecDeque<CardEvent>,
    session: u64,
    /// The newest block delivered since the host started.
    delivered: Option<BlockName>,
    pub(crate) newest: Option<BlockName>,
    pub(crate) cell: u64,
    /// It has erased every key, and does nothing until it is reset.
    pub(crate) is_zeroized: bool,
}

pub(crate) const RETAINED_MOST: usize = 24;

/// A block that is lost, and why.
pub(crate) type Gone = (BlockName, &'static str);

impl Card {
    /// Takes one thing from the link. Returns a block that is lost.
    pub(crate) fn arrive(&mut self, loses: bool) -> Option<Gone> {
        match self.incoming.pop_front()? {
            Distilled::Session(_) if self.is_zeroized => None,
            Distilled::Session(session) => {
                self.session = session;
                self.ring.push_back(CardEvent::Session(session));
                None
            }
            Distilled::Block(name) if self.is_zeroized => Some((name, "the card is zeroized")),
            Distilled::Block(name) if loses => Some((name, "lost on the link")),
            Distilled::Block(name) if self.retained.len() >= RETAINED_MOST => Some((name, "overflow")),
            Distilled::Block(name) => {
                self.retained.insert(name);
                self.newest = self.newest.max(Some(name));
                self.ring.push_back(CardEvent::Block { name, replayed: false });
                None
            }
        }
    }

    /// The host starts the card: everything kept is delivered again.
    pub(crate) fn start(&mut self) {
        self.delivered = None;
        self.ring =
            self.retained.iter().map(|name| CardEvent::Block { name: *name, replayed: true }).collect();
        self.ring.push_back(CardEvent::ReplayEnd);
        if self.session > 0 {
            self.ring.push_back(CardEvent::Session(self.session));
        }
    }

    /// Power loss: what was kept is gone, the session ends, the cell stays. Returns what is lost.
    pub(crate) fn reset(&mut self) -> Vec<Gone> {
        let kept = std::mem::take(&mut self.retained).into_iter();
        let coming = std::mem::take(&mut self.incoming).into_iter().filter_map(|distilled| match distilled {
            Distilled::Block(name) => Some(name),
            Distilled::Session(_) => None,
        });
        let gone = kept.chain(coming).map(|name| (name, "card reset")).collect();
        self.newest = None;
        self.session = 0;
        self.is_zeroized = false;
        self.start();
        gone
    }

    /// Erases every key. Returns what is lost.
    pub(crate) fn zeroize(&mut self) -> Vec<BlockName> {
        self.is_zeroized = true;
        self.ring.clear();
        std::mem::take(&mut self.retained).into_iter().collect()
    }

    /// Delivers a block again that was delivered since the host started.
    pub(crate) fn repeat(&mut self, which: usize) -> bool {
        let Some(delivered) = self.delivered else { return false };
        let known = self.retained.range(..=delivered).count();
        let Some(name) = self.retained.iter().nth(which % known.max(1)).filter(|_| known > 0).copied() else {
            return false;
        };
        self.ring.push_front(CardEvent::Block { name, replayed: false });
        true
    }

    /// The next event, if there is one and the host has room for it.
    pub(crate) fn next_event(&mut self, room: u64) -> Option<CardEvent> {
        loop {
            match *self.ring.front()? {
                CardEvent::Block { name, .. } if !self.retained.contains(&name) => {
                    self.ring.pop_front();
                }
                CardEvent::Block { name, .. } if u64::from(length_of(name)) > room => return None,
                event => {
                    self.ring.pop_front();
                    if let CardEvent::Block { name, .. } = event {
                        self.delivered = self.delivered.max(Some(name));
                    }
                    return Some(event);
                }
            }
        }
    }

    pub(crate) fn replays(&self) -> bool {
        self.ring.iter().any(|event| matches!(event, CardEvent::ReplayEnd))
    }

    pub(crate) fn retained(&self) -> Vec<BlockName> {
        self.retained.iter().copied().collect()
    }

    pub(crate) fn retains(&self, name: BlockName) -> bool {
        self.retained.contains(&name)
    }

    pub(crate) fn acknowledge(&mut self, first: BlockName, last: BlockName) {
        assert_eq!(first.session, last.session, "a range of two sessions");
        assert!(first <= last, "a range that ends before it begins");
        self.retained.retain(|name| *name < first || *name > last);
    }
}

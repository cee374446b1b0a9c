//! A QKD card and the link between two of them, by their contract: names, retention, overflow, loss, replay, sessions.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use qkd_daemon::agreement::BlockName;

/// Octets of a block: a function of its name, as its octets are.
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
    pub(crate) newest: Option<BlockName>,
    pub(crate) cell: u64,
    /// Names that this end has lost, and why. A loss of any other is the daemon's own doing.
    pub(crate) lost: BTreeMap<BlockName, &'static str>,
}

pub(crate) const RETAINED_MOST: usize = 24;

impl Card {
    /// Takes one thing from the link. Returns what became of a block that is lost.
    pub(crate) fn arrive(&mut self, loses: bool) -> Option<&'static str> {
        match self.incoming.pop_front()? {
            Distilled::Session(session) => {
                self.session = session;
                self.ring.push_back(CardEvent::Session(session));
                None
            }
            Distilled::Block(name) => {
                let why = if loses {
                    Some("lost on the link")
                } else if self.retained.len() >= RETAINED_MOST {
                    Some("overflow")
                } else {
                    None
                };
                if let Some(why) = why {
                    self.lost.insert(name, why);
                    return Some(why);
                }
                self.retained.insert(name);
                self.newest = self.newest.max(Some(name));
                self.ring.push_back(CardEvent::Block { name, replayed: false });
                None
            }
        }
    }

    /// The host starts the card: everything kept is delivered again.
    pub(crate) fn start(&mut self) {
        self.ring =
            self.retained.iter().map(|name| CardEvent::Block { name: *name, replayed: true }).collect();
        self.ring.push_back(CardEvent::ReplayEnd);
        if self.session > 0 {
            self.ring.push_back(CardEvent::Session(self.session));
        }
    }

    /// Power loss: what was kept is gone, the session ends, the cell stays.
    pub(crate) fn reset(&mut self) {
        for name in std::mem::take(&mut self.retained) {
            self.lost.insert(name, "card reset");
        }
        self.incoming.clear();
        self.newest = None;
        self.session = 0;
        self.start();
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
                    return Some(event);
                }
            }
        }
    }

    pub(crate) fn acknowledge(&mut self, first: BlockName, last: BlockName) {
        assert_eq!(first.session, last.session, "a range of two sessions");
        assert!(first <= last, "a range that ends before it begins");
        self.retained.retain(|name| *name < first || *name > last);
    }
}

//! What one end has made durable, in books of the simulation's own: every position that was granted is accepted by the KMS,
//! lost for a counted cause, or still owed, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use qkd_daemon::agreement::{Durable, LossCause, Mark, Stamp};
use qkd_daemon::interface::KeyStreamId;

use super::checker::{Verdict, broken};
use super::key::Octet;

pub(crate) type Octets = Rc<[Octet]>;

/// What became of a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    Owed,
    Accepted,
    Lost(LossCause),
    /// The ledger that knew of it is gone.
    Forgotten,
}

#[derive(Clone, Debug)]
pub(crate) struct Granted {
    pub(crate) octets: Octets,
    pub(crate) stamp: Stamp,
    /// In the time of the world.
    pub(crate) expires: u64,
    pub(crate) settled: Settled,
}

/// A stream at one end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Account {
    pub(crate) chunk_size: u32,
    pub(crate) ttl_ms: u64,
    pub(crate) next: u64,
    pub(crate) position: u64,
    pub(crate) wanted: bool,
    pub(crate) closed: bool,
    pub(crate) granted: BTreeMap<u64, Granted>,
    /// Positions that were never granted, from and to.
    pub(crate) skipped: Vec<(u64, u64)>,
    pub(crate) lost: [u64; LossCause::ALL.len()],
    /// Positions that the KMS has accepted.
    pub(crate) taken: BTreeSet<u64>,
}

impl Account {
    /// Whether a position need not be sent.
    pub(crate) fn excuses(&self, position: u64) -> bool {
        let lost = self.granted.get(&position).is_some_and(|g| matches!(g.settled, Settled::Lost(_)));
        lost || self.was_skipped(position)
    }

    fn was_skipped(&self, position: u64) -> bool {
        self.skipped.iter().any(|(from, to)| (*from..*to).contains(&position))
    }

    /// Settles everything below `to` that nobody has lost.
    fn accepts(&mut self, to: u64) -> Result<(), String> {
        for position in self.position..to {
            let skipped = self.was_skipped(position);
            match self.granted.get_mut(&position) {
                None if skipped => {}
                None => return Err(format!("position {position} is settled and was never granted")),
                Some(granted) if granted.settled == Settled::Owed => {
                    if !self.taken.contains(&position) {
                        return Err(format!("position {position} is settled; the KMS has not accepted it"));
                    }
                    granted.settled = Settled::Accepted;
                }
                Some(_) => {}
            }
        }
        self.position = self.position.max(to);
        Ok(())
    }

    fn loses(&mut self, first: u64, count: u64, cause: LossCause) -> Result<(), String> {
        if first < self.position {
            return Err(format!("position {first} is lost and was settled below {}", self.position));
        }
        // What was accepted before need not have been written yet.
        self.accepts(first)?;
        for position in first..first + count {
            match self.granted.get_mut(&position) {
                Some(granted) if granted.settled == Settled::Owed => granted.settled = Settled::Lost(cause),
                Some(granted) => {
                    return Err(format!("position {position} is lost and was {:?}", granted.settled));
                }
                None => return Err(format!("position {position} is lost and was never granted")),
            }
        }
        self.position = self.position.max(first + count);
        self.lost[cause as usize] += count;
        Ok(())
    }

    fn owed(&self) -> Option<u64> {
        self.granted.iter().find(|(_, granted)| granted.settled == Settled::Owed).map(|(at, _)| *at)
    }
}

/// One end.
#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) epoch: u64,
    pub(crate) mark: Mark0,
    pub(crate) last: u64,
    /// The latest wall time of an entry, and whether wall time is known to have gone back since then.
    pub(crate) latest_wall: u64,
    pub(crate) age_unknown: bool,
    pub(crate) streams: BTreeMap<KeyStreamId, Account>,
    pub(crate) past: Vec<(KeyStreamId, Account)>,
    /// The ledger that these books follow was lost or rolled back; the epoch that must begin forgets what is owed.
    pub(crate) forgetful: bool,
    pub(crate) epochs: u64,
    /// At the leader: the follower is known to have taken this epoch over.
    pub(crate) taken_over: bool,
}

/// A mark that begins at zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark0(pub(crate) Mark);

impl Default for Mark0 {
    fn default() -> Self {
        Self(Mark::ZERO)
    }
}

impl Books {
    /// The stream, and those before that had its ID.
    pub(crate) fn accounts(&self, stream: KeyStreamId) -> impl Iterator<Item = &Account> {
        let past = self.past.iter().filter(move |(id, _)| *id == stream).map(|(_, account)| account);
        self.streams.get(&stream).into_iter().chain(past)
    }

    pub(crate) fn progress(&mut self, end: usize, stream: KeyStreamId, to: u64) -> Verdict {
        if self.forgetful {
            return Ok(());
        }
        let Some(account) = self.streams.get_mut(&stream) else { return Ok(()) };
        account.accepts(to).or_else(|why| broken("progress", format!("end {end}, stream {stream}: {why}")))
    }

    pub(crate) fn loses(
        &mut self,
        end: usize,
        stream: KeyStreamId,
        first: u64,
        count: u64,
        cause: LossCause,
    ) -> Verdict {
        let Some(account) = self.streams.get_mut(&stream) else { return Ok(()) };
        account
            .loses(first, count, cause)
            .or_else(|why| broken("loss", format!("end {end}, stream {stream}, {cause:?}: {why}")))
    }

    /// This end is closed: nothing may be owed any more.
    pub(crate) fn closes(&mut self, end: usize, stream: KeyStreamId) -> Verdict {
        let Some(account) = self.streams.get_mut(&stream) else { return Ok(()) };
        account.closed = true;
        match account.owed() {
            Some(position) => broken(
                "loss",
                format!(
                    "end {end}, stream {stream} closes; position {position} is not accepted and not counted"
                ),
            ),
            None => Ok(()),
        }
    }

    /// A stream is over at this end: nothing may be owed any more.
    pub(crate) fn ends(&mut self, end: usize, stream: KeyStreamId) -> Verdict {
        let Some(account) = self.streams.remove(&stream) else { return Ok(()) };
        if let Some(position) = account.owed() {
            return broken(
                "loss",
                format!(
                    "end {end}, stream {stream} ends; position {position} is neither accepted nor counted as lost"
                ),
            );
        }
        self.past.push((stream, account));
        Ok(())
    }

    pub(crate) fn begins_epoch(&mut self, end: usize, epoch: u64, mark: Mark) -> Verdict {
        let streams: Vec<KeyStreamId> = self.streams.keys().copied().collect();
        for stream in streams {
            if self.forgetful
                && let Some(account) = self.streams.get_mut(&stream)
            {
                for granted in account.granted.values_mut().filter(|g| g.settled == Settled::Owed) {
                    granted.settled = Settled::Forgotten;
                }
            }
            self.ends(end, stream)?;
        }
        self.forgetful = false;
        self.epochs += 1;
        self.taken_over = false;
        self.epoch = epoch;
        self.last = 0;
        self.mark = Mark0(mark);
        Ok(())
    }

    /// What the ledger holds after a restart is what was made durable.
    pub(crate) fn agrees_with(&self, end: usize, durable: &Durable) -> Verdict {
        if self.forgetful {
            return Ok(());
        }
        let wrong = |what: String| broken("ledger", format!("end {end} after a restart: {what}"));
        if durable.last != self.last || durable.epoch != self.epoch || durable.mark != self.mark.0 {
            return wrong(format!(
                "epoch {}, entry {}, mark {}, but epoch {}, entry {}, mark {} were made durable",
                durable.epoch, durable.last, durable.mark, self.epoch, self.last, self.mark.0
            ));
        }
        for (stream, account) in &self.streams {
            let Some(state) = durable.streams.get(stream) else {
                return wrong(format!("stream {stream} is not there"));
            };
            let mine = (account.next, account.position, account.closed, account.wanted, account.lost);
            let theirs = (state.next, state.position, state.closed, state.wanted, state.lost);
            if mine != theirs {
                return wrong(format!("stream {stream} has {theirs:?}, but {mine:?} was made durable"));
            }
        }
        Ok(())
    }
}

//! Judges what both KMSs are sent, and what both ledgers keep, by the invariants of the key agreement: I1 agreement, I2 no
//! reuse, I3 stability, I4 order, I5 consent; that the logs are one; that every position and every octet is accounted for.
//! Delivery is the first send.

use std::collections::{BTreeMap, BTreeSet};

use qkd_daemon::agreement::{Decision, Digest, Entry, Grant, LossCause, Record, Stamp};
use qkd_daemon::interface::KeyStreamId;

use super::books::{Account, Books, Granted, Mark0, Octets, Settled};
use super::key::Key;

/// An invariant was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) invariant: &'static str,
    pub(crate) what: String,
}

pub(crate) type Verdict = Result<(), Violation>;

pub(crate) fn broken(invariant: &'static str, what: String) -> Verdict {
    Err(Violation { invariant, what })
}

type Chunk = (KeyStreamId, u64);

#[derive(Debug, Default)]
pub(crate) struct Checker {
    pub(crate) key: Key,
    pub(crate) books: [Books; 2],
    /// What each end was sent.
    sent: [BTreeMap<Chunk, Octets>; 2],
    /// Highest position first sent, plus one.
    reached: [BTreeMap<KeyStreamId, u64>; 2],
    wanted: [BTreeSet<KeyStreamId>; 2],
    closed: [BTreeSet<KeyStreamId>; 2],
    /// The leader's log, by epoch and number.
    log: BTreeMap<(u64, u64), Digest>,
    /// A ledger was lost or rolled back, or an end was told an old story: a new epoch may begin.
    pub(crate) epochs_may_begin: bool,
    /// The connection has done to the leader what no real one does: it may not know which streams take key.
    pub(crate) misled: bool,
    /// A planted defect, which is to be seen in what is delivered, not in what is burnt.
    pub(crate) close_is_not_durable: bool,
    pub(crate) deliveries: u64,
    pub(crate) losses: BTreeMap<&'static str, u64>,
    pub(crate) entries: BTreeMap<&'static str, u64>,
}

impl Checker {
    pub(crate) fn close_done(&mut self, end: usize, stream: KeyStreamId) {
        self.closed[end].insert(stream);
    }

    pub(crate) fn reached(&self, end: usize, stream: KeyStreamId) -> u64 {
        self.reached[end].get(&stream).copied().unwrap_or(0)
    }

    /// The KMS has taken a chunk, whether it has said so or not.
    pub(crate) fn taken(&mut self, end: usize, stream: KeyStreamId, position: u64) {
        if let Some(account) = self.books[end].streams.get_mut(&stream) {
            account.taken.insert(position);
        }
    }

    /// A chunk goes out to the KMS. `heard`: when the core last heard the time, where push has done all it was told.
    pub(crate) fn sends(
        &mut self,
        end: usize,
        stream: KeyStreamId,
        position: u64,
        octets: &Octets,
        heard: Option<u64>,
    ) -> Verdict {
        let chunk = (stream, position);
        let name = || format!("end {end}, stream {stream}, position {position}: {octets:?}");
        if self.closed[end].contains(&stream) {
            return broken("I5", format!("sent after close was answered; {}", name()));
        }
        if !(0..2).all(|e| self.wanted[e].contains(&stream)) {
            return broken("I5", format!("sent before both KMSs had sent get-key; {}", name()));
        }
        if octets.iter().any(|octet| self.key.fates.get(*octet as usize).is_some_and(|f| f[end].zeroized)) {
            return broken("zeroize", format!("key is sent that was destroyed; {}", name()));
        }
        if let Some(before) = self.sent[end].get(&chunk) {
            if before != octets {
                return broken("I3", format!("sent as {before:?} before; {}", name()));
            }
            return Ok(());
        }
        if let Some(other) = self.sent[1 - end].get(&chunk)
            && other != octets
        {
            return broken("I1", format!("the other end was sent {other:?}; {}", name()));
        }
        let this = (stream.as_u128(), position);
        for octet in octets.iter() {
            let Some(used) = self.key.used.get_mut(*octet as usize) else {
                return broken("I2", format!("octet {octet} was never distilled; {}", name()));
            };
            if let Some(other) = used.replace(this)
                && other != this
            {
                return broken(
                    "I2",
                    format!("octet {:?} was delivered as {other:?}; {}", self.key.name(*octet), name()),
                );
            }
        }
        let reached = self.reached(end, stream);
        if position < reached {
            return broken("I4", format!("sent for the first time after position {reached}; {}", name()));
        }
        // Push may not know yet that the stream is over, and its ID may be another's already.
        let books = &self.books[end];
        for gap in reached..position {
            if !books.accounts(stream).any(|account| account.excuses(gap)) {
                return broken("I4", format!("position {gap} was left out and not counted; {}", name()));
            }
        }
        let mut granted = books.accounts(stream).filter_map(|account| account.granted.get(&position));
        let expires = granted.find(|granted| granted.octets == *octets).map(|granted| granted.expires);
        if let (Some(heard), Some(expires)) = (heard, expires)
            && expires <= heard
        {
            return broken("ttl", format!("sent at {heard}, its time was over at {expires}; {}", name()));
        }
        self.reached[end].insert(stream, position + 1);
        self.sent[end].insert(chunk, octets.clone());
        self.deliveries += 1;
        Ok(())
    }

    /// `record` becomes durable at `end`.
    pub(crate) fn writes(&mut self, end: usize, time: u64, wall_ms: u64, record: &Record) -> Verdict {
        match record {
            Record::Wanted { stream } => {
                // Durable: it counts, even if its answer is lost.
                self.wanted[end].insert(*stream);
                if let Some(account) = self.books[end].streams.get_mut(stream) {
                    account.wanted = true;
                }
            }
            Record::Closed { stream } => {
                self.books[end].closes(end, *stream)?;
            }
            Record::Epoch { epoch, mark, .. } => {
                // An epoch of which the leader does not know that it was taken over may have to begin again.
                let may = if end == 0 {
                    !self.books[0].taken_over
                } else {
                    self.books[1].epochs <= self.books[0].epochs
                };
                if !may && !self.epochs_may_begin {
                    return broken(
                        "epoch",
                        format!("end {end} begins epoch {epoch}, and no ledger was lost or rolled back"),
                    );
                }
                let before = self.books[end].mark.0;
                self.key.burn(end, before, *mark, "a new epoch", usize::MAX)?;
                if end == 0 {
                    // A leader that has lost its ledger, and whose clock has gone back, may come upon an old number.
                    self.log.retain(|(of, _), _| of != epoch);
                }
                self.books[end].begins_epoch(end, *epoch, *mark)?;
            }
            Record::PeerApplied { .. } => self.books[end].taken_over = true,
            Record::Entry { entry, stamp } => {
                let stamped = time - (wall_ms - stamp.wall_ms);
                self.entry(end, stamped, entry, *stamp)?;
            }
            Record::Progress { stream, position } => self.books[end].progress(end, *stream, *position)?,
            Record::Lost { stream, first, count, cause } => {
                self.lost(end, time, *stream, *first, *count, *cause)?
            }
            _ => {}
        }
        Ok(())
    }

    fn entry(&mut self, end: usize, stamped: u64, entry: &Entry, stamp: Stamp) -> Verdict {
        let place = (self.books[end].epoch, entry.number);
        if end == 0 {
            if self.log.insert(place, entry.hash).is_some_and(|before| before != entry.hash) {
                return broken("log", format!("the leader writes entry {place:?} a second time, otherwise"));
            }
        } else if self.log.get(&place) != Some(&entry.hash) {
            return broken("log", format!("the follower applies entry {place:?}, which is not the leader's"));
        }
        if entry.number != self.books[end].last + 1 {
            return broken("log", format!("end {end} writes {place:?} after {}", self.books[end].last));
        }
        self.books[end].last = entry.number;
        self.books[end].latest_wall = self.books[end].latest_wall.max(stamp.wall_ms);
        let kind = match &entry.decision {
            Decision::Open(open) => {
                let account = Account {
                    chunk_size: open.qos.key_chunk_size,
                    ttl_ms: u64::from(open.qos.ttl) * 1_000,
                    ..Account::default()
                };
                self.books[end].streams.insert(open.stream, account);
                "open"
            }
            Decision::Grant(grant) => {
                self.grant(end, stamped, grant, stamp)?;
                "grant"
            }
            Decision::Skip { stream, to } => {
                if let Some(account) = self.books[end].streams.get_mut(stream) {
                    account.skipped.push((account.next, *to));
                    account.next = *to;
                }
                "skip"
            }
            Decision::Burn { to } => {
                let (why, most) =
                    if entry.number == 1 { ("a new epoch", usize::MAX) } else { self.may_burn() };
                let mark = self.books[end].mark.0;
                self.key.burn(end, mark, *to, why, most)?;
                self.books[end].mark = Mark0(mark.max(*to));
                "burn"
            }
            Decision::End { stream } => {
                self.books[end].ends(end, *stream)?;
                "end"
            }
        };
        *self.entries.entry(kind).or_insert(0) += 1;
        Ok(())
    }

    /// What both ends have and may be burnt in a row: less than a chunk of those that take key, or all where none does. The
    /// leader may not have heard yet of a close at the other end.
    fn may_burn(&self) -> (&'static str, usize) {
        let [leader, follower] = &self.books;
        let (mut known, mut largest) = (false, 0);
        for (stream, here) in &leader.streams {
            if here.wanted && !here.closed && self.wanted[1].contains(stream) {
                let there = follower.streams.get(stream);
                known |= here.next > 0 && there.is_some_and(|there| there.wanted && !there.closed);
                largest = largest.max(here.chunk_size as usize);
            }
        }
        if known && !self.misled && !self.close_is_not_durable {
            ("less than a chunk beside what is missing", largest - 1)
        } else {
            ("no stream takes key", usize::MAX)
        }
    }

    fn grant(&mut self, end: usize, stamped: u64, grant: &Grant, stamp: Stamp) -> Verdict {
        let octets: Vec<u32> = self.key.octets(&grant.extents).collect();
        let books = &mut self.books[end];
        let Some(account) = books.streams.get_mut(&grant.stream) else {
            return broken(
                "log",
                format!("end {end}: a grant to stream {}, which is not open", grant.stream),
            );
        };
        let size = account.chunk_size as usize;
        if octets.len() != size * grant.count as usize || grant.first != account.next {
            return broken("log", format!("end {end}: {grant:?} does not fit"));
        }
        for octet in &octets {
            let Some(fate) = self.key.fates.get_mut(*octet as usize) else {
                return broken("I2", format!("end {end}: octet {octet} is granted and was never distilled"));
            };
            if fate[end].granted || fate[end].burnt.is_some() {
                return broken(
                    "I2",
                    format!(
                        "end {end}: octet {:?} is granted and was used up: {grant:?}",
                        self.key.name(*octet)
                    ),
                );
            }
            fate[end].granted = true;
        }
        // The batch may have been open for a while.
        let expires = stamped + account.ttl_ms;
        for (i, octets) in octets.chunks(size).enumerate() {
            let granted = Granted { octets: octets.into(), stamp, expires, settled: Settled::Owed };
            account.granted.insert(grant.first + i as u64, granted);
        }
        account.next = grant.end();
        let mark = books.mark.0;
        self.key.burn(end, mark, grant.mark, "missing at one end", 0)?;
        books.mark = Mark0(mark.max(grant.mark));
        Ok(())
    }

    fn lost(
        &mut self,
        end: usize,
        time: u64,
        stream: KeyStreamId,
        first: u64,
        count: u64,
        cause: LossCause,
    ) -> Verdict {
        let kind = match cause {
            LossCause::BlockLost => "block lost",
            LossCause::Expired => "expired",
            LossCause::Skipped => "skipped",
            LossCause::Closed => "closed over",
            LossCause::Epoch => "epoch over",
        };
        *self.losses.entry(kind).or_insert(0) += count;
        self.books[end].loses(end, stream, first, count, cause)?;
        let unknown = self.books[end].age_unknown;
        let other_closed = self.books[1 - end].streams.get(&stream).is_none_or(|account| account.closed);
        let Some(account) = self.books[end].streams.get(&stream) else { return Ok(()) };
        for (position, granted) in account.granted.range(first..first + count) {
            let real = match cause {
                LossCause::BlockLost => granted.octets.iter().any(|o| self.key.is_destroyed(end, *o)),
                LossCause::Expired => granted.expires <= time || other_closed || unknown,
                LossCause::Skipped | LossCause::Closed | LossCause::Epoch => true,
            };
            if !real {
                return broken(
                    "loss",
                    format!(
                        "end {end}, stream {stream}, position {position} is called {cause:?}, wrongly: {granted:?}"
                    ),
                );
            }
        }
        Ok(())
    }

    /// The operating system of `end` has started anew: age is told by wall time, and what that cannot tell is old.
    pub(crate) fn ages(&mut self, end: usize, time: u64, boot_id: u128, wall_ms: u64) {
        let books = &mut self.books[end];
        books.age_unknown = wall_ms < books.latest_wall;
        for account in books.streams.values_mut() {
            let ttl = account.ttl_ms;
            for granted in account.granted.values_mut() {
                if granted.settled == Settled::Owed && granted.stamp.boot_id != boot_id {
                    let age = wall_ms.checked_sub(granted.stamp.wall_ms).unwrap_or(ttl);
                    granted.expires = time + ttl.saturating_sub(age);
                }
            }
        }
    }

    /// At the end: every octet was granted, burnt or destroyed at each end, or is above its mark.
    pub(crate) fn account(&self) -> Verdict {
        for end in 0..2 {
            let books = &self.books[end];
            let mark = self.key.place(books.mark.0) as usize;
            for (octet, fate) in self.key.fates.iter().enumerate().take(mark) {
                let fate = fate[end];
                if !fate.granted && fate.usable() {
                    return broken(
                        "key",
                        format!("end {end}: octet {octet} is used up and nobody says for what"),
                    );
                }
            }
            for (stream, account) in &books.past {
                if account.granted.values().any(|granted| granted.settled == Settled::Owed) {
                    return broken("loss", format!("end {end}: stream {stream} is over and owes chunks"));
                }
            }
        }
        Ok(())
    }

    /// Octets that both ends have, by what became of them.
    pub(crate) fn fates(&self) -> BTreeMap<&'static str, u64> {
        let mut fates = BTreeMap::new();
        for (octet, [a, b]) in self.key.fates.iter().enumerate() {
            let fate = match (a, b) {
                _ if self.key.used[octet].is_some() => "octets delivered",
                (a, b) if a.destroyed.or(b.destroyed).is_some() => "octets destroyed",
                (a, b) if a.granted || b.granted => "octets granted, lost or owed",
                (a, b) => a.burnt.or(b.burnt).map_or("octets waiting", |why| match why {
                    "a new epoch" => "octets burnt: a new epoch",
                    "no stream takes key" => "octets burnt: no stream takes key",
                    _ => "octets burnt: less than a chunk",
                }),
            };
            *fates.entry(fate).or_insert(0) += 1;
        }
        fates
    }
}

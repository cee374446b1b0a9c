//! Beginnings: of the core, and of epochs.
//!
//! An epoch ends where the two ledgers no longer tell the same story: one is fresh, stale or of another pair, or the
//! hashes differ. All streams end, their IDs stay forbidden, and everything that the cards are known to have announced is
//! burnt: whatever was granted before was in the vaults of both ends, so its blocks had been announced by both cards. What
//! was announced before this run is covered by [`CardFacts::newest`](super::settings::CardFacts), what came since by the
//! core's own record of it.

use super::core::Core;
use super::entry::{Decision, Digest, Entry};
use super::event::{Action, Level, LossCause, Now, Output};
use super::message::Hello;
use super::names::Mark;
use super::record::{Pair, Record, Stamp};
use super::settings::Role;
use super::stream::{Live, OpenGrant, Stopping};
use super::timers::Timer;
use crate::interface::{KeyStreamId, Status};

impl Core {
    pub(super) fn start(&mut self, now: Now, out: &mut Output) {
        let card = self.settings.card;
        let pair = Pair { role: self.settings.role, card: card.serial, peer_card: card.peer_serial };
        let same_pair = self.durable.pair == Some(pair);
        let same_cards =
            self.durable.pair.is_none_or(|p| p.card == pair.card && p.peer_card == pair.peer_card);
        let stale = card.cell > self.durable.write_number;
        let why = if self.durable.pair.is_none() {
            Some("starts without a ledger")
        } else if stale {
            Some("has a ledger that is older than what the card has seen")
        } else if !same_pair {
            Some("has a ledger of another pair of cards or of another role")
        } else {
            None
        };
        if stale {
            self.write(Record::WriteNumber(card.cell), out);
        }
        if !same_pair {
            self.write(Record::Pair(pair), out);
        }
        if !same_cards {
            // Names are qualified by both cards' serials: marks of another pair say nothing.
            self.holdings.restart_at(Mark::ZERO);
        }
        if let Some(why) = why {
            out.say(
                Level::Warn,
                format!(
                    "module {} {why}: everything that card {} still holds, up to mark {}, is burnt, and a new epoch begins",
                    self.settings.module,
                    card.serial,
                    self.holdings.above_all()
                ),
            );
        }
        if why.is_some() {
            self.meet_again(now, out);
        }
        match self.settings.role {
            Role::Leader if why.is_some() || self.durable.epoch == 0 => {
                // The follower knows older epochs only; wall time is above them without asking it. Where it is not, the
                // handshake finds out.
                let epoch = self.durable.epoch.saturating_add(1).max(now.wall_ms);
                self.begin_epoch(now, epoch, out);
            }
            Role::Follower if why.is_some() => self.clear_epoch(now, 0, Digest::NONE, out),
            Role::Leader | Role::Follower => self.resume(now, out),
        }
    }

    /// The ledger's streams, in an order that does not depend on the table's.
    fn stream_ids(&self) -> Vec<KeyStreamId> {
        let mut ids: Vec<KeyStreamId> = self.durable.streams.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// The streams of a ledger that does not hold any more get their pushers, so that their KMSs hear of their end. What of
    /// them is owed nobody knows.
    fn meet_again(&mut self, now: Now, out: &mut Output) {
        let ids = self.stream_ids();
        for id in ids {
            if let Some(state) = self.durable.streams.get(&id) {
                self.streams.insert(id, Live::new(&state.qos, state.next, now.boot_ms));
                self.begin_pushing(id, out);
            }
        }
    }

    /// Goes on with the streams of the ledger.
    fn resume(&mut self, now: Now, out: &mut Output) {
        let ids = self.stream_ids();
        for id in &ids {
            self.resume_stream(now, *id, out);
        }
        let before = self.wall_before();
        let mut grants = Vec::new();
        let mut settled = Vec::new();
        for (number, logged) in &self.durable.log {
            let owed = match &logged.entry.decision {
                Decision::Grant(grant) => self
                    .durable
                    .streams
                    .get(&grant.stream)
                    .filter(|s| !s.closed && s.position < grant.end())
                    .map(|s| (grant, s.qos.ttl)),
                _ => None,
            };
            match owed {
                Some((grant, ttl)) => grants.push((
                    grant.stream,
                    OpenGrant {
                        number: *number,
                        first: grant.first,
                        end: grant.end(),
                        expires_ms: self.expires(&logged.stamp, ttl, now, before),
                    },
                    grant.extents.iter().map(|e| e.block).collect::<Vec<_>>(),
                )),
                None => settled.push(*number),
            }
        }
        for (stream, grant, blocks) in grants {
            self.holdings.owe(blocks.into_iter());
            if let Some(live) = self.streams.get_mut(&stream) {
                let end = live.grants.back().map_or(live.position, |before| before.end);
                live.skipped(end, grant.first);
                live.granted(grant);
            }
            self.arm_expiry(stream);
        }
        for id in ids {
            let next = self.durable.streams.get(&id).map_or(0, |s| s.next);
            if let Some(live) = self.streams.get_mut(&id) {
                let end = live.grants.back().map_or(live.position, |before| before.end);
                live.skipped(end, next);
            }
            if let Some(kms) = self.gone_kms(id) {
                out.say(
                    Level::Error,
                    format!("key stream {id} ends: its KMS {kms} is not configured at this end any more"),
                );
                self.close_here(now, id, out);
            }
            // From now on it waits for the blocks that the card replays, without anybody's call.
            self.deliver(now, id, out);
        }
        for number in settled {
            self.entry_settled(number, out);
        }
        if self.leads() {
            for (_, logged) in self.durable.log.range(self.durable.peer_applied.saturating_add(1)..) {
                if let Decision::Grant(grant) = &logged.entry.decision {
                    self.leading.unapplied.bytes += grant.bytes();
                    self.leading.unapplied.blocks += grant.extents.len() as u64;
                }
            }
            self.reserve();
        }
        out.say(
            Level::Info,
            format!(
                "goes on in epoch {} at entry {} with {} key streams",
                self.durable.epoch,
                self.durable.last,
                self.streams.len()
            ),
        );
    }

    /// The KMS of a stream that this end's settings do not name any more.
    fn gone_kms(&self, id: KeyStreamId) -> Option<String> {
        let state = self.durable.streams.get(&id).filter(|state| !state.closed)?;
        let kms = &state.opened.as_ref()?.kms;
        (!self.settings.local_kms.contains(kms)).then(|| kms.clone())
    }

    fn resume_stream(&mut self, now: Now, id: KeyStreamId, out: &mut Output) {
        let Some(state) = self.durable.streams.get(&id) else { return };
        let mut live = Live::new(&state.qos, state.position, now.boot_ms);
        if state.closed {
            live.stopping = Stopping::Done;
        }
        self.streams.insert(id, live);
        self.begin_pushing(id, out);
        self.watch_stream(now, id);
    }

    /// Boot time at which key committed at `stamp` is to be erased. Over a restart of the operating system only wall time
    /// tells its age; where that has gone back since the latest entry's, which is `before`, nothing does, and the key is taken for old.
    fn expires(&self, stamp: &Stamp, ttl_s: u32, now: Now, before: u64) -> u64 {
        let ttl = u64::from(ttl_s).saturating_mul(1_000);
        if stamp.boot_id == self.settings.boot_id {
            return stamp.boot_ms.saturating_add(ttl);
        }
        let age = if now.wall_ms < before { ttl } else { now.wall_ms.saturating_sub(stamp.wall_ms) };
        now.boot_ms.saturating_add(ttl.saturating_sub(age))
    }

    /// The latest wall time of an entry that was committed before the operating system started.
    fn wall_before(&self) -> u64 {
        let stamps = self.durable.log.values().map(|logged| &logged.stamp);
        stamps.filter(|s| s.boot_id != self.settings.boot_id).map(|s| s.wall_ms).max().unwrap_or(0)
    }

    /// The leader holds what the follower's greeting says against its own ledger.
    pub(super) fn judge_follower(&mut self, now: Now, hello: &Hello, out: &mut Output) {
        let durable = &self.durable;
        let applied = durable.peer_applied;
        let same_story = hello.epoch == durable.epoch
            && if hello.last == applied {
                hello.hash == durable.peer_hash
            } else {
                hello.last > applied
                    && durable.log.get(&hello.last).is_some_and(|logged| logged.entry.hash == hello.hash)
            };
        if !same_story && (hello.epoch >= durable.epoch || self.anything_granted()) {
            out.say(
                Level::Warn,
                format!(
                    "the two ledgers differ: this end is in epoch {} where the follower is known to have applied entry \
                     {applied}, the follower says epoch {} and entry {}; a new epoch begins",
                    durable.epoch, hello.epoch, hello.last
                ),
            );
            let epoch = self.durable.epoch.max(hello.epoch).saturating_add(1);
            self.begin_epoch(now, epoch, out);
        }
        self.leading.log_due = true;
        let all: Vec<KeyStreamId> = self.streams.keys().copied().collect();
        self.leading.lines.extend(all);
    }

    /// Whether anything of this epoch may have been delivered. Until then it can be taken over from its beginning, also by a
    /// follower that did join, unheard, and has lost its ledger since.
    fn anything_granted(&self) -> bool {
        let granted = |e: &Entry| matches!(e.decision, Decision::Grant(_));
        self.durable.peer_applied > 0 || self.durable.log.values().any(|logged| granted(&logged.entry))
    }

    /// The leader begins an epoch. Its first entry burns everything that may have been used before.
    fn begin_epoch(&mut self, now: Now, epoch: u64, out: &mut Output) {
        let card = self.settings.card;
        let hash = Digest::of_epoch(epoch, card.serial, card.peer_serial);
        self.clear_epoch(now, epoch, hash, out);
        self.append(now, Decision::Burn { to: self.durable.mark }, out);
    }

    /// Every key at this end is destroyed. That is as if the ledger were lost: a new epoch begins, which the other end learns
    /// of in the handshake.
    pub(super) fn zeroized(&mut self, now: Now, out: &mut Output) {
        out.say(
            Level::Warn,
            format!(
                "module {} destroys every key: everything that card {} has announced, up to mark {}, is burnt, and a new \
                 epoch begins",
                self.settings.module,
                self.settings.card.serial,
                self.holdings.above_all()
            ),
        );
        self.hang_up("every key at this end is destroyed; getting in step anew".into(), out);
        match self.settings.role {
            Role::Leader => {
                let epoch = self.durable.epoch.saturating_add(1).max(now.wall_ms);
                self.begin_epoch(now, epoch, out);
            }
            Role::Follower => self.clear_epoch(now, 0, Digest::NONE, out),
        }
        out.actions.push(Action::Zeroized);
    }

    /// The follower takes over an epoch that the leader has begun.
    pub(super) fn take_over_epoch(&mut self, now: Now, epoch: u64, out: &mut Output) {
        let card = self.settings.card;
        let hash = Digest::of_epoch(epoch, card.peer_serial, card.serial);
        out.say(Level::Info, format!("takes over epoch {epoch} from the leader"));
        self.clear_epoch(now, epoch, hash, out);
        self.look_at_waiting_calls(now, out);
    }

    /// Ends all streams and burns everything that this end's card is known to have announced.
    fn clear_epoch(&mut self, now: Now, epoch: u64, hash: Digest, out: &mut Output) {
        self.counters.epochs = self.counters.epochs.saturating_add(1);
        let ids = self.stream_ids();
        for id in ids {
            self.settle_all(now, id, LossCause::Epoch, out);
            self.notice(id, Status::PeerNotConnected, out);
            self.forbid(id, out);
            self.drop_stream(id, out);
        }
        let mark = self.holdings.above_all();
        self.write(Record::Epoch { epoch, hash, mark }, out);
        self.holdings.forgive(out);
        self.holdings.raise(mark, 0, out);
        self.leading.epoch_ended();
        self.following.epoch_ended();
        self.unwritten.clear();
        self.unwritten_bytes = 0;
        self.awaiting.clear();
        self.timers.clear(Timer::Progress);
        self.timers.clear(Timer::Resend);
    }

    /// Forgets a stream of this run and ends its pusher.
    pub(super) fn drop_stream(&mut self, id: KeyStreamId, out: &mut Output) {
        self.timers.clear_stream(id);
        self.unwritten.remove(&id);
        self.leading.scheduler.remove(id);
        self.leading.skips.remove(&id);
        self.leading.lines.remove(&id);
        self.following.lines.remove(&id);
        // A stop that was asked for before is still to be confirmed, and calls that close the stream wait for that.
        if let Some(live) = self.streams.remove(&id)
            && live.begun
            && live.stopping == Stopping::No
        {
            out.actions.push(Action::Stop { stream: id });
        }
    }

    /// The ID is never used again. When the table is full, unknown predefined IDs are refused instead.
    pub(super) fn forbid(&mut self, id: KeyStreamId, out: &mut Output) {
        if self.durable.forbidden.len() < self.settings.most_closed_ids {
            self.write(Record::Forbidden { stream: id }, out);
        }
    }
}

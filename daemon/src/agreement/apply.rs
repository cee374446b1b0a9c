//! What an entry does at this end, leader or follower.

use super::core::Core;
use super::entry::{Decision, Entry, Grant};
use super::event::{Level, LossCause, Now, Output};
use super::record::Record;
use super::stream::{Live, OpenGrant};
use super::timers::Timer;
use crate::interface::{KeyStreamId, Status};

impl Core {
    /// Applies the next entry, durably.
    pub(super) fn apply(&mut self, now: Now, entry: Entry, out: &mut Output) {
        let number = entry.number;
        let stamp = self.stamp(now);
        let skipped_from = match &entry.decision {
            Decision::Skip { stream, .. } => self.durable.streams.get(stream).map(|s| s.next),
            _ => None,
        };
        if let Decision::End { stream } = &entry.decision {
            self.ended(now, *stream, out);
        }
        self.write(Record::Entry { entry: entry.clone(), stamp }, out);
        match &entry.decision {
            Decision::Open(open) => {
                self.streams.insert(open.stream, Live::new(&open.qos, 0, now.boot_ms));
                self.watch_stream(now, open.stream);
                out.say(
                    Level::Info,
                    format!("key stream {} is registered, opened first at the {}", open.stream, open.opener),
                );
                if !self.leads() && self.durable.forbidden.contains(&open.stream) {
                    // A leader that has lost its ledger does not know that the ID was used. It gets no key here.
                    self.close_here(now, open.stream, out);
                }
            }
            Decision::Grant(grant) => {
                if self.grant_applied(now, number, grant, out) {
                    return;
                }
            }
            Decision::Skip { stream, to } => {
                if let (Some(live), Some(from)) = (self.streams.get_mut(stream), skipped_from)
                    && live.skipped(from, *to)
                {
                    self.unwritten_progress(now, *stream);
                    self.watch_for_dryness(now, *stream);
                    // To the leader, what was skipped would else be on its way to this end's KMS.
                    self.report_stream(*stream);
                }
            }
            Decision::Burn { to } => {
                self.holdings.raise(*to, 0, out);
                self.holdings_changed();
            }
            Decision::End { stream } => self.forbid(*stream, out),
        }
        self.entry_settled(number, out);
    }

    /// Returns whether the grant is owed to this end's KMS.
    fn grant_applied(&mut self, now: Now, number: u64, grant: &Grant, out: &mut Output) -> bool {
        self.counters.grants = self.counters.grants.saturating_add(1);
        self.counters.granted_bytes = self.counters.granted_bytes.saturating_add(grant.bytes());
        self.write_progress_along(out);
        let Some(state) = self.durable.streams.get(&grant.stream) else { return false };
        let owed = !state.closed;
        let ttl_ms = u64::from(state.qos.ttl).saturating_mul(1_000);
        if owed {
            self.holdings.owe(grant.extents.iter().map(|e| e.block));
        }
        self.holdings.raise(grant.mark, grant.bytes(), out);
        self.holdings_changed();
        if !owed {
            // The leader had not heard of the close.
            self.lose(now, grant.stream, grant.end(), LossCause::Closed, out);
            return false;
        }
        let Some(live) = self.streams.get_mut(&grant.stream) else { return false };
        live.granted(OpenGrant {
            number,
            first: grant.first,
            end: grant.end(),
            expires_ms: now.boot_ms.saturating_add(ttl_ms),
        });
        live.granted_ms = now.boot_ms;
        live.fed_ms = now.boot_ms;
        live.told.dry = false;
        self.watch_for_dryness(now, grant.stream);
        self.arm_expiry(grant.stream);
        self.deliver(now, grant.stream, out);
        true
    }

    /// The stream is over: what is left of it at this end goes.
    fn ended(&mut self, now: Now, stream: KeyStreamId, out: &mut Output) {
        let closed = self.durable.streams.get(&stream).is_some_and(|s| s.closed);
        if !closed {
            self.notice_peer_closed(stream, out);
        }
        self.settle_all(now, stream, LossCause::Closed, out);
        self.drop_stream(stream, out);
        if self.leads() {
            self.reserve();
        }
    }

    /// Everything granted to `stream` and not accepted is given up, and counted as lost for `cause`.
    pub(super) fn settle_all(&mut self, now: Now, stream: KeyStreamId, cause: LossCause, out: &mut Output) {
        let next = self.durable.streams.get(&stream).map_or(0, |s| s.next);
        self.lose(now, stream, next, cause, out);
        self.write_progress_of(stream, out);
        self.timers.clear(Timer::Expire(stream));
        self.unwritten.remove(&stream);
        let Some(live) = self.streams.get_mut(&stream) else { return };
        live.undelivered.clear();
        let grants = std::mem::take(&mut live.grants);
        for grant in grants {
            self.settle_grant(grant.number, out);
        }
    }

    /// This end owes nothing of the grant any more, durably.
    pub(super) fn settle_grant(&mut self, number: u64, out: &mut Output) {
        if let Some(logged) = self.durable.log.get(&number)
            && let Decision::Grant(grant) = &logged.entry.decision
        {
            self.holdings.settle(grant.extents.iter().map(|e| e.block), out);
        }
        self.entry_settled(number, out);
    }

    /// Nobody at this end needs the entry: it goes as soon as the follower has it as well.
    pub(super) fn entry_settled(&mut self, number: u64, out: &mut Output) {
        if self.leads() && number > self.durable.peer_applied {
            self.leading.settled.insert(number);
        } else {
            self.write(Record::Trimmed { number }, out);
        }
    }

    /// What this end holds has changed: the leader may grant, the follower may report.
    pub(super) fn holdings_changed(&mut self) {
        if self.leads() {
            self.leading.granting = true;
        } else {
            self.report_soon();
        }
    }

    /// Tells the KMS, once, that the other end is closed or gone.
    pub(super) fn notice_peer_closed(&mut self, stream: KeyStreamId, out: &mut Output) {
        let Some(live) = self.streams.get_mut(&stream) else { return };
        if !std::mem::replace(&mut live.told.peer_closed, true) {
            self.notice(stream, Status::PeerNotConnected, out);
        }
    }
}

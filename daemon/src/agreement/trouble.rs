//! What may happen to a stream over its life without anybody's call: notices, and ends that nobody asked for.

use super::core::{Core, Link};
use super::entry::Decision;
use super::event::{Action, Level, LossCause, Now, Output};
use super::timers::Timer;
use crate::interface::{KeyStreamId, Status};

/// Streams are looked at for whether they have run dry no more often, however short their timeout.
const SHORTEST_LOOK_MS: u64 = 50;

/// When a stream is looked at again at the soonest: what has just made room for key is given some time to bring it.
fn soonest_look(now: Now, timeout_ms: u64) -> u64 {
    now.boot_ms.saturating_add(1).saturating_add(timeout_ms / 8)
}

impl Core {
    /// Makes the pusher of a stream that this end's KMS has opened.
    pub(super) fn begin_pushing(&mut self, stream: KeyStreamId, out: &mut Output) {
        let (Some(state), Some(live)) = (self.durable.streams.get(&stream), self.streams.get_mut(&stream))
        else {
            return;
        };
        let Some(opened) = &state.opened else { return };
        let known = self.settings.local_kms.contains(&opened.kms);
        if state.closed || !known || std::mem::replace(&mut live.begun, true) {
            return;
        }
        out.actions.push(Action::Begin {
            stream,
            kms: opened.kms.clone(),
            chunk_size: state.qos.key_chunk_size,
            position: live.position,
        });
    }

    /// Sets the times of a stream that has begun, or goes on.
    pub(super) fn watch_stream(&mut self, now: Now, stream: KeyStreamId) {
        let Some(state) = self.durable.streams.get(&stream) else { return };
        let (wanted, timeout) = (state.wanted && !state.closed, u64::from(state.qos.timeout));
        if self.leads() {
            let at = now.boot_ms.saturating_add(self.settings.half_open_expiry_ms);
            self.timers.set(Timer::HalfOpen(stream), at);
        }
        if wanted {
            self.timers.set(Timer::Dry(stream), now.boot_ms.saturating_add(timeout));
        }
    }

    /// Tells the KMS of trouble, where it has opened the stream and listens.
    pub(super) fn notice(&mut self, stream: KeyStreamId, status: Status, out: &mut Output) {
        let (Some(state), Some(live)) = (self.durable.streams.get(&stream), self.streams.get(&stream)) else {
            return;
        };
        if self.settings.notices && live.begun && !state.closed {
            out.actions.push(Action::Notice { stream, status, position: live.position });
        }
    }

    pub(super) fn link_changed(&mut self, now: Now, link: Link, out: &mut Output) {
        let before = std::mem::replace(&mut self.link, link);
        if before.state != link.state {
            out.say(
                Level::Info,
                format!("QKD link: {:?}, {} bit/s of secret key", link.state, link.rate_bps),
            );
        }
        if before.distilling() != link.distilling() {
            let mut wanted: Vec<KeyStreamId> =
                self.durable.streams.iter().filter(|(_, s)| s.wanted).map(|(id, _)| *id).collect();
            wanted.sort_unstable();
            for stream in wanted {
                let Some(live) = self.streams.get_mut(&stream) else { continue };
                let told = std::mem::replace(&mut live.told.link_down, !link.distilling());
                if link.distilling() {
                    live.fed_ms = now.boot_ms;
                    self.watch_for_dryness(now, stream);
                } else if !told {
                    self.notice(stream, Status::NoQkdConnection, out);
                }
            }
        }
        if before.state != link.state || before.rate_bps != link.rate_bps {
            self.report_soon();
        }
    }

    /// The stream's timeout has passed: tells the KMS if nothing came in that time and nothing is left. A stream that has been
    /// told of, or whose KMS has yet to take what it has, is not looked at again before something of it changes.
    pub(super) fn perhaps_dry(&mut self, now: Now, stream: KeyStreamId, out: &mut Output) {
        let (Some(state), Some(live)) = (self.durable.streams.get(&stream), self.streams.get_mut(&stream))
        else {
            return;
        };
        if state.closed || !state.wanted || live.peer.closed {
            return;
        }
        let timeout = u64::from(state.qos.timeout).max(SHORTEST_LOOK_MS);
        let dry_at = live.fed_ms.saturating_add(timeout);
        if now.boot_ms < dry_at {
            self.timers.set(Timer::Dry(stream), dry_at.max(soonest_look(now, timeout)));
            return;
        }
        // One notice for one cause: a link that is down has been told of.
        let empty = live.position >= state.next;
        if empty && !live.told.link_down && !std::mem::replace(&mut live.told.dry, true) {
            self.notice(stream, Status::InsufficientKey, out);
        }
    }

    /// Something of the stream has changed: it may run dry from now on, unless its KMS has been told already.
    pub(super) fn watch_for_dryness(&mut self, now: Now, stream: KeyStreamId) {
        let timer = Timer::Dry(stream);
        if self.timers.is_set(timer) {
            return;
        }
        let (Some(state), Some(live)) = (self.durable.streams.get(&stream), self.streams.get(&stream)) else {
            return;
        };
        let told = live.told.dry || live.told.link_down;
        if state.wanted && !state.closed && !live.peer.closed && !told {
            let timeout = u64::from(state.qos.timeout).max(SHORTEST_LOOK_MS);
            let dry_at = live.fed_ms.saturating_add(timeout);
            self.timers.set(timer, dry_at.max(soonest_look(now, timeout)));
        }
    }

    /// The other end is closed. What was granted is kept until this end closes, or a time to live is over.
    pub(super) fn peer_has_closed(&mut self, now: Now, stream: KeyStreamId, out: &mut Output) {
        let Some(state) = self.durable.streams.get(&stream) else { return };
        let ttl = u64::from(state.qos.ttl.min(self.settings.greatest_ttl_s)).saturating_mul(1_000);
        if let Some(live) = self.streams.get_mut(&stream) {
            live.peer.closed = true;
        }
        out.say(Level::Info, format!("key stream {stream} is closed at the other end"));
        self.notice_peer_closed(stream, out);
        self.timers.set(Timer::Linger(stream), now.boot_ms.saturating_add(ttl));
        self.timers.clear(Timer::Dry(stream));
        if self.leads() {
            self.leading.scheduler.remove(stream);
            self.reserve();
        }
    }

    /// The other end has closed long ago and this end's KMS has not: it has had its time.
    pub(super) fn linger_over(&mut self, now: Now, stream: KeyStreamId, out: &mut Output) {
        if self.durable.streams.get(&stream).is_some_and(|s| !s.closed) {
            out.say(
                Level::Info,
                format!("key stream {stream} ends: the other end closed it a time to live ago"),
            );
            // This end's KMS has not closed it and is told.
            let next = self.durable.streams.get(&stream).map_or(0, |s| s.next);
            self.lose(now, stream, next, LossCause::Expired, out);
            self.close_here(now, stream, out);
        }
    }

    /// The leader ends a stream that only one KMS has opened, or that nobody asked for key.
    pub(super) fn half_open_over(&mut self, now: Now, stream: KeyStreamId, out: &mut Output) {
        let (Some(state), Some(live)) = (self.durable.streams.get(&stream), self.streams.get(&stream)) else {
            return;
        };
        let half_open = state.opened.is_none() || !state.peer_opened;
        let unwanted = !state.wanted && !live.peer.wanted && state.next == 0;
        // Before the follower has reported, whether its KMS has asked for key is not known.
        let known = half_open || self.peer.in_step;
        if (half_open || unwanted) && known {
            let why = if half_open { "only one KMS has opened it" } else { "no KMS has asked it for key" };
            out.say(Level::Info, format!("key stream {stream} ends: {why} in time"));
            self.append(now, Decision::End { stream }, out);
        } else if unwanted {
            let at = now.boot_ms.saturating_add(self.settings.half_open_expiry_ms);
            self.timers.set(Timer::HalfOpen(stream), at);
        }
    }
}

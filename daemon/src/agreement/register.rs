//! The leader's registration of key streams, for the KMSs of both ends.

use super::check::excerpt;
use super::core::Core;
use super::durable::StreamState;
use super::entry::{Decision, OpenDecision};
use super::event::{Now, Output};
use super::message::{Message, OpenReply, OpenRequest};
use super::names::Mark;
use super::qos::{NotMet, beyond_free, resolve};
use super::record::{Opened, Record};
use super::settings::Role;
use crate::calls::Answer;
use crate::interface::{KeyStreamId, Qos, QosRequest, Status};

/// An open at either end, as the leader sees it.
#[derive(Debug)]
pub(super) struct Opening<'a> {
    /// At which end.
    pub(super) end: Role,
    pub(super) stream: KeyStreamId,
    /// The module has chosen the ID itself.
    pub(super) chosen: bool,
    /// The KMS that opens.
    pub(super) kms: &'a str,
    pub(super) source: &'a str,
    pub(super) destination: &'a str,
    pub(super) qos: &'a QosRequest,
}

/// Why an open is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: Status,
    pub(super) detail: String,
    pub(super) counter_proposal: Option<Qos>,
}

impl Refusal {
    pub(super) fn new(status: Status, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), counter_proposal: None }
    }
}

impl From<NotMet> for Refusal {
    fn from(unmet: NotMet) -> Self {
        Self { status: Status::QosNotMet, detail: unmet.detail, counter_proposal: Some(unmet.proposal) }
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        Self::Refused {
            status: refusal.status,
            detail: refusal.detail,
            counter_proposal: refusal.counter_proposal,
        }
    }
}

/// Log entries beyond which, while the follower does not apply any, nothing more is opened.
const UNHEARD_ENTRIES_MAX: u64 = 8_192;
/// A chunk may take at most this part of the room for key.
const CHUNKS_IN_ROOM: u64 = 8;

impl Core {
    /// Registers a stream, or the second KMS with it. `Ok`: `Successful` where the KMS at the other end of `opening` has
    /// opened as well, `PeerNotConnected` where not.
    pub(super) fn register(
        &mut self,
        now: Now,
        opening: &Opening<'_>,
        out: &mut Output,
    ) -> Result<Status, Refusal> {
        let stream = opening.stream;
        if let Some(state) = self.durable.streams.get(&stream) {
            let other = |text: &str| {
                if text == state.source { state.destination.clone() } else { state.source.clone() }
            };
            let same_pair = (opening.source == state.source && opening.destination == state.destination)
                || (opening.source == state.destination && opening.destination == state.source);
            let in_use = |why: &str| {
                Err(Refusal::new(Status::KeyStreamIdInUse, format!("key stream {stream} is in use {why}")))
            };
            if !same_pair {
                return in_use("between other KMSs");
            }
            let ended = state.closed || self.streams.get(&stream).is_some_and(|l| l.peer.closed);
            if ended {
                return in_use("and is being closed");
            }
            let local = self.settings.local_kms.contains(&other(opening.kms));
            if opening.end == Role::Follower && !local {
                return in_use("by the KMS at the other end");
            }
            let (mine, theirs) = (state.opened.clone(), state.peer_opened);
            return match opening.end {
                Role::Leader => match mine {
                    Some(before) if before.kms != opening.kms => in_use("by another KMS"),
                    Some(before) if before.qos != *opening.qos => in_use("with other parameters"),
                    Some(_) => Ok(status(theirs)),
                    None => {
                        self.admit_second(opening)?;
                        self.open_here(stream, opening.kms, opening.qos, out);
                        self.reserve();
                        Ok(status(theirs))
                    }
                },
                Role::Follower => {
                    if !theirs {
                        self.admit_second(opening)?;
                        self.peer_has_opened(stream, out);
                        self.place(now, stream);
                    }
                    Ok(status(mine.is_some()))
                }
            };
        }
        self.may_open(opening)?;
        let qos = resolve(opening.qos, &self.settings, self.largest_chunk(), self.free_bps())?;
        let decision = OpenDecision {
            stream,
            source: opening.source.to_owned(),
            destination: opening.destination.to_owned(),
            qos,
            opener: opening.end,
        };
        self.append(now, Decision::Open(decision), out);
        if opening.end == Role::Leader {
            self.open_here(stream, opening.kms, opening.qos, out);
        }
        Ok(Status::PeerNotConnected)
    }

    /// This end's KMS has opened the stream: it gets its pusher.
    pub(super) fn open_here(&mut self, stream: KeyStreamId, kms: &str, qos: &QosRequest, out: &mut Output) {
        let opened = Opened { kms: kms.to_owned(), qos: qos.clone() };
        self.write(Record::Opened { stream, opened }, out);
        self.begin_pushing(stream, out);
        if self.leads() {
            self.leading.lines.insert(stream);
        } else {
            self.report_stream(stream);
        }
    }

    fn may_open(&self, opening: &Opening<'_>) -> Result<(), Refusal> {
        let stream = opening.stream;
        let durable = &self.durable;
        if durable.forbidden.contains(&stream) {
            return Err(Refusal::new(
                Status::KeyStreamIdInUse,
                format!("key stream {stream} was closed; its ID is never used again"),
            ));
        }
        if !opening.chosen && durable.forbidden.len() >= self.settings.most_closed_ids {
            return Err(Refusal::new(
                Status::KeyStreamIdInUse,
                "so many key streams were closed that predefined IDs can no longer be told from used ones; \
                 open with a null ID",
            ));
        }
        let no_room = |detail: String| Err(Refusal::new(Status::NoQkdConnection, detail));
        let alone = opening.end == Role::Leader && durable.peer_applied == 0;
        let new_pair = self.settings.card.cell == 0 && durable.mark == Mark::ZERO;
        if !opening.chosen && alone && !new_pair {
            // This end may have lost the memory of used IDs; the other end's, which has not been heard yet, then refuses them.
            return no_room(
                "predefined IDs can be told from used ones only with the other module, which has not joined this epoch \
                 yet; open with a null ID, or later"
                    .to_owned(),
            );
        }
        if !self.link.distilling() {
            return no_room(format!("the QKD link is {:?}", self.link.state));
        }
        if let Some((_, false)) = self.leading.peer_link {
            return no_room("the card at the other end has no QKD link".to_owned());
        }
        if durable.streams.len() >= self.settings.most_streams {
            return no_room(format!("{} key streams are open, as many as may be", durable.streams.len()));
        }
        self.has_room_for_one_more(opening)?;
        // Those that another KMS has opened with this one are the other's, or it could take this one's room away.
        let half_open = self
            .streams_opened_by(opening.end, opening.kms)
            .filter(|s| !(s.opened.is_some() && s.peer_opened))
            .count();
        if half_open >= self.settings.most_half_open_per_kms {
            return no_room(format!(
                "{half_open} key streams of {} are opened at one end only, as many as may be",
                excerpt(opening.kms)
            ));
        }
        if self.in_flight() >= UNHEARD_ENTRIES_MAX {
            return no_room("the module at the other end has not taken earlier key streams yet".to_owned());
        }
        Ok(())
    }

    /// Key streams that the KMS at `end` has opened.
    fn streams_opened_by(&self, end: Role, kms: &str) -> impl Iterator<Item = &StreamState> {
        self.durable.streams.values().filter(move |state| match end {
            Role::Leader => state.opened.as_ref().is_some_and(|opened| opened.kms == kms),
            Role::Follower => state.peer_opened && (state.source == kms || state.destination == kms),
        })
    }

    fn has_room_for_one_more(&self, opening: &Opening<'_>) -> Result<(), Refusal> {
        let open = self.streams_opened_by(opening.end, opening.kms).count();
        if open < self.settings.most_streams_per_kms {
            return Ok(());
        }
        let detail = format!("{open} key streams of {} are open, as many as may be", excerpt(opening.kms));
        Err(Refusal::new(Status::NoQkdConnection, detail))
    }

    /// The second KMS opens: from now on the stream's rate is reserved, if it is still to be had.
    fn admit_second(&self, opening: &Opening<'_>) -> Result<(), Refusal> {
        self.has_room_for_one_more(opening)?;
        let stream = &opening.stream;
        let Some(state) = self.durable.streams.get(stream) else { return Ok(()) };
        let mut proposal = state.qos.clone();
        match beyond_free(&mut proposal, self.free_bps()) {
            None => Ok(()),
            Some(detail) => Err(NotMet { detail, proposal }.into()),
        }
    }

    /// Rate that is not reserved, of the smaller of both ends' secret key rates.
    fn free_bps(&self) -> Option<u64> {
        let rate = match self.leading.peer_link {
            Some((peer, _)) => self.link.rate_bps.min(peer),
            None => self.link.rate_bps,
        };
        Some(rate.saturating_sub(self.leading.reserved_bps))
    }

    fn largest_chunk(&self) -> u32 {
        let room = self.pin_limit().bytes.saturating_mul(2) / CHUNKS_IN_ROOM;
        u32::try_from(room).unwrap_or(u32::MAX).min(self.settings.largest_chunk_size).max(1)
    }

    /// A KMS at the follower opens.
    pub(super) fn heed_open_request(&mut self, now: Now, request: OpenRequest, out: &mut Output) {
        let OpenRequest { call, stream, chosen, kms, source, destination, qos } = request;
        let other = if kms == source { &destination } else { &source };
        let known = self.peer.kms.contains(&kms)
            && (kms == source || kms == destination)
            && self.settings.local_kms.contains(other);
        let registered = if known {
            let opening = Opening {
                end: Role::Follower,
                stream,
                chosen,
                kms: &kms,
                source: &source,
                destination: &destination,
                qos: &qos,
            };
            self.register(now, &opening, out)
        } else {
            Err(Refusal::new(
                Status::KeyStreamIdInUse,
                format!(
                    "module {} knows no KMS {} that module {} could give the same key",
                    self.settings.module,
                    excerpt(other),
                    "at the other end"
                ),
            ))
        };
        let reply = match registered {
            Ok(status) => OpenReply { call, stream, status, detail: String::new(), counter_proposal: None },
            Err(refusal) => OpenReply {
                call,
                stream,
                status: refusal.status,
                detail: refusal.detail,
                counter_proposal: refusal.counter_proposal,
            },
        };
        self.say_to_peer(now, Message::OpenReply(reply), out);
    }
}

fn status(other_has_opened: bool) -> Status {
    if other_has_opened { Status::Successful } else { Status::PeerNotConnected }
}

//! OPEN_CONNECT at this end. The leader registers at once; the follower asks the leader.

use super::calls::{Waiting, answer};
use super::check::excerpt;
use super::core::Core;
use super::event::{Now, Output};
use super::message::{Message, OpenReply, OpenRequest};
use super::register::{Opening, Refusal};
use super::settings::Role;
use crate::calls::{Answer, Open};
use crate::interface::{KeyStreamId, Status};

impl Core {
    pub(super) fn open(&mut self, now: Now, id: u64, open: Open, fresh: KeyStreamId, out: &mut Output) {
        let chosen = open.stream.is_none();
        let stream = open.stream.unwrap_or(fresh);
        if self.leads() {
            let opening = Opening {
                end: Role::Leader,
                stream,
                chosen,
                kms: &open.kms,
                source: &open.source,
                destination: &open.destination,
                qos: &open.qos,
            };
            let with = match self.register(now, &opening, out) {
                Ok(status) => self.opened_answer(stream, status),
                Err(refusal) => refusal.into(),
            };
            return answer(id, with, out);
        }
        if let Err(refusal) = self.may_ask_leader(stream, &open) {
            return answer(id, refusal.into(), out);
        }
        let timeout = open
            .qos
            .timeout
            .filter(|timeout| *timeout > 0)
            .unwrap_or(self.settings.default_timeout_ms)
            .min(self.settings.greatest_timeout_ms);
        self.wait(now, id, Waiting::Open { open, stream, chosen, registered: None }, timeout);
        self.request_open(now, id, out);
    }

    /// What the follower can say without the leader.
    fn may_ask_leader(&self, stream: KeyStreamId, open: &Open) -> Result<(), Refusal> {
        let in_use =
            |why: &str| Err(Refusal::new(Status::KeyStreamIdInUse, format!("key stream {stream} {why}")));
        if self.durable.forbidden.contains(&stream) {
            return in_use("was closed; its ID is never used again");
        }
        if let Some(state) = self.durable.streams.get(&stream) {
            if state.closed {
                return in_use("is being closed");
            }
            match &state.opened {
                Some(before) if before.kms != open.kms => return in_use("is in use by another KMS"),
                Some(before) if before.qos != open.qos => return in_use("is in use with other parameters"),
                _ => {}
            }
        }
        let asked = self.waiting.values().any(|waiting| {
            matches!(waiting, Waiting::Open { open: other, stream: same, .. }
                if *same == stream && (other.kms != open.kms || other.qos != open.qos))
        });
        if asked {
            return in_use("is being opened by another call");
        }
        if !self.link.distilling() {
            return Err(Refusal::new(
                Status::NoQkdConnection,
                format!("the QKD link is {:?}", self.link.state),
            ));
        }
        Ok(())
    }

    pub(super) fn opened_answer(&self, stream: KeyStreamId, status: Status) -> Answer {
        match self.durable.streams.get(&stream) {
            Some(state) => Answer::Opened {
                stream,
                source: state.source.clone(),
                destination: state.destination.clone(),
                qos: state.qos.clone(),
                status,
            },
            None => Refusal::new(Status::Timeout, "the key stream has ended").into(),
        }
    }

    pub(super) fn request_open(&mut self, now: Now, id: u64, out: &mut Output) {
        if !self.peer.greeted {
            return;
        }
        let Some(Waiting::Open { open, stream, chosen, registered: None }) = self.waiting.get(&id) else {
            return;
        };
        let request = OpenRequest {
            call: id,
            stream: *stream,
            chosen: *chosen,
            kms: open.kms.clone(),
            source: open.source.clone(),
            destination: open.destination.clone(),
            qos: open.qos.clone(),
        };
        self.say_to_peer(now, Message::OpenRequest(request), out);
    }

    /// Asks again: the request or its answer may have been lost, and asking twice does no harm.
    pub(super) fn repeat_open_requests(&mut self, now: Now, out: &mut Output) {
        if self.leads() {
            return;
        }
        let mut ids: Vec<u64> = self.waiting.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            self.request_open(now, id, out);
        }
    }

    pub(super) fn heed_open_reply(&mut self, now: Now, reply: OpenReply, out: &mut Output) {
        // Before the two ends are in step it may speak of a stream of another epoch that has the same ID. It is asked for
        // again.
        if !self.peer.in_step {
            return;
        }
        let id = reply.call;
        let Some(Waiting::Open { stream, registered, .. }) = self.waiting.get_mut(&id) else { return };
        // The number of a call may have been used by a run before.
        if *stream != reply.stream {
            return;
        }
        if matches!(reply.status, Status::Successful | Status::PeerNotConnected) {
            *registered = Some(reply.status);
            self.look_at_waiting_calls(now, out);
        } else {
            let refusal = Refusal {
                status: reply.status,
                detail: excerpt(&reply.detail),
                counter_proposal: reply.counter_proposal,
            };
            self.answer_waiting(id, refusal.into(), out);
        }
    }
}

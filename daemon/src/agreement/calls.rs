//! The calls of this end's KMSs: OPEN_CONNECT, GET_KEY and CLOSE.

use super::check::excerpt;
use super::core::Core;
use super::event::{Action, Level, LossCause, Now, Output, StopHow};
use super::message::{Message, OpenReply, OpenRequest};
use super::names::{Position, position_near};
use super::record::Record;
use super::register::{Opening, Refusal};
use super::settings::Role;
use super::stream::Stopping;
use super::timers::Timer;
use crate::calls::{Answer, Call, GetKey, Open};
use crate::interface::{KeyStreamId, Status};

/// A call that waits for the other end or for push.
#[derive(Debug)]
pub(super) enum Waiting {
    /// OPEN_CONNECT at the follower.
    Open {
        open: Open,
        stream: KeyStreamId,
        chosen: bool,
        /// What the leader said, where it registered the stream.
        registered: Option<Status>,
    },
    /// GET_KEY at the follower, until the leader has heard this report.
    GetKey { get_key: GetKey, serial: Option<u64> },
    /// CLOSE, until push has stopped.
    Close { stream: KeyStreamId },
}

impl Core {
    pub(super) fn call(
        &mut self,
        now: Now,
        id: u64,
        call: Call,
        fresh_stream: KeyStreamId,
        out: &mut Output,
    ) {
        if self.waiting.len() >= self.settings.most_waiting_calls {
            let refusal = Refusal::new(Status::Timeout, "too many calls are waiting");
            return answer(id, refusal.into(), out);
        }
        match call {
            Call::Open(open) => self.open(now, id, open, fresh_stream, out),
            Call::GetKey(get_key) => self.get_key(now, id, get_key, out),
            Call::Close(close) => self.close(now, id, close.stream, out),
        }
    }

    fn wait(&mut self, now: Now, id: u64, waiting: Waiting, timeout_ms: u32) {
        self.waiting.insert(id, waiting);
        self.timers.set(Timer::Call(id), now.boot_ms.saturating_add(u64::from(timeout_ms)));
    }

    /// The connection is gone: what the leader was asked over it must be asked again.
    pub(super) fn forget_questions(&mut self) {
        for waiting in self.waiting.values_mut() {
            if let Waiting::GetKey { serial, .. } = waiting {
                *serial = None;
            }
        }
    }

    fn answer_waiting(&mut self, id: u64, with: Answer, out: &mut Output) {
        self.waiting.remove(&id);
        self.timers.clear(Timer::Call(id));
        answer(id, with, out);
    }

    pub(super) fn call_timed_out(&mut self, id: u64, out: &mut Output) {
        let Some(waiting) = self.waiting.remove(&id) else { return };
        let detail = match waiting {
            Waiting::Open { .. } => "the leading module did not register the key stream in time",
            Waiting::GetKey { .. } => "the other module did not say in time whether its KMS has opened",
            Waiting::Close { .. } => {
                "the key stream is closed, but what was on its way to the KMS was not settled in time"
            }
        };
        answer(id, Refusal::new(Status::Timeout, detail).into(), out);
    }

    fn open(&mut self, now: Now, id: u64, open: Open, fresh: KeyStreamId, out: &mut Output) {
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

    fn opened_answer(&self, stream: KeyStreamId, status: Status) -> Answer {
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

    fn request_open(&mut self, now: Now, id: u64, out: &mut Output) {
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

    /// Something came from the leader: calls that waited for it may be answered.
    pub(super) fn look_at_waiting_calls(&mut self, now: Now, out: &mut Output) {
        if self.waiting.is_empty() || self.leads() {
            return;
        }
        let mut ids: Vec<u64> = self.waiting.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            match self.waiting.get(&id) {
                Some(Waiting::Open { open, stream, registered: Some(status), .. }) => {
                    let (stream, status) = (*stream, *status);
                    let Some(state) = self.durable.streams.get(&stream) else { continue };
                    if state.opened.is_none() {
                        let (kms, qos) = (open.kms.clone(), open.qos.clone());
                        self.open_here(stream, &kms, &qos, out);
                        if status == Status::Successful {
                            self.write(Record::PeerOpened { stream }, out);
                        }
                    }
                    let with = self.opened_answer(stream, status);
                    self.answer_waiting(id, with, out);
                }
                Some(Waiting::GetKey { get_key, serial: Some(serial) }) => {
                    let opened = self.durable.streams.get(&get_key.stream).is_none_or(|s| s.peer_opened);
                    if opened || self.following.heard >= *serial {
                        let get_key = get_key.clone();
                        let with = self.give_key(now, &get_key, out);
                        self.answer_waiting(id, with, out);
                    }
                }
                Some(Waiting::GetKey { get_key, serial: None }) if self.peer.in_step => {
                    let stream = get_key.stream;
                    let asked = self.ask_leader(stream);
                    if let Some(Waiting::GetKey { serial, .. }) = self.waiting.get_mut(&id) {
                        *serial = Some(asked);
                    }
                }
                _ => {}
            }
        }
    }

    fn get_key(&mut self, now: Now, id: u64, get_key: GetKey, out: &mut Output) {
        let unknown = !self.leads()
            && self
                .durable
                .streams
                .get(&get_key.stream)
                .is_some_and(|s| s.opened.is_some() && !s.closed && !s.peer_opened);
        if unknown {
            // Only the leader knows for certain that its KMS has not opened.
            let timeout = self
                .durable
                .streams
                .get(&get_key.stream)
                .map_or(self.settings.default_timeout_ms, |s| s.qos.timeout);
            let serial = self.peer.in_step.then(|| self.ask_leader(get_key.stream));
            return self.wait(now, id, Waiting::GetKey { get_key, serial }, timeout);
        }
        let with = self.give_key(now, &get_key, out);
        answer(id, with, out);
    }

    /// GET_KEY with everything known.
    fn give_key(&mut self, now: Now, get_key: &GetKey, out: &mut Output) -> Answer {
        let stream = get_key.stream;
        match self.wanted_from(get_key) {
            Err(refusal) => refusal.into(),
            Ok(from) => {
                self.want(now, stream, from, out);
                Answer::Done
            }
        }
    }

    /// From which position on key is wanted, where the call can be granted.
    fn wanted_from(&self, get_key: &GetKey) -> Result<Option<Position>, Refusal> {
        let stream = get_key.stream;
        let refuse = |why: &str| {
            Err(Refusal::new(Status::PeerApplicationNotConnected, format!("key stream {stream} {why}")))
        };
        let (Some(state), Some(live)) = (self.durable.streams.get(&stream), self.streams.get(&stream)) else {
            return refuse("is not open");
        };
        if state.opened.is_none() {
            return refuse("was not opened by the KMS at this end");
        }
        if state.closed {
            return refuse("is closed");
        }
        if !state.peer_opened {
            return refuse("was not opened by the KMS at the other end yet");
        }
        if live.peer.closed && !state.wanted {
            return refuse("was closed by the KMS at the other end");
        }
        let Some(index) = get_key.index else { return Ok(None) };
        match position_near(live.position, index).filter(|position| *position >= live.position) {
            Some(position) => Ok(Some(position)),
            None => Err(Refusal::new(
                Status::InsufficientKey,
                format!(
                    "index {index} of key stream {stream} was delivered and wiped; the next position is {}",
                    live.position
                ),
            )),
        }
    }

    /// The KMS wants key from now on, and none below `from`.
    fn want(&mut self, now: Now, stream: KeyStreamId, from: Option<Position>, out: &mut Output) {
        let Some(state) = self.durable.streams.get(&stream) else { return };
        let (wanted, next, wish) = (state.wanted, state.next, state.wish);
        let timeout = u64::from(state.qos.timeout);
        if !wanted {
            self.write(Record::Wanted { stream }, out);
        }
        if let Some(from) = from {
            if from > next && from > wish {
                self.write(Record::Wish { stream, position: from }, out);
            }
            self.lose(now, stream, from.min(next), LossCause::Skipped, out);
        }
        if let Some(live) = self.streams.get_mut(&stream) {
            live.fed_ms = now.boot_ms;
            live.told.dry = false;
            if std::mem::replace(&mut live.suspended, false) {
                out.actions.push(Action::Resume { stream });
            }
        }
        self.timers.set(Timer::Dry(stream), now.boot_ms.saturating_add(timeout));
        if self.leads() {
            self.leading.lines.insert(stream);
            self.place(now, stream);
        } else {
            self.report_stream(stream);
        }
        self.deliver(now, stream, out);
    }

    pub(super) fn suspended(&mut self, stream: KeyStreamId, why: &str, out: &mut Output) {
        if let Some(live) = self.streams.get_mut(&stream) {
            live.suspended = true;
            out.say(
                Level::Warn,
                format!(
                    "key stream {stream} waits for the KMS's next get-key, which refuses its key: {}",
                    excerpt(why)
                ),
            );
        }
    }

    fn close(&mut self, now: Now, id: u64, stream: KeyStreamId, out: &mut Output) {
        let (Some(state), Some(live)) = (self.durable.streams.get(&stream), self.streams.get(&stream)) else {
            let refusal = Refusal::new(
                Status::KeyStreamIdInUse,
                format!("key stream {stream} is not open at this end"),
            );
            return answer(id, refusal.into(), out);
        };
        if state.opened.is_none() {
            let refusal = Refusal::new(
                Status::KeyStreamIdInUse,
                format!("key stream {stream} is not open at this end"),
            );
            return answer(id, refusal.into(), out);
        }
        let timeout = state.qos.timeout;
        if live.stopping == Stopping::Done {
            return answer(id, Answer::Done, out);
        }
        self.wait(now, id, Waiting::Close { stream }, timeout);
        self.close_here(now, stream, StopHow::Now, out);
    }

    /// Closes this end: durably, and with sending stopped before anything else.
    pub(super) fn close_here(&mut self, now: Now, stream: KeyStreamId, how: StopHow, out: &mut Output) {
        let Some(state) = self.durable.streams.get(&stream) else { return };
        if !state.closed {
            self.write(Record::Closed { stream }, out);
            out.say(Level::Info, format!("key stream {stream} is closed at this end"));
            self.settle_all(stream, out);
        }
        if let Some(live) = self.streams.get_mut(&stream)
            && live.stopping == Stopping::No
        {
            live.stopping = if live.begun { Stopping::Asked } else { Stopping::Done };
            if live.begun {
                out.actions.push(Action::Stop { stream, how });
            }
        }
        self.timers.clear(Timer::Dry(stream));
        if self.leads() {
            self.leading.lines.insert(stream);
            self.leading.scheduler.remove(stream);
            self.reserve();
            self.end_if_both_closed(now, stream, out);
        } else {
            self.report_stream(stream);
        }
    }

    pub(super) fn stopped(&mut self, stream: KeyStreamId, out: &mut Output) {
        if let Some(live) = self.streams.get_mut(&stream) {
            live.stopping = Stopping::Done;
        }
        let mut ids: Vec<u64> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| matches!(waiting, Waiting::Close { stream: s } if *s == stream))
            .map(|(id, _)| *id)
            .collect();
        ids.sort_unstable();
        for id in ids {
            self.answer_waiting(id, Answer::Done, out);
        }
    }
}

fn answer(call: u64, answer: Answer, out: &mut Output) {
    out.actions.push(Action::Answer { call, answer });
}

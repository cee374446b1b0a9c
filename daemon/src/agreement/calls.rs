//! The calls of this end's KMSs: which part of the core answers them, and those that wait for somebody else first.

use super::check::{TEXT_MAX, excerpt};
use super::core::Core;
use super::event::{Action, Now, Output};
use super::record::Record;
use super::register::Refusal;
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
        if let Some(kms) = self.caller(&call) {
            let waiting = self.waiting.values().filter(|waiting| self.waits_for(waiting, kms)).count();
            if waiting >= self.settings.most_waiting_calls_per_kms {
                let detail = format!("{waiting} calls of {} are waiting, as many as may", excerpt(kms));
                return answer(id, Refusal::new(Status::Timeout, detail).into(), out);
            }
        }
        match call {
            Call::Open(mut open) => {
                // Always taken as application/json: what was asked for makes no difference, here or at the other end.
                open.qos.metadata_mimetype = None;
                let sayable = |text: &String| text.len() <= TEXT_MAX && !text.contains(char::is_control);
                if ![&open.kms, &open.source, &open.destination].into_iter().all(sayable) {
                    let detail = format!("a KMS URI has at most {TEXT_MAX} octets and no control characters");
                    return answer(id, Refusal::new(Status::KeyStreamIdInUse, detail).into(), out);
                }
                self.open(now, id, open, fresh_stream, out);
            }
            Call::GetKey(get_key) => self.get_key(now, id, get_key, out),
            Call::Close(close) => self.close(now, id, &close, out),
        }
    }

    /// Whether a key stream is this KMS's; where nobody knows who calls, each is. Only a KMS that it is may learn that it is
    /// there.
    pub(super) fn is_of(&self, stream: KeyStreamId, kms: Option<&String>) -> bool {
        let (Some(kms), Some(state)) = (kms, self.durable.streams.get(&stream)) else { return true };
        match &state.opened {
            Some(opened) => opened.kms == *kms,
            None => state.source == *kms || state.destination == *kms,
        }
    }

    /// The KMS that calls, where a stream or the call itself tells.
    fn caller<'a>(&'a self, call: &'a Call) -> Option<&'a str> {
        match call {
            Call::Open(open) => Some(&open.kms),
            Call::GetKey(get_key) => get_key.kms.as_deref().or_else(|| self.opener(&get_key.stream)),
            Call::Close(close) => close.kms.as_deref().or_else(|| self.opener(&close.stream)),
        }
    }

    fn opener(&self, stream: &KeyStreamId) -> Option<&str> {
        Some(&self.durable.streams.get(stream)?.opened.as_ref()?.kms)
    }

    fn waits_for(&self, waiting: &Waiting, kms: &str) -> bool {
        match waiting {
            Waiting::Open { open, .. } => open.kms == kms,
            Waiting::GetKey { get_key, .. } => self.opener(&get_key.stream) == Some(kms),
            Waiting::Close { stream } => self.opener(stream) == Some(kms),
        }
    }

    pub(super) fn wait(&mut self, now: Now, id: u64, waiting: Waiting, timeout_ms: u32) {
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

    pub(super) fn answer_waiting(&mut self, id: u64, with: Answer, out: &mut Output) {
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
                    if state.closed {
                        let detail = format!("key stream {stream} was closed; its ID is never used again");
                        let refusal = Refusal::new(Status::KeyStreamIdInUse, detail);
                        self.answer_waiting(id, refusal.into(), out);
                        continue;
                    }
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
}

pub(super) fn answer(call: u64, answer: Answer, out: &mut Output) {
    out.actions.push(Action::Answer { call, answer });
}

//! GET_KEY at this end.

use super::calls::{Waiting, answer};
use super::check::excerpt;
use super::core::Core;
use super::event::{Action, Level, LossCause, Now, Output};
use super::names::{Position, position_limit, position_near};
use super::record::Record;
use super::register::Refusal;
use super::timers::Timer;
use crate::calls::{Answer, GetKey};
use crate::interface::{KeyStreamId, Status};

impl Core {
    pub(super) fn get_key(&mut self, now: Now, id: u64, get_key: GetKey, out: &mut Output) {
        let unknown = !self.leads()
            && self
                .durable
                .streams
                .get(&get_key.stream)
                .is_some_and(|s| s.opened.is_some() && !s.closed && !s.peer_opened)
            && self.is_of(get_key.stream, get_key.kms.as_ref());
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
    pub(super) fn give_key(&mut self, now: Now, get_key: &GetKey, out: &mut Output) -> Answer {
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
        if !self.is_of(stream, get_key.kms.as_ref()) {
            return refuse("is not open");
        }
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
        let limit = position_limit(state.qos.key_chunk_size);
        match position_near(live.position, index).filter(|position| *position >= live.position) {
            Some(position) if position < limit => Ok(Some(position)),
            Some(position) => Err(Refusal::new(
                Status::InsufficientKey,
                format!("position {position} is beyond the {limit} chunks that key stream {stream} can have"),
            )),
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
}

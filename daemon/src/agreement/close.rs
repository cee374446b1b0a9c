//! CLOSE at this end, and the confirmation that sending has stopped.

use super::calls::{Waiting, answer};
use super::core::Core;
use super::event::{Action, Level, LossCause, Now, Output};
use super::record::Record;
use super::register::Refusal;
use super::stream::Stopping;
use super::timers::Timer;
use crate::calls::{Answer, Close};
use crate::interface::{KeyStreamId, Status};

impl Core {
    pub(super) fn close(&mut self, now: Now, id: u64, close: &Close, out: &mut Output) {
        let stream = close.stream;
        let is_its = self.is_of(stream, close.kms.as_ref());
        let at_this_end = self.durable.streams.get(&stream).filter(|state| state.opened.is_some() && is_its);
        let (Some(state), Some(live)) = (at_this_end, self.streams.get(&stream)) else {
            let detail = format!("key stream {stream} is not open at this end");
            return answer(id, Refusal::new(Status::KeyStreamIdInUse, detail).into(), out);
        };
        let timeout = state.qos.timeout;
        if live.stopping == Stopping::Done {
            return answer(id, Answer::Done, out);
        }
        self.wait(now, id, Waiting::Close { stream }, timeout);
        self.close_here(now, stream, out);
    }

    /// Closes this end: durably, and with sending stopped before anything else.
    pub(super) fn close_here(&mut self, now: Now, stream: KeyStreamId, out: &mut Output) {
        let Some(state) = self.durable.streams.get(&stream) else { return };
        if !state.closed {
            out.say(Level::Info, format!("key stream {stream} is closed at this end"));
            self.settle_all(now, stream, LossCause::Closed, out);
            self.write(Record::Closed { stream }, out);
        }
        if let Some(live) = self.streams.get_mut(&stream)
            && live.stopping == Stopping::No
        {
            live.stopping = if live.begun { Stopping::Asked } else { Stopping::Done };
            if live.begun {
                out.actions.push(Action::Stop { stream });
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

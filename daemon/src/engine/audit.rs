//! What of the engine's life goes into the audit record.

use std::collections::{HashMap, HashSet};

use tokio::time::{Duration, Instant};

use crate::agreement::Action;
use crate::audit::{Event, What, Who};
use crate::calls::{Answer, Call};
use crate::interface::KeyStreamId;

/// Refusals and other things that somebody else can bring about at will are recorded one by one only so often ...
const ONE_BY_ONE: u64 = 60;
/// ... within this time; the others are counted.
const WITHIN: Duration = Duration::from_secs(60);

/// A call that waits for its answer.
#[derive(Debug)]
struct Asked {
    who: Who,
    call: &'static str,
    stream: Option<KeyStreamId>,
}

/// Events on their way to the record.
#[derive(Debug)]
pub(super) struct Auditing {
    events: Vec<Event>,
    asked: HashMap<u64, Asked>,
    /// Streams whose start is recorded.
    started: HashSet<KeyStreamId>,
    since: Instant,
    recorded: u64,
    left_out: u64,
}

impl Default for Auditing {
    fn default() -> Self {
        Self {
            events: Vec::new(),
            asked: HashMap::new(),
            started: HashSet::new(),
            since: Instant::now(),
            recorded: 0,
            left_out: 0,
        }
    }
}

/// Who makes a call. Without certificates only open-connect says it.
fn caller(call: &Call) -> Who {
    Who::Kms(match call {
        Call::Open(open) => Some(open.kms.clone()),
        Call::GetKey(get_key) => get_key.kms.clone(),
        Call::Close(close) => close.kms.clone(),
    })
}

impl Auditing {
    /// Something that nobody can bring about at will.
    pub(super) fn note(&mut self, who: Who, what: What) {
        self.events.push(Event { who, what });
    }

    /// Something that somebody else can bring about at will: beyond some each minute it is only counted.
    pub(super) fn note_bounded(&mut self, who: Who, what: What, now: Instant) {
        if now.saturating_duration_since(self.since) >= WITHIN {
            self.say_left_out();
            (self.since, self.recorded) = (now, 0);
        }
        if self.recorded < ONE_BY_ONE {
            self.recorded += 1;
            self.note(who, what);
        } else {
            self.left_out = self.left_out.saturating_add(1);
        }
    }

    fn say_left_out(&mut self) {
        let count = std::mem::take(&mut self.left_out);
        if count > 0 {
            log::warn!(
                id = "audit.too_many"; "audit record: {count} refusals and connections were too many to be recorded one by one"
            );
            self.note(Who::Daemon, What::NotRecordedOneByOne { count });
        }
    }

    /// A call has come.
    pub(super) fn asked(&mut self, id: u64, call: &Call) {
        let (name, stream) = match call {
            Call::Open(open) => ("open-connect", open.stream),
            Call::GetKey(get_key) => ("get-key", Some(get_key.stream)),
            Call::Close(close) => ("close", Some(close.stream)),
        };
        self.asked.insert(id, Asked { who: caller(call), call: name, stream });
    }

    /// Takes note of what actions are about to do. They are not carried out before it is on the disk.
    pub(super) fn before(&mut self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::Answer { call, answer } => {
                    if let Some(asked) = self.asked.remove(call) {
                        self.answered(asked, answer);
                    }
                }
                Action::Stop { stream } => {
                    self.started.remove(stream);
                    self.note(Who::Daemon, What::Ended { stream: *stream });
                }
                _ => {}
            }
        }
    }

    fn answered(&mut self, asked: Asked, answer: &Answer) {
        let Asked { who, call, stream } = asked;
        match (answer, stream) {
            (Answer::Refused { status, .. }, stream) => {
                let what = What::Refused { call: call.to_owned(), stream, status: (*status).into() };
                self.note_bounded(who, what, Instant::now());
            }
            (Answer::Opened { stream, qos, .. }, _) => {
                self.note(who, What::Opened { stream: *stream, chunk_size: qos.key_chunk_size });
            }
            (_, Some(stream)) if call == "close" => self.note(who, What::Closed { stream }),
            (_, Some(stream)) if self.started.insert(stream) => self.note(who, What::Started { stream }),
            _ => {}
        }
    }

    /// Whether anything waits to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// What waits to be written.
    pub(super) fn take(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// The daemon ends.
    pub(super) fn end(&mut self, why: String) -> Vec<Event> {
        self.say_left_out();
        self.note(Who::Daemon, What::DaemonStopped { why });
        self.take()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::{Auditing, ONE_BY_ONE, WITHIN};
    use crate::audit::{What, Who};

    #[test]
    fn a_flood_of_refusals_fills_no_disk_and_is_counted() {
        let (mut auditing, begin) = (Auditing::default(), Instant::now());
        let refused = || What::Refused { call: "close".into(), stream: None, status: 5 };
        for _ in 0..100_000 {
            auditing.note_bounded(Who::Kms(None), refused(), begin);
        }
        assert_eq!(auditing.take().len() as u64, ONE_BY_ONE);
        auditing.note_bounded(Who::Kms(None), refused(), begin + 2 * WITHIN);
        let events = auditing.take();
        assert_eq!(events.len(), 2);
        assert_eq!(events[0].what, What::NotRecordedOneByOne { count: 100_000 - ONE_BY_ONE });
        assert!(
            matches!(auditing.end("stopped".into()).as_slice(), [last] if matches!(last.what, What::DaemonStopped { .. }))
        );
    }
}

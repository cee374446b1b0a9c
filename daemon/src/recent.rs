//! What happened last: messages of the log that have an id, in a ring that forgets the oldest.
//!
//! A message has its id as the key `id` of its record (`log::warn!(id = "link.state"; "…")`). [`Recorder`] passes every record
//! on and keeps those, whatever level is written to the log. The ids and what they mean are in docs/messages.md.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use log::kv::Key;
use log::{LevelFilter, Log, Metadata, Record};

use crate::picture::{Event, Level, unix_ms};

/// Events remembered.
pub const MOST: usize = 256;
/// Most octets of a text; the rest is cut off.
const LONGEST: usize = 512;

#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<Event>,
    /// Of the next event.
    number: u64,
}

impl Ring {
    fn put(&mut self, level: Level, id: &str, mut text: String, now: SystemTime) {
        while self.events.len() >= MOST {
            self.events.pop_front();
        }
        if text.len() > LONGEST {
            text.truncate(text.floor_char_boundary(LONGEST));
            text.push('…');
        }
        self.number += 1;
        let event = Event { number: self.number, unix_ms: unix_ms(now), level, id: id.to_owned(), text };
        self.events.push_back(event);
    }

    fn newest(&self, most: usize) -> Vec<Event> {
        self.events.iter().skip(self.events.len().saturating_sub(most)).cloned().collect()
    }
}

static RING: Mutex<Ring> = Mutex::new(Ring { events: VecDeque::new(), number: 0 });

/// The newest events, `most` at most, the oldest of them first.
#[must_use]
pub fn newest(most: usize) -> Vec<Event> {
    RING.lock().unwrap_or_else(PoisonError::into_inner).newest(most)
}

/// A logger before another one.
#[derive(Debug)]
pub struct Recorder<L>(pub L);

impl<L: Log> Log for Recorder<L> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= LevelFilter::Info || self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let level = match record.level() {
            log::Level::Error => Some(Level::Error),
            log::Level::Warn => Some(Level::Warn),
            log::Level::Info => Some(Level::Info),
            log::Level::Debug | log::Level::Trace => None,
        };
        if let (Some(level), Some(id)) = (level, record.key_values().get(Key::from("id"))) {
            let id = id.to_borrowed_str().map_or_else(|| id.to_string(), ToOwned::to_owned);
            let text = record.args().to_string();
            RING.lock().unwrap_or_else(PoisonError::into_inner).put(level, &id, text, SystemTime::now());
        }
        if self.0.enabled(record.metadata()) {
            self.0.log(record);
        }
    }

    fn flush(&self) {
        self.0.flush();
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use log::{Log, Metadata, Record};

    use super::{LONGEST, Level, MOST, Recorder, Ring, newest};

    struct Silent;

    impl Log for Silent {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            false
        }
        fn log(&self, _: &Record<'_>) {
            panic!("it is not enabled");
        }
        fn flush(&self) {}
    }

    #[test]
    fn a_flood_of_events_forgets_the_oldest_and_a_long_text_is_cut() {
        let mut ring = Ring::default();
        for number in 0..1_000 {
            ring.put(Level::Info, "x", number.to_string(), SystemTime::now());
        }
        ring.put(Level::Error, "y", "ü".repeat(LONGEST), SystemTime::now());
        assert_eq!(ring.events.len(), MOST);
        let last = ring.newest(2);
        assert_eq!((last[0].number, last[0].text.as_str()), (1_000, "999"));
        assert_eq!(last[1].number, 1_001);
        assert!(last[1].text.len() <= LONGEST + '…'.len_utf8() && last[1].text.ends_with("ü…"));
    }

    #[test]
    fn what_the_log_does_not_write_is_remembered_and_what_has_no_id_is_not() {
        let recorder = Recorder(Silent);
        let id = ("id", "test.message");
        let record = |text: &str, named: bool| {
            let keys: Option<(&str, &str)> = named.then_some(id);
            recorder.log(
                &Record::builder()
                    .level(log::Level::Info)
                    .args(format_args!("{text}"))
                    .key_values(&keys)
                    .build(),
            );
        };
        record("with an id", true);
        record("without one", false);
        let texts: Vec<_> = newest(MOST).into_iter().map(|event| (event.id, event.text)).collect();
        assert!(texts.contains(&("test.message".into(), "with an id".into())), "{texts:?}");
        assert!(!texts.iter().any(|(_, text)| text == "without one"), "{texts:?}");
    }
}

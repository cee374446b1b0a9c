//! What a KMS says while it runs: lines of JSON, or one line that is written over.

use std::io::{IsTerminal, Write};
use std::time::Instant;

use serde_json::{Value, json};

use super::driver::{Driver, Stage};
use super::stream::Counts;
use crate::history::now;

/// Tells of a running KMS on standard output.
pub(super) struct Report {
    json: bool,
    live: bool,
    last: Instant,
    before: Totals,
}

/// Sums over all streams.
#[derive(Clone, Debug, Default)]
pub(super) struct Totals {
    pub(super) counts: Counts,
    pub(super) streams: usize,
    pub(super) receiving: usize,
    pub(super) with_key: usize,
    pub(super) violations: u64,
    pub(super) slowest_ms: u64,
}

impl Totals {
    pub(super) fn of(driver: &Driver) -> Self {
        let mut totals = Self { violations: driver.receiver.journal.violations(), ..Self::default() };
        for seat in driver.seats.all() {
            totals.streams += 1;
            totals.receiving += usize::from(seat.stage == Stage::Receiving);
            let Some(slot) = seat.slot else { continue };
            let stream = slot.lock();
            let (all, own) = (&mut totals.counts, &stream.counts);
            all.chunks += own.chunks;
            all.octets += own.octets;
            all.duplicates += own.duplicates;
            all.gaps += own.gaps;
            all.missing += own.missing;
            all.refused += own.refused;
            all.notices += own.notices;
            totals.with_key += usize::from(own.chunks > 0);
            if let Some(last) = stream.last {
                totals.slowest_ms = totals.slowest_ms.max(milliseconds(last));
            }
        }
        totals
    }

    fn to_json(&self, event: &str) -> Value {
        let counts = &self.counts;
        json!({
            "event": event,
            "t": now(),
            "chunks": counts.chunks,
            "octets": counts.octets,
            "duplicates": counts.duplicates,
            "gaps": counts.gaps,
            "missing": counts.missing,
            "refused": counts.refused,
            "notices": counts.notices,
            "violations": self.violations,
            "streams": self.streams,
            "receiving": self.receiving,
            "with_key": self.with_key,
            "slowest_ms": self.slowest_ms,
        })
    }
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl Report {
    pub(super) fn new(json: bool) -> Self {
        let live = !json && std::io::stdout().is_terminal();
        Self { json, live, last: Instant::now(), before: Totals::default() }
    }

    /// Says how things are; call it every so often.
    pub(super) fn tick(&mut self, driver: &Driver) {
        let totals = Totals::of(driver);
        let seconds = self.last.elapsed().as_secs_f64().max(0.001);
        self.last = Instant::now();
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        let chunks = rate(totals.counts.chunks, self.before.counts.chunks);
        let bits = 8.0 * rate(totals.counts.octets, self.before.counts.octets);
        if self.json {
            let mut line = totals.to_json("status");
            if let Some(members) = line.as_object_mut() {
                members.insert("chunks_per_s".into(), chunks.round().into());
                members.insert("bit_per_s".into(), bits.round().into());
                members.insert(
                    "trouble".into(),
                    driver.receiver.trouble().map(|trouble| trouble.kind.name()).into(),
                );
                members.insert("samples".into(), samples(driver));
                members.insert("each".into(), each(driver));
            }
            say(&line.to_string());
        } else {
            let counts = &totals.counts;
            let line = format!(
                "{}/{} streams  {:>10.0} bit/s  {:>8.0} chunks/s  {} chunks  {} again  {} missing  slowest {} ms  {}",
                totals.receiving,
                totals.streams,
                bits,
                chunks,
                counts.chunks,
                counts.duplicates,
                counts.missing,
                totals.slowest_ms,
                if totals.violations == 0 {
                    "all checks good".into()
                } else {
                    format!("{} VIOLATIONS", totals.violations)
                },
            );
            if self.live {
                let mut out = std::io::stdout().lock();
                // A terminal that is gone is no reason to stop receiving.
                let _ = write!(out, "\r\x1b[2K{line}").and_then(|()| out.flush());
            } else {
                say(&line);
            }
        }
        self.before = totals;
    }

    /// The last word.
    pub(super) fn end(&self, driver: &Driver) {
        let totals = Totals::of(driver);
        if self.live {
            say("");
        }
        if self.json {
            return say(&totals.to_json("end").to_string());
        }
        let counts = &totals.counts;
        say(&format!(
            "{} chunks ({} octets) on {} of {} streams; {} came again, {} missing in {} gaps, {} refused and never \
             accepted, {} notices, {} violations",
            counts.chunks,
            counts.octets,
            totals.with_key,
            totals.streams,
            counts.duplicates,
            counts.missing,
            counts.gaps,
            counts.refused,
            counts.notices,
            totals.violations,
        ));
    }
}

/// `[stream, chunks, notices, receives]` of each stream that has an ID.
fn each(driver: &Driver) -> Value {
    let seats = driver.seats.all().into_iter();
    seats
        .filter_map(|seat| {
            let (id, slot) = (seat.id?, seat.slot?);
            let (chunks, notices) = {
                let stream = slot.lock();
                (stream.counts.chunks, stream.counts.notices)
            };
            Some(json!([id, chunks, notices, seat.stage == Stage::Receiving]))
        })
        .collect()
}

/// `[stream, position, first 8 octets of the digest]` of a few chunks of each stream.
fn samples(driver: &Driver) -> Value {
    let mut all = Vec::new();
    for seat in driver.seats.all() {
        let (Some(id), Some(slot)) = (seat.id, seat.slot) else { continue };
        let taken = slot.lock().samples.report();
        all.extend(taken.into_iter().map(|(position, digest)| {
            let digest: String = digest.to_string().chars().take(16).collect();
            json!([id, position, digest])
        }));
    }
    Value::Array(all)
}

/// One line on standard output. That nobody reads it is no reason to stop receiving.
pub(super) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

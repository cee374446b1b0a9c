//! Makes the picture of how the module stands, when somebody asks.

use std::time::SystemTime;

use tokio::time::Instant;

use super::Engine;
use super::clock;
use super::streams::Streams;
use super::tally::Totals;
use super::watch::{Watch, named, word};
use crate::agreement::{LossCause, Status, StreamStatus};
use crate::picture::{
    Agreement, Health, KeyBits, Latency, Ledger, Picture, Pool, Push, Quality, State, Stream, StreamCounts,
    StreamState, unix_ms,
};
use crate::push::LATENCY_BOUNDS_US;
use crate::vault::Vault;

/// A KMS may take its time: a stream is told to be held up by the other end's when nothing was granted for so long, in
/// milliseconds.
const HELD_UP_MS: u64 = 5_000;

/// Before the QKD link has come up for the first time: there is a card, and nothing else yet.
pub(super) fn first(watch: &Watch, vault: &Vault, ledger: u64) -> Picture {
    let none = Agreement {
        epoch: 0,
        connected: false,
        in_step: false,
        last_reason: None,
        last_entry: 0,
        agreed_entry: 0,
        peer_faults: 0,
    };
    let pool = pool(vault, (0, 0, 0));
    let key = KeyBits { granted: 0, delivered: 0, accepted: 0, burnt: 0, lost: watch.lost_bits() };
    let ledger = Ledger { write_number: ledger, writing_for_ms: None };
    let mut picture = picture(watch, none, pool, key, StreamCounts::default(), &Totals::default(), ledger);
    picture.health = Health::of(&picture, false);
    picture
}

impl Engine {
    pub(super) fn picture(&self) -> Picture {
        let status = self.core.status();
        let totals = self.streams.totals();
        let mut streams = StreamCounts::default();
        let now_ms = clock::now().boot_ms;
        for one in self.core.streams() {
            streams.live += 1;
            *match state(&one, self.watch.trouble(one.stream), now_ms) {
                StreamState::Waiting => &mut streams.waiting,
                StreamState::Delivering => &mut streams.delivering,
                StreamState::Suspended => &mut streams.suspended,
                StreamState::Failing => &mut streams.failing,
                StreamState::HeldUp => &mut streams.held_up,
                StreamState::Closing => &mut streams.closing,
            } += 1;
        }
        let held = (status.held.bytes, status.pinned.bytes, status.held.blocks);
        let ledger = Ledger {
            write_number: self.batches.number(),
            writing_for_ms: self
                .writer
                .busy_for(Instant::now())
                .map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        };
        let bits = |bytes: u64| bytes.saturating_mul(8);
        let key = KeyBits {
            granted: bits(status.counters.granted_bytes),
            delivered: bits(status.counters.delivered_bytes),
            accepted: bits(totals.accepted_bytes),
            burnt: bits(status.counters.burnt_bytes),
            lost: self.watch.lost_bits(),
        };
        let agreement = agreement(&status, self.watch.peer_reason.clone());
        let pool = pool(&self.vault, held);
        let mut picture = picture(&self.watch, agreement, pool, key, streams, &totals, ledger);
        picture.health = Health::of(&picture, self.zeroizing.is_some());
        picture
    }

    /// Every key stream, in the order of their IDs.
    pub(super) fn stream_pictures(&self) -> Vec<Stream> {
        let now_ms = clock::now().boot_ms;
        let mut streams: Vec<Stream> =
            self.core.streams().map(|one| stream(&one, &self.streams, &self.watch, now_ms)).collect();
        streams.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        streams
    }
}

fn agreement(status: &Status, last_reason: Option<String>) -> Agreement {
    Agreement {
        epoch: status.epoch,
        connected: status.connected,
        in_step: status.in_step,
        last_reason,
        last_entry: status.last,
        agreed_entry: status.agreed,
        peer_faults: status.counters.peer_faults,
    }
}

fn pool(vault: &Vault, (held_bytes, pinned_bytes, held_blocks): (u64, u64, u64)) -> Pool {
    Pool {
        vault_bytes: vault.size() as u64,
        vault_used_bytes: vault.used() as u64,
        held_bytes,
        pinned_bytes,
        held_blocks,
    }
}

fn picture(
    watch: &Watch,
    agreement: Agreement,
    pool: Pool,
    key: KeyBits,
    streams: StreamCounts,
    totals: &Totals,
    ledger: Ledger,
) -> Picture {
    Picture {
        taken_unix_ms: unix_ms(SystemTime::now()),
        module: watch.module(),
        health: Health { state: State::Degraded, reasons: Vec::new() },
        link: watch.link_picture(),
        card: watch.card(),
        agreement,
        pool,
        streams,
        key,
        push: push(totals),
        ledger,
        faults: watch.faults(),
        certificates: watch.certificates(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "microseconds that add up to years are exact enough")]
fn push(totals: &Totals) -> Push {
    let counters = &totals.counters;
    let seconds = |us: u64| us as f64 / 1e6;
    Push {
        chunks_sent: counters.chunks_sent,
        chunks_sent_again: counters.chunks_sent_again,
        chunks_accepted: counters.chunks_accepted,
        connections: counters.connections,
        failures: named([
            ("connect", counters.connections_failed),
            ("deadline", counters.answer_deadlines),
            ("unreadable", counters.answers_unreadable),
            ("http_3xx", counters.answers_3xx),
            ("http_4xx", counters.answers_4xx),
            ("http_5xx", counters.answers_5xx),
            ("http_other", counters.answers_other),
        ]),
        suspensions: counters.suspensions,
        latency: Latency {
            bounds_s: LATENCY_BOUNDS_US.iter().map(|us| seconds(*us)).collect(),
            counts: totals.latency.counts.to_vec(),
            sum_s: seconds(totals.latency.sum_us),
        },
    }
}

fn state(one: &StreamStatus<'_>, trouble: Option<&str>, now_ms: u64) -> StreamState {
    if one.closed {
        StreamState::Closing
    } else if one.suspended {
        StreamState::Suspended
    } else if trouble.is_some() {
        StreamState::Failing
    } else if one.held_up.is_some_and(|held| now_ms.saturating_sub(held.since_ms) >= HELD_UP_MS) {
        StreamState::HeldUp
    } else if one.opened && one.peer_opened && one.wanted {
        StreamState::Delivering
    } else {
        StreamState::Waiting
    }
}

fn stream(one: &StreamStatus<'_>, pushers: &Streams, watch: &Watch, now_ms: u64) -> Stream {
    let trouble = watch.trouble(one.stream);
    let state = state(one, trouble, now_ms);
    let why = trouble.unwrap_or("the KMS has refused key");
    let words = match state {
        StreamState::Closing => "is being closed".to_owned(),
        StreamState::Suspended => format!("waits for the KMS's next get-key: {why}"),
        StreamState::Failing => format!("is tried again: {why}"),
        StreamState::HeldUp => format!(
            "waits for the other end's KMS, which has {} chunks to accept before more is granted",
            one.held_up.map_or(0, |held| held.chunks)
        ),
        StreamState::Delivering => "key flows".to_owned(),
        StreamState::Waiting if !one.opened => "waits for this end's KMS to open it".to_owned(),
        StreamState::Waiting if !one.peer_opened => "waits for the other end's KMS to open it".to_owned(),
        StreamState::Waiting => "waits for the KMS's first get-key".to_owned(),
    };
    let lag_chunks = one.next.saturating_sub(one.position);
    let causes = LossCause::ALL.iter().zip(one.lost).map(|(cause, count)| (word(*cause), count));
    Stream {
        id: one.stream.to_string(),
        source: one.source.to_owned(),
        destination: one.destination.to_owned(),
        state,
        words,
        chunk_size: one.qos.key_chunk_size,
        granted: one.next,
        delivered: pushers
            .delivered(one.stream)
            .unwrap_or(one.position)
            .clamp(one.position, one.next.max(one.position)),
        accepted: one.position,
        lag_chunks,
        lag_bytes: lag_chunks.saturating_mul(one.qos.key_chunk_size.into()),
        lost_chunks: named(causes),
        qos: Quality {
            max_bps: one.qos.max_bps.into(),
            min_bps: one.qos.min_bps.into(),
            jitter: one.qos.jitter.into(),
            priority: one.qos.priority.into(),
            timeout_ms: one.qos.timeout.into(),
            ttl_s: one.qos.ttl.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agreement::HeldUp;
    use crate::interface::{KeyStreamId, Qos};

    #[test]
    fn a_kms_at_the_other_end_that_takes_its_time_holds_nothing_up_before_five_seconds() {
        let qos = Qos::for_tests();
        let one = StreamStatus {
            stream: KeyStreamId::from_u128(1),
            source: "kms://a",
            destination: "kms://b",
            qos: &qos,
            opened: true,
            peer_opened: true,
            wanted: true,
            closed: false,
            suspended: false,
            position: 100,
            next: 100,
            held_up: Some(HeldUp { chunks: 70, since_ms: 1_000 }),
            lost: [0; LossCause::ALL.len()],
        };
        assert_eq!(state(&one, None, 5_999), StreamState::Delivering);
        assert_eq!(state(&one, None, 6_000), StreamState::HeldUp);
        assert_eq!(state(&one, Some("no answer"), 6_000), StreamState::Failing);
        assert_eq!(state(&StreamStatus { closed: true, ..one }, None, 6_000), StreamState::Closing);
    }
}

//! The picture as Prometheus text, in base units. No label has more values than the program or its configuration names: in
//! particular none stands for a key stream.

use std::collections::BTreeMap;

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Error, TextEncoder};

use crate::picture::{Cause, Latency, LinkState, Picture, State};

/// Bits of an octet.
const OCTET: f64 = 8.0;

/// Metrics in the order in which they are added.
#[derive(Default)]
struct Metrics(Vec<MetricFamily>);

type Labels<'a> = &'a [(&'a str, &'a str)];

/// Writes everything.
///
/// # Errors
/// Where the library finds a name or label that may not be, which none of these is.
pub(super) fn text(picture: &Picture) -> Result<String, Error> {
    let mut metrics = Metrics::default();
    about(&mut metrics, picture);
    link(&mut metrics, picture);
    agreement(&mut metrics, picture);
    key(&mut metrics, picture);
    push(&mut metrics, picture);
    card(&mut metrics, picture);
    TextEncoder::new().encode_to_string(&metrics.0)
}

fn about(metrics: &mut Metrics, picture: &Picture) {
    let (module, health) = (&picture.module, &picture.health);
    let labels =
        [("version", module.version.as_str()), ("module", &module.name), ("role", module.role.word())];
    metrics.gauges("qkd_build_info", "Always 1; which daemon and module this is", [(labels.as_slice(), 1.0)]);
    metrics.gauge("qkd_start_timestamp_seconds", "When the daemon started", seconds(module.started_unix_ms));
    let ready = f64::from(u8::from(health.state != State::Degraded));
    metrics.gauge("qkd_ready", "1 while nothing keeps key from flowing, otherwise 0", ready);
    let degraded = Cause::ALL.iter().map(|cause| {
        let is = health.reasons.iter().any(|reason| reason.cause == *cause);
        (vec![("cause", cause.word())], f64::from(u8::from(is)))
    });
    metrics.gauges_owned("qkd_degraded", "1 for what keeps key from flowing, by cause", degraded);
    let certificates = picture.certificates.iter().map(|one| {
        let own = if one.own { "yes" } else { "no" };
        (vec![("certificate", one.what.as_str()), ("own", own)], whole(one.expires_unix_s))
    });
    metrics.gauges_owned(
        "qkd_certificate_expiry_timestamp_seconds",
        "Until when a certificate, authority or revocation list is good",
        certificates,
    );
}

fn link(metrics: &mut Metrics, picture: &Picture) {
    let link = &picture.link;
    let states = LinkState::ALL
        .iter()
        .map(|state| (vec![("state", state.word())], f64::from(u8::from(*state == link.state))));
    metrics.gauges_owned("qkd_link_state", "1 for the state of the QKD link, 0 for the others", states);
    metrics.gauge("qkd_link_change_timestamp_seconds", "When that state began", seconds(link.since_unix_ms));
    if let Some(measured) = &link.measured {
        metrics.gauge(
            "qkd_secret_key_rate_bytes_per_second",
            "Secret key rate that the card measured last",
            whole(measured.secret_key_rate_bps) / OCTET,
        );
        metrics.gauge(
            "qkd_sifted_key_rate_bytes_per_second",
            "Sifted key rate that the card measured last",
            whole(measured.sifted_key_rate_bps) / OCTET,
        );
        metrics.gauge("qkd_qber_ratio", "Quantum bit error rate that the card measured last", measured.qber);
        metrics.gauge(
            "qkd_visibility_ratio",
            "Interference visibility that the card measured last",
            measured.visibility,
        );
    }
}

fn agreement(metrics: &mut Metrics, picture: &Picture) {
    let agreement = &picture.agreement;
    let yes = |is: bool| f64::from(u8::from(is));
    metrics.gauge(
        "qkd_peer_connected",
        "1 while a connection to the other module stands",
        yes(agreement.connected),
    );
    metrics.gauge("qkd_in_step", "1 while keys can be agreed with the other module", yes(agreement.in_step));
    metrics.gauge("qkd_epoch", "Epoch of the key agreement", whole(agreement.epoch));
    metrics.counter(
        "qkd_peer_faults_total",
        "Messages of the other module that broke the protocol",
        whole(agreement.peer_faults),
    );
    metrics.counter(
        "qkd_ledger_writes_total",
        "Durable writes of the ledger, over restarts",
        whole(picture.ledger.write_number),
    );
    metrics.gauge(
        "qkd_ledger_writing_seconds",
        "How long a write of the ledger is under way; 0: none is",
        seconds(picture.ledger.writing_for_ms.unwrap_or(0)),
    );
}

fn key(metrics: &mut Metrics, picture: &Picture) {
    let (pool, key, streams) = (&picture.pool, &picture.key, &picture.streams);
    metrics.gauge("qkd_vault_size_bytes", "Memory that can hold key", whole(pool.vault_bytes));
    metrics.gauge(
        "qkd_vault_used_bytes",
        "Memory that holds key, in whole pages",
        whole(pool.vault_used_bytes),
    );
    metrics.gauge("qkd_pool_bytes", "Key held", whole(pool.held_bytes));
    metrics.gauge(
        "qkd_pool_pinned_bytes",
        "Key in blocks of which something granted is not settled",
        whole(pool.pinned_bytes),
    );
    metrics.gauge("qkd_pool_blocks", "Blocks of key held", whole(pool.held_blocks));
    let counts = [
        ("delivering", streams.delivering),
        ("waiting", streams.waiting),
        ("suspended", streams.suspended),
        ("failing", streams.failing),
        ("held_up", streams.held_up),
        ("closing", streams.closing),
    ];
    let states = counts.map(|(state, count)| (vec![("state", state)], whole(count)));
    metrics.gauges_owned("qkd_streams", "Key streams, by state", states);
    metrics.counter("qkd_key_granted_bytes_total", "Key granted to key streams", whole(key.granted) / OCTET);
    metrics.counter("qkd_key_delivered_bytes_total", "Key handed to push", whole(key.delivered) / OCTET);
    let settled = [("accepted", key.accepted), ("burnt", key.burnt)];
    let lost = key.lost.iter().map(|(cause, bits)| (cause.as_str(), *bits));
    let results =
        settled.into_iter().chain(lost).map(|(result, bits)| (vec![("result", result)], whole(bits) / OCTET));
    metrics.counters(
        "qkd_key_bytes_total",
        "What became of key: accepted by a KMS, burnt, or granted and lost for a cause",
        results,
    );
}

fn push(metrics: &mut Metrics, picture: &Picture) {
    let push = &picture.push;
    let chunks = [("first", push.chunks_sent), ("again", push.chunks_sent_again)];
    let sent = chunks.map(|(time, count)| (vec![("time", time)], whole(count)));
    metrics.counters("qkd_push_chunks_sent_total", "Key chunks sent, for the first time or again", sent);
    metrics.counter(
        "qkd_push_chunks_accepted_total",
        "Key chunks that a KMS accepted",
        whole(push.chunks_accepted),
    );
    metrics.counter("qkd_push_connections_total", "Connections made to KMSs", whole(push.connections));
    metrics.counter(
        "qkd_push_suspensions_total",
        "Times that a KMS refused a chunk for good",
        whole(push.suspensions),
    );
    metrics.counters("qkd_push_failures_total", "Failures to push, by cause", by("cause", &push.failures));
    metrics.histogram(
        "qkd_push_latency_seconds",
        "From when a request was written until it was answered, of one request in flight at a time",
        &push.latency,
    );
}

fn card(metrics: &mut Metrics, picture: &Picture) {
    let (card, faults) = (&picture.card, &picture.faults);
    let labels = [("serial", card.serial.as_str()), ("role", card.role.word()), ("contract", &card.contract)];
    metrics.gauges("qkd_card_info", "Always 1; which QKD card this is", [(labels.as_slice(), 1.0)]);
    metrics.gauge(
        "qkd_card_retained_bytes",
        "Key that the card retains for this host",
        whole(card.retained_bytes),
    );
    metrics.gauge("qkd_card_retention_bytes", "Key that the card can retain", whole(card.retention_bytes));
    let sensors = [("detector", card.detector_celsius), ("board", card.board_celsius)];
    let temperatures =
        sensors.into_iter().filter_map(|(sensor, value)| Some((vec![("sensor", sensor)], value?)));
    metrics.gauges_owned("qkd_card_temperature_celsius", "Temperatures of the card", temperatures);
    metrics.gauge(
        "qkd_card_self_test_timestamp_seconds",
        "When the card's self-test last passed",
        seconds(card.self_test_unix_ms),
    );
    metrics.counters(
        "qkd_card_dropped_blocks_total",
        "Blocks of key that the card did not hand over, since it was powered on",
        by("cause", &card.dropped_blocks),
    );
    metrics.counter(
        "qkd_card_dma_errors_total",
        "DMA accesses of the card that failed, since it was powered on",
        whole(faults.dma_errors),
    );
    metrics.counters("qkd_card_faults_total", "Faults of the card, by cause", by("cause", &faults.by_cause));
    metrics.counter("qkd_card_resets_total", "Resets of the card", whole(faults.resets));
    metrics.counter(
        "qkd_card_recoveries_total",
        "Recoveries of the card after a fault",
        whole(faults.recoveries),
    );
}

fn by<'a>(
    label: &'a str,
    counts: &'a BTreeMap<String, u64>,
) -> impl Iterator<Item = (Vec<(&'a str, &'a str)>, f64)> {
    counts.iter().map(move |(name, count)| (vec![(label, name.as_str())], whole(*count)))
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
fn whole(value: u64) -> f64 {
    value as f64
}

fn seconds(ms: u64) -> f64 {
    whole(ms) / 1e3
}

fn metric(labels: Labels<'_>) -> Metric {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    Metric::from_label(labels.iter().map(pair).collect())
}

impl Metrics {
    /// A family without a metric is left out: the format has none.
    fn family(&mut self, name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) {
        if metrics.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.0.push(family);
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.gauges(name, help, [([].as_slice(), value)]);
    }

    fn gauges<'a>(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels<'a>, f64)>) {
        self.gauges_owned(name, help, values.into_iter().map(|(labels, value)| (labels.to_vec(), value)));
    }

    fn gauges_owned<'a>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Vec<(&'a str, &'a str)>, f64)>,
    ) {
        let metrics = values.into_iter().map(|(labels, value)| {
            let (mut one, mut gauge) = (metric(&labels), Gauge::default());
            gauge.set_value(value);
            one.set_gauge(gauge);
            one
        });
        self.family(name, help, MetricType::GAUGE, metrics.collect());
    }

    fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.counters(name, help, [(Vec::new(), value)]);
    }

    fn counters<'a>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Vec<(&'a str, &'a str)>, f64)>,
    ) {
        let metrics = values.into_iter().map(|(labels, value)| {
            let (mut one, mut counter) = (metric(&labels), Counter::default());
            counter.set_value(value);
            one.set_counter(counter);
            one
        });
        self.family(name, help, MetricType::COUNTER, metrics.collect());
    }

    fn histogram(&mut self, name: &str, help: &str, latency: &Latency) {
        let mut below = 0_u64;
        let buckets = latency.bounds_s.iter().zip(&latency.counts).map(|(bound, count)| {
            below = below.saturating_add(*count);
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(below);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(latency.count());
        histogram.set_sample_sum(latency.sum_s);
        let mut one = metric(&[]);
        one.set_histogram(histogram);
        self.family(name, help, MetricType::HISTOGRAM, vec![one]);
    }
}

#[cfg(test)]
mod tests {
    use super::text;
    use crate::picture::{LinkState, example};

    #[test]
    fn key_is_told_in_octets_by_its_result_and_each_state_of_the_link_has_its_own_series() {
        let text = text(&example()).unwrap();
        for line in [
            "qkd_key_bytes_total{result=\"accepted\"} 375",
            "qkd_key_bytes_total{result=\"burnt\"} 8",
            "qkd_key_bytes_total{result=\"expired\"} 32",
            "qkd_secret_key_rate_bytes_per_second 500015.375",
            "qkd_qber_ratio 0.0213",
            "qkd_link_state{state=\"distilling\"} 1",
            "qkd_link_state{state=\"off\"} 0",
            "qkd_push_failures_total{cause=\"http_5xx\"} 5",
            "qkd_card_dma_errors_total 1",
            "qkd_certificate_expiry_timestamp_seconds{certificate=\"module.pem: certificate 1\",own=\"yes\"} 3000",
            "qkd_degraded{cause=\"link_down\"} 0",
            "qkd_card_temperature_celsius{sensor=\"board\"} 41.5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert_eq!(text.matches("qkd_link_state{").count(), LinkState::ALL.len());
    }

    #[test]
    fn the_buckets_of_the_latency_add_up_to_its_count() {
        let text = text(&example()).unwrap();
        for line in [
            "qkd_push_latency_seconds_bucket{le=\"0.001\"} 4",
            "qkd_push_latency_seconds_bucket{le=\"0.01\"} 9",
            "qkd_push_latency_seconds_bucket{le=\"+Inf\"} 15",
            "qkd_push_latency_seconds_sum 1.25",
            "qkd_push_latency_seconds_count 15",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}

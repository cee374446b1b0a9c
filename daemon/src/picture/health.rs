//! Whether key flows, and why not.
//!
//! A module delivers when its QKD link distils, it is in step with the module at the other end, nothing stands in the way of
//! its own work, and the KMS of every open stream takes key and is not held up by the one at the other end. With no stream
//! open there is nothing to deliver: it is ready then, and that is as good. A stream that a KMS has yet to open, or for which
//! none has asked, is the KMSs' affair.

use serde::{Deserialize, Serialize};

use super::{LinkState, Picture, shown, words};

/// A write of the ledger that takes longer is told, in milliseconds.
const SLOW_WRITE_MS: u64 = 3_000;

shown! {
    /// Whether key flows, and why not.
    #[derive(Eq)]
    struct Health {
        /// In one word.
        pub state: State,
        /// Why not; empty unless degraded.
        pub reasons: Vec<Reason>,
    }

    /// One thing that keeps key from flowing.
    #[derive(Eq)]
    struct Reason {
        /// Which.
        pub cause: Cause,
        /// In words, with what to do.
        pub text: String,
    }
}

words! {
    /// How the module stands.
    State {
        /// Key flows to every stream that is open.
        Delivering = "delivering",
        /// Key would flow, but no stream is open.
        Ready = "ready",
        /// Something keeps key from flowing.
        Degraded = "degraded",
    }
}

words! {
    /// What keeps key from flowing.
    Cause {
        /// The QKD link does not distil.
        LinkDown = "link_down",
        /// There is no connection to the other module.
        PeerAway = "peer_away",
        /// The other module is connected, but not in step.
        NotInStep = "not_in_step",
        /// The KMS of a stream does not take key.
        KmsFailing = "kms_failing",
        /// The KMS of a stream has refused key.
        KmsRefuses = "kms_refuses",
        /// The KMS at the other end has not accepted what was granted, and nothing more is.
        PeerKmsBehind = "peer_kms_behind",
        /// The ledger's storage hangs.
        LedgerSlow = "ledger_slow",
        /// This module's own certificate is not good any more.
        CertificateExpired = "certificate_expired",
        /// Every key is being destroyed.
        Zeroizing = "zeroizing",
    }
}

impl Health {
    /// What a picture shows. Its own `health` is not looked at.
    #[must_use]
    pub fn of(picture: &Picture, zeroizing: bool) -> Self {
        let mut reasons = Vec::new();
        let mut say = |cause, text: String| reasons.push(Reason { cause, text });
        if zeroizing {
            say(Cause::Zeroizing, "every key is being destroyed, as an operator has ordered".into());
        }
        if picture.link.state != LinkState::Distilling {
            say(Cause::LinkDown, link(picture));
        }
        if !picture.agreement.connected {
            let last = picture.agreement.last_reason.as_deref();
            let last = last.map(|why| format!("; last: {why}")).unwrap_or_default();
            say(
                Cause::PeerAway,
                format!(
                    "there is no connection to the module at the other end{last}. See whether it runs and can be reached"
                ),
            );
        } else if !picture.agreement.in_step {
            say(Cause::NotInStep, "the other module is connected, and the two are getting in step".into());
        }
        let streams = &picture.streams;
        if streams.failing > 0 {
            let text = format!(
                "the KMS does not take key of {} of {} key streams, which is tried again. qkdctl streams says why",
                streams.failing, streams.live
            );
            say(Cause::KmsFailing, text);
        }
        if streams.suspended > 0 {
            let text = format!(
                "the KMS has refused key of {} of {} key streams, which wait for its next get-key. qkdctl streams says why",
                streams.suspended, streams.live
            );
            say(Cause::KmsRefuses, text);
        }
        if streams.held_up > 0 {
            let text = format!(
                "no more key is granted to {} of {} key streams, because the other end's KMS has much still to accept. \
                 qkdctl streams at the other module shows its lag",
                streams.held_up, streams.live
            );
            say(Cause::PeerKmsBehind, text);
        }
        if let Some(ms) = picture.ledger.writing_for_ms.filter(|ms| *ms >= SLOW_WRITE_MS) {
            let text = format!(
                "the ledger's storage has not finished a write for {} s. Look at the disk",
                ms / 1_000
            );
            say(Cause::LedgerSlow, text);
        }
        let now = picture.taken_unix_ms / 1_000;
        if let Some(over) = picture.certificates.iter().find(|one| one.own && one.expires_unix_s <= now) {
            say(
                Cause::CertificateExpired,
                format!("{} has expired. Renew it, then: qkdctl reload", over.what),
            );
        }
        let state = match (reasons.is_empty(), picture.streams.delivering) {
            (false, _) => State::Degraded,
            (true, 0) => State::Ready,
            (true, _) => State::Delivering,
        };
        Self { state, reasons }
    }
}

fn link(picture: &Picture) -> String {
    let what = match picture.link.state {
        LinkState::Unknown => "has not been told by the card yet",
        LinkState::Off => "is off. See whether the fibre is in and the other card is on",
        LinkState::Initialising => "initialises",
        LinkState::Aligning => "is being aligned",
        LinkState::Distilling => "distils key",
        LinkState::NoAuthenticationKey => {
            "has no authentication key for its classical channel. The card's maker says how it gets one"
        }
        LinkState::Fault => "is in fault. See the card's own documents",
    };
    let seconds = picture.taken_unix_ms.saturating_sub(picture.link.since_unix_ms) / 1_000;
    format!("the QKD link {what}; for {seconds} s now")
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::{Cause, Health, State};
    use crate::picture::{
        Agreement, Card, CardRole, Certificate, Faults, KeyBits, Latency, Ledger, Link, LinkState, Measured,
        Module, Picture, Pool, Push, Role, StreamCounts,
    };

    /// A module that delivers, with a value in every member.
    pub(crate) fn delivering() -> Picture {
        let named = |name: &str, value| BTreeMap::from([(name.to_owned(), value)]);
        Picture {
            taken_unix_ms: 2_000_000,
            module: Module {
                name: "A".into(),
                role: Role::Leader,
                version: "0.1.0".into(),
                started_unix_ms: 1_000_000,
                uptime_s: 1_000,
            },
            health: Health { state: State::Delivering, reasons: Vec::new() },
            link: Link {
                state: LinkState::Distilling,
                since_unix_ms: 1_500_000,
                changes: Vec::new(),
                measured: Some(Measured {
                    unix_ms: 1_999_500,
                    qber: 0.0213,
                    visibility: 0.96,
                    secret_key_rate_bps: 4_000_123,
                    sifted_key_rate_bps: 9_000_000,
                }),
            },
            card: Card {
                location: "0000:01:00.0".into(),
                serial: "0x1001".into(),
                peer_serial: Some("0x1002".into()),
                role: CardRole::Transmitter,
                contract: "1.0".into(),
                test_key: true,
                session: Some("7".into()),
                detector_celsius: None,
                board_celsius: Some(41.5),
                retained_bytes: 65_536,
                retention_bytes: 1 << 20,
                dropped_blocks: named("qber", 3),
                self_test_unix_ms: 1_000_000,
                self_tests: 1,
            },
            agreement: Agreement {
                epoch: 1,
                connected: true,
                in_step: true,
                last_reason: None,
                last_entry: 17,
                agreed_entry: 16,
                peer_faults: 0,
            },
            pool: Pool {
                vault_bytes: 1 << 26,
                vault_used_bytes: 8_192,
                held_bytes: 8_000,
                pinned_bytes: 4_000,
                held_blocks: 2,
            },
            streams: StreamCounts {
                live: 3,
                delivering: 2,
                waiting: 1,
                suspended: 0,
                failing: 0,
                held_up: 0,
                closing: 0,
            },
            key: KeyBits {
                granted: 4_096,
                delivered: 4_000,
                accepted: 3_000,
                burnt: 64,
                lost: named("expired", 256),
            },
            push: Push {
                chunks_sent: 100,
                chunks_sent_again: 5,
                chunks_accepted: 90,
                connections: 2,
                failures: named("http_5xx", 5),
                suspensions: 1,
                latency: Latency { bounds_s: vec![0.001, 0.01], counts: vec![4, 5, 6], sum_s: 1.25 },
            },
            ledger: Ledger { write_number: 42, writing_for_ms: None },
            faults: Faults { dma_errors: 1, by_cause: named("event_crc", 2), resets: 1, recoveries: 1 },
            certificates: vec![Certificate {
                what: "module.pem: certificate 1".into(),
                expires_unix_s: 3_000,
                own: true,
            }],
        }
    }

    /// What is said of a picture after `change`.
    fn causes(change: impl FnOnce(&mut Picture)) -> (State, Vec<Cause>) {
        let mut picture = delivering();
        change(&mut picture);
        let health = Health::of(&picture, false);
        assert!(health.reasons.iter().all(|reason| reason.text.len() > 20), "{health:?}");
        (health.state, health.reasons.iter().map(|reason| reason.cause).collect())
    }

    #[test]
    fn a_module_with_nothing_to_deliver_is_ready_and_not_degraded() {
        assert_eq!(causes(|_| ()), (State::Delivering, vec![]));
        assert_eq!(causes(|picture| picture.streams.delivering = 0), (State::Ready, vec![]));
    }

    #[test]
    fn everything_that_stops_key_is_named_and_nothing_hides_another() {
        for state in LinkState::ALL.iter().filter(|state| **state != LinkState::Distilling) {
            assert_eq!(
                causes(|picture| picture.link.state = *state),
                (State::Degraded, vec![Cause::LinkDown])
            );
        }
        let one =
            |cause, change: fn(&mut Picture)| assert_eq!(causes(change), (State::Degraded, vec![cause]));
        one(Cause::PeerAway, |picture| {
            picture.agreement.connected = false;
            picture.agreement.in_step = false;
        });
        one(Cause::NotInStep, |picture| picture.agreement.in_step = false);
        one(Cause::KmsFailing, |picture| picture.streams.failing = 1);
        one(Cause::KmsRefuses, |picture| picture.streams.suspended = 1);
        one(Cause::PeerKmsBehind, |picture| picture.streams.held_up = 1);
        one(Cause::LedgerSlow, |picture| picture.ledger.writing_for_ms = Some(3_000));
        one(Cause::CertificateExpired, |picture| picture.certificates[0].expires_unix_s = 2_000);
        let all = causes(|picture| {
            picture.link.state = LinkState::Off;
            picture.agreement.connected = false;
            picture.streams.failing = 1;
            picture.streams.suspended = 1;
        });
        assert_eq!(all.1, [Cause::LinkDown, Cause::PeerAway, Cause::KmsFailing, Cause::KmsRefuses]);
        assert_eq!(Health::of(&delivering(), true).reasons[0].cause, Cause::Zeroizing);
    }

    #[test]
    fn a_foreign_certificate_that_has_expired_and_a_short_write_are_no_reason() {
        assert_eq!(
            causes(|picture| {
                picture.certificates[0].own = false;
                picture.certificates[0].expires_unix_s = 1;
                picture.ledger.writing_for_ms = Some(2_999);
            }),
            (State::Delivering, vec![])
        );
    }
}

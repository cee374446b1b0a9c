//! What the engine keeps beside its work, so that it can say how the module stands.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Instant, SystemTime};

use std::sync::Arc;

use qkd_driver::backing::Backing;
use qkd_driver::{Card, Counters, Identity, Telemetry};
use tokio::sync::{mpsc, oneshot};

use crate::agreement::LossCause;
use crate::config;
use crate::interface::KeyStreamId;
use crate::operator::protocol::{Answer, Reloaded};
use crate::picture::{self, Certificate, LinkChange, LinkState, Measured, unix_ms};
use crate::push::Report;
use crate::tls::{ReloadOrder, Tls};

/// Chunk sizes of ended streams that are remembered, for losses that are counted late.
const ENDED_SIZES: usize = 4_096;

/// Changes of the QKD link that are remembered.
const CHANGES: usize = 32;

/// Facts and news for a [`picture::Picture`].
pub(super) struct Watch {
    name: String,
    role: picture::Role,
    started: SystemTime,
    begun: Instant,
    location: String,
    identity: Identity,
    tls: Option<Arc<Tls>>,
    reloads: mpsc::Sender<ReloadOrder>,
    link: (LinkState, SystemTime),
    changes: VecDeque<LinkChange>,
    reading: Option<(SystemTime, Telemetry)>,
    counters: Counters,
    session: Option<u64>,
    self_test: SystemTime,
    self_tests: u64,
    /// Why the last connection to the other module ended.
    pub(super) peer_reason: Option<String>,
    /// Streams whose KMS does not take key, and why.
    troubles: HashMap<KeyStreamId, String>,
    chunk_sizes: HashMap<KeyStreamId, u32>,
    lost_bytes: [u64; LossCause::ALL.len()],
}

impl Watch {
    /// The card has been opened, with its self-test, just now.
    pub(super) fn new<B: Backing>(
        module: &config::Module,
        card: &Card<B>,
        tls: Option<Arc<Tls>>,
        reloads: mpsc::Sender<ReloadOrder>,
        (started, begun): (SystemTime, Instant),
    ) -> Self {
        let now = SystemTime::now();
        Self {
            name: module.name.clone(),
            role: match module.role {
                config::Role::Leader => picture::Role::Leader,
                config::Role::Follower => picture::Role::Follower,
            },
            started,
            begun,
            location: card.location(),
            identity: card.identity().clone(),
            tls,
            reloads,
            link: (LinkState::Unknown, now),
            changes: VecDeque::new(),
            reading: None,
            counters: card.counters().clone(),
            session: None,
            self_test: now,
            self_tests: 1,
            peer_reason: None,
            troubles: HashMap::new(),
            chunk_sizes: HashMap::new(),
            lost_bytes: [0; LossCause::ALL.len()],
        }
    }

    /// The card was reset, which tests it.
    pub(super) fn tested(&mut self) {
        self.self_test = SystemTime::now();
        self.self_tests += 1;
    }

    pub(super) fn peer_serial(&mut self, serial: u64) {
        self.identity.peer_serial = Some(serial);
    }

    pub(super) fn link(&mut self, state: qkd_driver::LinkState) {
        let state = match state {
            qkd_driver::LinkState::Off => LinkState::Off,
            qkd_driver::LinkState::Initialising => LinkState::Initialising,
            qkd_driver::LinkState::Aligning => LinkState::Aligning,
            qkd_driver::LinkState::Distilling => LinkState::Distilling,
            qkd_driver::LinkState::NoAuthenticationKey => LinkState::NoAuthenticationKey,
            qkd_driver::LinkState::Fault => LinkState::Fault,
        };
        if self.link.0 != state {
            let now = SystemTime::now();
            self.link = (state, now);
            while self.changes.len() >= CHANGES {
                self.changes.pop_front();
            }
            self.changes.push_back(LinkChange { unix_ms: unix_ms(now), state });
        }
    }

    pub(super) fn session(&mut self, session: u64) {
        self.session = self.session.max(Some(session));
    }

    pub(super) fn read(&mut self, telemetry: Telemetry, counters: Counters) {
        self.reading = Some((SystemTime::now(), telemetry));
        self.counters = counters;
    }

    /// What a KMS does about the key of a stream. Called for every report: nothing is done for most.
    pub(super) fn reported(&mut self, report: &Report) {
        match report {
            Report::Failing { stream, why, .. } => {
                self.troubles.insert(*stream, why.to_string());
            }
            Report::Suspended { stream, status, .. } => {
                self.troubles.insert(*stream, format!("the KMS answered with HTTP status {status}"));
            }
            Report::Recovered { stream, .. } => {
                self.troubles.remove(stream);
            }
            Report::Stopped(stopped) => {
                self.troubles.remove(&stopped.stream);
            }
            Report::Accepted { .. } | Report::Discarded { .. } => {}
        }
    }

    /// The KMS of a stream asks for key again.
    pub(super) fn resumes(&mut self, stream: KeyStreamId) {
        self.troubles.remove(&stream);
    }

    /// Why the KMS of a stream does not take key.
    pub(super) fn trouble(&self, stream: KeyStreamId) -> Option<&str> {
        self.troubles.get(&stream).map(String::as_str)
    }

    /// A stream lives; `lives` says which others do.
    pub(super) fn begins(
        &mut self,
        stream: KeyStreamId,
        chunk_size: u32,
        lives: impl Fn(KeyStreamId) -> bool,
        count: usize,
    ) {
        if self.chunk_sizes.len() > count + ENDED_SIZES {
            self.chunk_sizes.retain(|stream, _| lives(*stream));
        }
        self.chunk_sizes.insert(stream, chunk_size);
    }

    pub(super) fn lost(&mut self, stream: KeyStreamId, cause: LossCause, chunks: u64) {
        let size = self.chunk_sizes.get(&stream).copied().unwrap_or(0);
        if let Some(lost) = self.lost_bytes.get_mut(cause as usize) {
            *lost = lost.saturating_add(chunks.saturating_mul(size.into()));
        }
    }

    /// Bits of key lost, by cause.
    pub(super) fn lost_bits(&self) -> BTreeMap<String, u64> {
        let bits = self.lost_bytes.map(|bytes| bytes.saturating_mul(8));
        LossCause::ALL.iter().zip(bits).map(|(cause, bits)| (word(*cause).to_owned(), bits)).collect()
    }

    pub(super) fn module(&self) -> picture::Module {
        picture::Module {
            name: self.name.clone(),
            role: self.role,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_unix_ms: unix_ms(self.started),
            uptime_s: self.begun.elapsed().as_secs(),
        }
    }

    pub(super) fn link_picture(&self) -> picture::Link {
        let ratio = |ppm: u32| f64::from(ppm) / 1e6;
        picture::Link {
            state: self.link.0,
            since_unix_ms: unix_ms(self.link.1),
            changes: self.changes.iter().copied().collect(),
            measured: self.reading.as_ref().map(|(at, telemetry)| Measured {
                unix_ms: unix_ms(*at),
                qber: ratio(telemetry.qber_ppm),
                visibility: ratio(telemetry.visibility_ppm),
                secret_key_rate_bps: telemetry.secret_key_rate,
                sifted_key_rate_bps: telemetry.sifted_key_rate,
            }),
        }
    }

    pub(super) fn card(&self) -> picture::Card {
        let celsius = |millidegrees: i32| f64::from(millidegrees) / 1e3;
        let telemetry = self.reading.as_ref().map(|(_, telemetry)| telemetry);
        let dropped = telemetry.map(|telemetry| {
            [
                ("overflow", telemetry.dropped_overflow),
                ("qber", telemetry.dropped_qber),
                ("reconciliation", telemetry.dropped_reconciliation),
                ("authentication", telemetry.dropped_authentication),
            ]
        });
        let identity = &self.identity;
        picture::Card {
            location: self.location.clone(),
            serial: format!("{:#x}", identity.serial),
            peer_serial: identity.peer_serial.map(|serial| format!("{serial:#x}")),
            role: match identity.role {
                qkd_driver::Role::Transmitter => picture::CardRole::Transmitter,
                qkd_driver::Role::Receiver => picture::CardRole::Receiver,
            },
            contract: format!("{}.{}", identity.version.0, identity.version.1),
            test_key: identity.test_key,
            session: self.session.map(|session| session.to_string()),
            detector_celsius: telemetry.and_then(|telemetry| telemetry.detector_temperature).map(celsius),
            board_celsius: telemetry.and_then(|telemetry| telemetry.board_temperature).map(celsius),
            retained_bytes: telemetry.map_or(0, |telemetry| telemetry.retained_bytes),
            retention_bytes: identity.retention_bytes,
            dropped_blocks: named(dropped.into_iter().flatten()),
            self_test_unix_ms: unix_ms(self.self_test),
            self_tests: self.self_tests,
        }
    }

    pub(super) fn faults(&self) -> picture::Faults {
        picture::Faults {
            dma_errors: self.reading.as_ref().map_or(0, |(_, telemetry)| telemetry.dma_errors),
            by_cause: named(self.counters.faults.iter().map(|(cause, count)| (*cause, *count))),
            resets: self.counters.resets,
            recoveries: self.counters.recoveries,
        }
    }

    pub(super) fn certificates(&self) -> Vec<Certificate> {
        let expiries = self.tls.as_ref().map(|tls| tls.expiries()).unwrap_or_default();
        let certificate = |expiry: crate::tls::Expiry| Certificate {
            what: expiry.what,
            expires_unix_s: expiry.unix_seconds,
            own: expiry.own,
        };
        expiries.into_iter().map(certificate).collect()
    }

    /// Has certificates read again, and answers once it is done.
    pub(super) fn reload(&self, reply: oneshot::Sender<Answer>) {
        let (done, hears) = oneshot::channel();
        let ordered = self.reloads.try_send(done);
        tokio::spawn(async move {
            let answer = match (ordered, hears.await) {
                (Ok(()), Ok(Ok(read))) => Answer::Reloaded(Reloaded { certificates: read }),
                (Ok(()), Ok(Err(why))) => Answer::Refused {
                    reason: format!("the old certificates stay in use, the new ones cannot be used: {why}"),
                },
                _ => Answer::Refused { reason: "a reload is under way already; try again".into() },
            };
            // An operator who has gone does not mind.
            let _ = reply.send(answer);
        });
    }
}

/// The word for a cause of losses, as in the picture and in metrics.
pub(super) fn word(cause: LossCause) -> &'static str {
    match cause {
        LossCause::BlockLost => "block_lost",
        LossCause::Expired => "expired",
        LossCause::Skipped => "skipped",
        LossCause::Closed => "closed",
        LossCause::Epoch => "epoch",
    }
}

pub(super) fn named<'a>(counts: impl IntoIterator<Item = (&'a str, u64)>) -> BTreeMap<String, u64> {
    counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}

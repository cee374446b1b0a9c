//! One key stream under test: known key, delivered in odd pieces.

use std::time::Duration;

use qkd_daemon::config::{HostPort, KEY_MATERIAL_PATH, KmsEndpoint, Push, Transport};
use qkd_daemon::push::{Delivery, PushHandle, Pusher, Report, StreamPush};
use qkd_daemon::vault::{Locking, Vault};
use tokio::sync::mpsc;
use tokio::time::timeout;
use uuid::Uuid;

use crate::kms::{ScriptedKms, Seen};

pub(crate) const STREAM: Uuid = Uuid::from_u128(0x1234_5678_9abc_4def_8123_4567_89ab_cdef);

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Key octet `at` of the chunk at `position`.
fn octet(position: u64, at: usize) -> u8 {
    let mixed = (position ^ (at as u64) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8
}

pub(crate) fn key_of(position: u64, chunk_size: u32) -> Vec<u8> {
    (0..chunk_size as usize).map(|at| octet(position, at)).collect()
}

/// Quick to fail and quick to try again.
pub(crate) fn settings() -> Push {
    Push {
        answer_deadline_ms: 60_000,
        connect_deadline_ms: 10_000,
        most_in_flight: 256,
        most_bytes_in_flight: 90_112,
        backoff_first_ms: 2,
        backoff_greatest_ms: 20,
        retry_after_greatest_s: 60,
    }
}

pub(crate) struct Stream {
    pub(crate) vault: Vault,
    pub(crate) handle: Option<PushHandle>,
    pub(crate) reports: mpsc::Receiver<Report>,
    pub(crate) first: u64,
    pub(crate) chunk_size: u32,
}

impl Stream {
    pub(crate) fn to(kms: &ScriptedKms) -> Self {
        Self::start("127.0.0.1", kms.port, 32, 0, settings())
    }

    pub(crate) fn start(host: &str, port: u16, chunk_size: u32, first: u64, settings: Push) -> Self {
        let (sender, reports) = mpsc::channel(64);
        let transport = Transport { plain_text_beyond_loopback_gives_keys_away: false };
        let pusher = Pusher::new(settings, &transport, None, Locking::Preferred, sender);
        let server = HostPort { host: host.to_owned(), port };
        let endpoint =
            KmsEndpoint { secure: false, server, path: KEY_MATERIAL_PATH.to_owned(), through: None };
        let handle = pusher.spawn(StreamPush { stream: STREAM, endpoint, chunk_size, first }).unwrap();
        let vault = Vault::new(8 << 20, Locking::Preferred).unwrap();
        Self { vault, handle: Some(handle), reports, first, chunk_size }
    }

    pub(crate) fn handle(&mut self) -> &mut PushHandle {
        self.handle.as_mut().unwrap()
    }

    /// Key for `count` chunks from `first` on, in extents that begin and end within chunks.
    pub(crate) fn delivery(&self, first: u64, count: u32) -> Delivery {
        let octets = count * self.chunk_size;
        let key: Vec<u8> = (first..first + u64::from(count))
            .flat_map(|position| key_of(position, self.chunk_size))
            .collect();
        let mut room = self.vault.reserve(octets).expect("the vault is full");
        room.as_mut_slice().copy_from_slice(&key);
        let mut block = room.seal();
        let (mut extents, mut offset, mut length) = (Vec::new(), 0, 1);
        while offset < octets {
            length = length.min(octets - offset);
            extents.push(block.take(offset, length).unwrap());
            offset += length;
            length = length * 2 + 3;
        }
        Delivery { first, count, key: extents }
    }

    pub(crate) fn deliver(&mut self, count: u32) {
        let first = self.handle().next_position();
        let delivery = self.delivery(first, count);
        self.handle().deliver(delivery).unwrap();
    }

    pub(crate) async fn report(&mut self) -> Report {
        timeout(PATIENCE, self.reports.recv()).await.expect("no report").expect("the task is gone")
    }

    /// Waits for a report that is `wanted`; checks on the way that progress only rises.
    pub(crate) async fn until(&mut self, mut wanted: impl FnMut(&Report) -> bool) -> Report {
        let mut accepted = 0;
        loop {
            let report = self.report().await;
            if let Report::Accepted { up_to, .. } = report {
                assert!(up_to > accepted, "accepting went back from {accepted} to {up_to}");
                accepted = up_to;
            }
            if wanted(&report) {
                return report;
            }
        }
    }

    pub(crate) async fn until_accepted(&mut self, position: u64) {
        self.until(|report| matches!(report, Report::Accepted { up_to, .. } if *up_to == position)).await;
    }

    /// Holds what the KMS saw against what must hold whatever it does: order of first transmission, and the same
    /// right octets every time. Gives the positions in the order in which they came.
    pub(crate) fn check(&self, seen: &[Seen]) -> Vec<u64> {
        let mut next = self.first;
        let mut positions = Vec::new();
        for request in seen.iter().filter(|request| request.status == 0) {
            // The position nearest to the next one that has this index.
            let ahead = u64::from(request.index).wrapping_sub(next) << 32;
            let position = next.checked_add_signed((ahead.cast_signed()) >> 32).unwrap();
            assert!(position <= next, "position {position} was sent before {next}");
            next = next.max(position + 1);
            assert_eq!(request.key, key_of(position, self.chunk_size), "wrong key at position {position}");
            positions.push(position);
        }
        positions
    }

    /// Polls until `condition` holds.
    pub(crate) async fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
        let waiting = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("in vain waited for: {what}"));
    }
}

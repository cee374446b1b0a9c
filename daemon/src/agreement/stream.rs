//! A key stream as this run of the core sees it, beside what the ledger holds of it.

use std::collections::VecDeque;

use super::limiter::Bucket;
use super::names::Position;
use crate::interface::Qos;

/// A grant that is not settled at this end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenGrant {
    /// Number of its entry.
    pub(crate) number: u64,
    /// Position of its first chunk.
    pub(crate) first: Position,
    /// Position after its last chunk.
    pub(crate) end: Position,
    /// End of its time to live, boot time in ms.
    pub(crate) expires_ms: u64,
}

/// How far the ending of the stream's pusher is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopping {
    /// Not asked for.
    No,
    /// Asked for.
    Asked,
    /// Confirmed.
    Done,
}

/// What is known of the other end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PeerSide {
    /// Its KMS has sent get-key.
    pub(crate) wanted: bool,
    /// It is closed.
    pub(crate) closed: bool,
    /// Everything below is settled there.
    pub(crate) position: Position,
    /// First position that its KMS wants.
    pub(crate) wish: Position,
    /// At the follower, as last heard: how far the leader's KMS was behind.
    pub(crate) behind: Option<Behind>,
}

/// A KMS that has more than half of the stream's window still to accept, so that nothing more is granted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Behind {
    /// Chunks that it has to accept.
    pub(crate) chunks: u64,
    /// End of what was granted then.
    pub(crate) next: Position,
}

/// What the KMS was told and has not been told otherwise since.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told {
    pub(crate) link_down: bool,
    pub(crate) dry: bool,
    pub(crate) lost: bool,
    pub(crate) peer_closed: bool,
}

/// The leader's scheduling of a stream.
#[derive(Debug)]
pub(crate) struct Turn {
    /// Filled at max_bps; `None`: no limit.
    pub(crate) limit: Option<Bucket>,
    /// Filled at min_bps; `None`: no minimum.
    pub(crate) minimum: Option<Bucket>,
    /// Service had so far, in octets by weight, among the minima.
    pub(crate) minimum_service: u128,
    /// The same among the rest.
    pub(crate) rest_service: u128,
}

/// Part of a second that a limiter holds at least, as a divisor: grants are made a few hundred times a second, and a
/// bucket that cannot hold the key of one interval would hold the stream below its rate.
const SMALLEST_DEPTH_OF_SECOND: u64 = 50;

impl Turn {
    fn new(qos: &Qos, now_ms: u64) -> Self {
        let chunk = u64::from(qos.key_chunk_size);
        let limit = (qos.max_bps < u32::MAX).then(|| {
            let depth = u64::from(qos.jitter) / 8;
            let least = u64::from(qos.max_bps) / 8 / SMALLEST_DEPTH_OF_SECOND;
            Bucket::new(qos.max_bps, depth.max(least).max(chunk), now_ms)
        });
        let minimum = (qos.min_bps > 0)
            .then(|| Bucket::new(qos.min_bps, (u64::from(qos.min_bps) / 8).max(chunk), now_ms));
        Self { limit, minimum, minimum_service: 0, rest_service: 0 }
    }
}

/// A key stream in this run.
#[derive(Debug)]
pub(crate) struct Live {
    /// Unsettled grants in order.
    pub(crate) grants: VecDeque<OpenGrant>,
    /// Numbers of grants of which something was not given to push yet, in order.
    pub(crate) undelivered: VecDeque<u64>,
    /// Positions that were never granted: first, and first after.
    pub(crate) holes: VecDeque<(Position, Position)>,
    /// Everything below was given to push, or was lost or skipped.
    pub(crate) issued: Position,
    /// Everything below is settled; the ledger follows.
    pub(crate) position: Position,
    /// At the follower: the position last told to the leader.
    pub(crate) reported: Position,
    pub(crate) begun: bool,
    pub(crate) suspended: bool,
    pub(crate) stopping: Stopping,
    pub(crate) peer: PeerSide,
    pub(crate) told: Told,
    /// Last time that something was granted.
    pub(crate) granted_ms: u64,
    /// Last time that something was granted, get-key came, or the link came back.
    pub(crate) fed_ms: u64,
    /// At the leader: where the follower was told that its KMS is behind, the end of what was granted then.
    pub(crate) told_behind: Option<Position>,
    pub(crate) turn: Turn,
}

impl Live {
    pub(crate) fn new(qos: &Qos, position: Position, now_ms: u64) -> Self {
        Self {
            grants: VecDeque::new(),
            undelivered: VecDeque::new(),
            holes: VecDeque::new(),
            issued: position,
            position,
            reported: position,
            begun: false,
            suspended: false,
            stopping: Stopping::No,
            peer: PeerSide::default(),
            told: Told::default(),
            granted_ms: now_ms,
            fed_ms: now_ms,
            told_behind: None,
            turn: Turn::new(qos, now_ms),
        }
    }

    /// A grant has been committed.
    pub(crate) fn granted(&mut self, grant: OpenGrant) {
        self.grants.push_back(grant);
        self.undelivered.push_back(grant.number);
    }

    /// Positions from `from` to `to` were never granted. Returns whether that settles anything at once.
    pub(crate) fn skipped(&mut self, from: Position, to: Position) -> bool {
        if from >= to {
            return false;
        }
        match self.holes.back_mut() {
            Some((_, end)) if *end >= from => *end = to.max(*end),
            _ => self.holes.push_back((from, to)),
        }
        self.advance(self.position)
    }

    /// Everything below `position` is settled; holes that follow directly are passed. Returns whether it rose.
    pub(crate) fn advance(&mut self, position: Position) -> bool {
        let before = self.position;
        self.position = self.position.max(position);
        while let Some((from, to)) = self.holes.front().copied() {
            if from > self.position {
                break;
            }
            self.position = self.position.max(to);
            self.holes.pop_front();
        }
        self.issued = self.issued.max(self.position);
        self.position > before
    }
}

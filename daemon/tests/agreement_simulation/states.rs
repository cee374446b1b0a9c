//! The protocol's states, as a fault finds them. Several hold at once; a state is one end's unless it says otherwise.

use qkd_daemon::agreement::Decision;

use super::node::{Asked, Node};
use super::world::World;

/// A state of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// The daemon does not run.
    Down,
    /// No connection to the other daemon.
    NotConnected,
    /// Connected, and the handshake is not through.
    Greeting,
    /// The two ledgers are in different epochs.
    EpochBegins,
    /// The card delivers again what it keeps.
    Replaying,
    /// In step, and no stream gets key.
    Idle,
    /// An open waits for the leader.
    OpenPending,
    /// A stream that one KMS has opened and the other has not.
    HalfOpen,
    /// A get-key waits for the leader.
    GetKeyPending,
    /// The leader has entries that the follower has not applied.
    EntryUnapplied,
    /// The follower has applied entries of which the leader has not heard.
    AppliedUnreported,
    /// Chunks are on their way to the KMS.
    Delivering,
    /// What the KMS has accepted is not in the ledger.
    ProgressUnwritten,
    /// Granted, and the block has not come again from the card.
    AwaitingBlock,
    /// The KMS has refused a stream's key.
    Suspended,
    /// A KMS wants a later position than what was granted.
    SkipPending,
    /// A stream has as much as it may have without acceptance.
    WindowFull,
    /// A close waits until push has stopped.
    ClosePending,
    /// A stream that is closed here and lives.
    ClosedHere,
    /// Events were handled and their writes are not committed.
    BatchOpen,
}

impl State {
    pub(crate) const ALL: [Self; 20] = [
        Self::Down,
        Self::NotConnected,
        Self::Greeting,
        Self::EpochBegins,
        Self::Replaying,
        Self::Idle,
        Self::OpenPending,
        Self::HalfOpen,
        Self::GetKeyPending,
        Self::EntryUnapplied,
        Self::AppliedUnreported,
        Self::Delivering,
        Self::ProgressUnwritten,
        Self::AwaitingBlock,
        Self::Suspended,
        Self::SkipPending,
        Self::WindowFull,
        Self::ClosePending,
        Self::ClosedHere,
        Self::BatchOpen,
    ];

    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// The states that hold.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct States(u32);

impl States {
    pub(crate) fn holds(self, state: State) -> bool {
        self.0 & state.bit() != 0
    }

    fn add(&mut self, state: State, holds: bool) {
        if holds {
            self.0 |= state.bit();
        }
    }
}

/// Chunks granted and not settled at which a window counts as full.
const FULL: u64 = 4;

impl World {
    /// The states that hold at `end`.
    pub(crate) fn states(&self, end: usize) -> States {
        let node = &self.nodes[end];
        let mut states = States::default();
        let (leader, follower) = (self.nodes[0].disk.durable(), self.nodes[1].disk.durable());
        let same_epoch = leader.epoch == follower.epoch;
        states.add(State::EpochBegins, !same_epoch);
        states.add(State::EntryUnapplied, same_epoch && leader.last > follower.last);
        states.add(State::AppliedUnreported, same_epoch && follower.last > leader.peer_applied);
        if node.down_until.is_some() {
            states.add(State::Down, true);
            return states;
        }
        let status = node.core.status();
        states.add(State::NotConnected, !status.connected);
        states.add(State::Greeting, status.connected && !status.in_step);
        states.add(State::Replaying, node.card.replays());
        states.add(State::BatchOpen, !node.out.is_empty());
        for asked in node.asked.values() {
            match asked {
                Asked::Open | Asked::WrongOpen(_) => states.add(State::OpenPending, end == 1),
                Asked::GetKey(_) => states.add(State::GetKeyPending, end == 1),
                Asked::Stranger(_) => {}
                Asked::Close(_) => states.add(State::ClosePending, true),
            }
        }
        let mut idle = status.in_step && leader.last == leader.peer_applied;
        for stream in node.core.streams() {
            idle &= !stream.wanted || stream.closed;
            states.add(State::HalfOpen, stream.opened != stream.peer_opened);
            states.add(State::Suspended, stream.suspended);
            states.add(State::ClosedHere, stream.closed);
            states.add(State::WindowFull, stream.next - stream.position.min(stream.next) >= FULL);
            if let Some(state) = node.disk.durable().streams.get(&stream.stream) {
                states.add(State::ProgressUnwritten, stream.position > state.position);
                states.add(State::SkipPending, state.wish > state.next);
            }
        }
        states.add(State::Idle, idle);
        states.add(State::Delivering, node.pushers.values().any(super::push::Pusher::is_delivering));
        states.add(State::AwaitingBlock, awaits(node));
        states
    }
}

/// Whether something was granted that still has to come from the card.
fn awaits(node: &Node) -> bool {
    let durable = node.disk.durable();
    durable.log.values().any(|logged| match &logged.entry.decision {
        Decision::Grant(grant) => {
            let owed = durable
                .streams
                .get(&grant.stream)
                .is_some_and(|s| !s.closed && s.wanted && s.position < grant.end());
            owed && grant
                .extents
                .iter()
                .any(|e| !node.vault.contains_key(&e.block) && node.card.retains(e.block))
        }
        _ => false,
    })
}

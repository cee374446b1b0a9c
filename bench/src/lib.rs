//! What is measured that needs more than a call: two cores of the key agreement that talk without loss, without push and
//! without a disk.

use qkd_daemon::agreement::{
    Action, BlockName, Capacity, CardFacts, Core, Durable, Event, Message, Now, Output, Role, Settings,
};
use qkd_daemon::calls::{Answer, Call, GetKey, Open};
use qkd_daemon::interface::{KeyStreamId, QosRequest};
use qkd_driver::LinkState;

const KMS: [&str; 2] = ["kms://a", "kms://b"];
/// Octets of a block.
pub const BLOCK: u32 = 65_536;
/// Octets of a chunk.
pub const CHUNK: u32 = 32;

/// Both ends, in step, with key streams that both KMSs want.
pub struct Pair {
    cores: [Core; 2],
    streams: Vec<KeyStreamId>,
    sequence: u64,
    time: u64,
    /// What each end was told and has not looked at.
    wires: [Vec<Message>; 2],
    granted: [u64; 2],
    answers: Vec<Answer>,
    /// Where each stream has come to, at each end.
    delivered: [Vec<(KeyStreamId, u64)>; 2],
    out: Output,
}

impl Pair {
    /// With so many key streams of the same kind.
    ///
    /// # Panics
    /// When the two do not come to terms.
    #[must_use]
    pub fn with_streams(number: u128) -> Self {
        let mut pair = Self {
            cores: [Role::Leader, Role::Follower].map(|role| Core::new(settings(role), Durable::default())),
            streams: Vec::new(),
            sequence: 0,
            time: 1_000,
            wires: [Vec::new(), Vec::new()],
            granted: [0; 2],
            answers: Vec::new(),
            delivered: [Vec::new(), Vec::new()],
            out: Output::default(),
        };
        for end in 0..2 {
            pair.event(end, Event::Start);
            pair.event(end, Event::ReplayEnd);
            pair.event(end, Event::Session { session: 1, previous_blocks: 0 });
            pair.event(end, Event::Link { state: LinkState::Distilling, secret_key_rate_bps: 1_000_000_000 });
        }
        pair.wires = [Vec::new(), Vec::new()];
        for end in 0..2 {
            pair.event(end, Event::PeerConnected);
        }
        pair.exchange();
        for id in 1..=number {
            let id = KeyStreamId::from_u128(id);
            for (end, kms) in KMS.into_iter().enumerate() {
                let [source, destination] = KMS.map(str::to_owned);
                let qos = QosRequest { key_chunk_size: Some(CHUNK), ..QosRequest::default() };
                let open = Open { kms: kms.to_owned(), source, destination, stream: Some(id), qos };
                pair.call(end, Call::Open(open));
            }
            for end in 0..2 {
                pair.call(end, Call::GetKey(GetKey { kms: None, stream: id, index: None }));
            }
            pair.streams.push(id);
        }
        assert!(
            pair.answers.iter().filter(|answer| **answer == Answer::Done).count() == pair.streams.len() * 2,
            "{:?}",
            pair.answers.last()
        );
        pair
    }

    /// Both cards deliver a block; it is granted, told, applied, and accepted by both KMSs. Gives the chunks that each end pushed.
    pub fn block(&mut self) -> [u64; 2] {
        let name = BlockName::new(1, self.sequence);
        self.sequence += 1;
        self.granted = [0; 2];
        for end in 0..2 {
            self.event(end, Event::BlockHeld { name, length: BLOCK, replayed: false });
        }
        self.exchange();
        for end in 0..2 {
            for (stream, up_to) in std::mem::take(&mut self.delivered[end]) {
                self.event(end, Event::Accepted { stream, up_to });
            }
        }
        self.exchange();
        self.granted
    }

    fn call(&mut self, end: usize, call: Call) {
        let fresh_stream = KeyStreamId::from_u128(u128::MAX);
        self.event(end, Event::Call { id: 1, call, fresh_stream });
        self.exchange();
    }

    /// Until neither has anything to say or to do.
    fn exchange(&mut self) {
        for _ in 0..1_000 {
            self.time += 1;
            let mut silent = true;
            for end in 0..2 {
                for message in std::mem::take(&mut self.wires[end]) {
                    silent = false;
                    self.event(end, Event::PeerMessage(message));
                }
                if self.cores[end].deadline().is_some_and(|due| due <= self.time) {
                    silent = false;
                    self.event(end, Event::Tick);
                }
            }
            if silent {
                return;
            }
        }
    }

    fn event(&mut self, end: usize, event: Event) {
        let now = Now { boot_ms: self.time, wall_ms: 1_700_000_000_000 + self.time };
        self.cores[end].handle(now, event, &mut self.out);
        self.out.writes.clear();
        for action in std::mem::take(&mut self.out.actions) {
            match action {
                Action::Send(message) => self.wires[1 - end].push(message),
                Action::Deliver(delivery) => {
                    self.granted[end] += u64::from(delivery.count);
                    let up_to = delivery.first + u64::from(delivery.count);
                    self.delivered[end].push((delivery.stream, up_to));
                }
                Action::Answer { answer, .. } => self.answers.push(answer),
                _ => {}
            }
        }
    }
}

fn settings(role: Role) -> Settings {
    let (own, peer, name) = match role {
        Role::Leader => (1, 2, "A"),
        Role::Follower => (2, 1, "B"),
    };
    let card = CardFacts {
        serial: own,
        peer_serial: peer,
        cell: 0,
        newest: None,
        retention: Capacity { bytes: 64 << 20, blocks: 65_536 },
    };
    let kms = vec![KMS[usize::from(own == 2)].to_owned()];
    Settings {
        most_streams: 65_536,
        most_streams_per_kms: 65_536,
        most_half_open_per_kms: 65_536,
        ..Settings::new(name.to_owned(), role, card, 7, kms)
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, CHUNK, Pair};

    #[test]
    fn what_is_measured_is_all_key_of_a_block_at_both_ends() {
        for streams in [1, 16, 300] {
            let mut pair = Pair::with_streams(streams);
            let pushed =
                (0..64).map(|_| pair.block()).fold([0; 2], |sum, now| [sum[0] + now[0], sum[1] + now[1]]);
            let block = u64::from(BLOCK / CHUNK);
            // That the follower has applied the last ones may not have been reported yet.
            let all = block * 62..=block * 64;
            assert!(pushed.iter().all(|pushed| all.contains(pushed)), "{streams}: {pushed:?}");
        }
    }
}

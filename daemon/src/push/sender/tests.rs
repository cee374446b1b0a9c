//! Random schedules of deliveries, answers, broken connections, discards, notices and resumes. Whatever happens, every
//! chunk is first sent in order with its own octets, only what was not accepted is sent again, and in the end all of
//! it is accepted and wiped.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Command, Sender};
use crate::config::{HostPort, KmsEndpoint, Push};
use crate::interface::Status;
use crate::push::answer::Answer;
use crate::push::buffer::{Pool, SendBuffer};
use crate::push::handle::{Delivery, Shared};
use crate::push::report::Failure;
use crate::push::{StreamPush, notices};
use crate::vault::{Locking, Vault};

const FIRST: u64 = (1 << 32) - 40;

#[derive(Clone, Debug)]
enum Step {
    Deliver { gap: u64, count: u32 },
    Fill,
    Answer(u16),
    Break { progressed: bool },
    Unconnected,
    Discard(u64),
    Resume,
    Notice,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (prop_oneof![5 => Just(0_u64), 1 => 1..5_u64], 1..40_u32).prop_map(|(gap, count)| Step::Deliver { gap, count }),
        12 => Just(Step::Fill),
        20 => Just(Step::Answer(201)),
        2 => prop_oneof![Just(503_u16), Just(429), Just(408)].prop_map(Step::Answer),
        1 => prop_oneof![Just(404_u16), Just(301), Just(409)].prop_map(Step::Answer),
        1 => any::<bool>().prop_map(|progressed| Step::Break { progressed }),
        1 => Just(Step::Unconnected),
        1 => (0..60_u64).prop_map(Step::Discard),
        2 => Just(Step::Resume),
        1 => Just(Step::Notice),
        8 => (0..40_u64).prop_map(Step::Wait),
    ]
}

/// A request on the wire: a position, or a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    Key(u64),
    Notice,
}

struct World {
    sender: Sender,
    buffer: SendBuffer,
    shared: Arc<Shared>,
    vault: Vault,
    chunk_size: u32,
    now: Instant,
    /// One past the last position delivered.
    delivered_to: u64,
    /// Delivered, neither accepted nor discarded, and not on its way.
    open: BTreeSet<u64>,
    /// One past the highest position sent.
    sent_to: u64,
    accepted: u64,
    /// Delivered and discarded before it was sent.
    unsent: u64,
    delivered: u64,
    /// Sent, discarded, and not accepted.
    given_up: u64,
    discarded_to: u64,
    wire: VecDeque<Wire>,
    /// A failure has been answered and what else is on its way not been settled.
    settling: bool,
    suspended: bool,
    notice_attempts: u32,
    notices: u32,
}

fn key_of(position: u64, chunk_size: u32) -> Vec<u8> {
    let seed = position.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    seed.iter().rev().copied().cycle().take(chunk_size as usize).collect()
}

impl World {
    fn new(chunk_size: u32, most_in_flight: u32) -> Self {
        let settings = Push {
            answer_deadline_ms: 5000,
            connect_deadline_ms: 3000,
            most_in_flight,
            most_bytes_in_flight: 6000,
            backoff_first_ms: 10,
            backoff_greatest_ms: 40,
            retry_after_greatest_s: 1,
        };
        let server = HostPort { host: "localhost".to_owned(), port: 1 };
        let endpoint = KmsEndpoint { secure: false, server, path: "/k".to_owned(), through: None };
        let what = StreamPush { stream: Uuid::nil(), endpoint, chunk_size, first: FIRST };
        let shared = Arc::new(Shared::default());
        let now = Instant::now();
        let sender = Sender::new(&what, &settings, Arc::clone(&shared), now);
        let buffer = Pool::new(Locking::Preferred).take(sender.longest_request()).unwrap().send;
        Self {
            sender,
            buffer,
            shared,
            vault: Vault::new(2 << 20, Locking::Preferred).unwrap(),
            chunk_size,
            now,
            delivered_to: FIRST,
            open: BTreeSet::new(),
            sent_to: FIRST,
            accepted: 0,
            unsent: 0,
            delivered: 0,
            given_up: 0,
            discarded_to: FIRST,
            wire: VecDeque::new(),
            settling: false,
            suspended: false,
            notice_attempts: 0,
            notices: 0,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Deliver { gap, count } => self.deliver(gap, count),
            Step::Fill => self.fill(),
            Step::Answer(status) => self.answer(status),
            Step::Break { progressed } => {
                for request in std::mem::take(&mut self.wire) {
                    self.not_accepted(request);
                }
                self.settling = false;
                self.sender.broke(Failure::Closed, progressed, self.now);
            }
            Step::Unconnected if self.wire.is_empty() => {
                self.sender.unconnected(Failure::ConnectDeadline, self.now);
            }
            Step::Unconnected => {}
            Step::Discard(ahead) => {
                let up_to = self.open.first().copied().unwrap_or(self.delivered_to) + ahead;
                self.discarded_to = self.discarded_to.max(up_to);
                self.sender.command(Command::Discard(up_to));
                let kept = self.open.split_off(&self.discarded_to);
                for position in std::mem::replace(&mut self.open, kept) {
                    self.give_up(position);
                }
            }
            Step::Resume => {
                // What is still to be settled may suspend it again.
                self.suspended = false;
                self.sender.command(Command::Resume);
            }
            Step::Notice => {
                self.notices += 1;
                self.sender.command(Command::Notice(Status::InsufficientKey, self.delivered_to));
            }
            Step::Wait(ms) => self.now += Duration::from_millis(ms),
        }
        self.sender.account(self.now);
        let stopped = self.sender.stopped();
        assert_eq!(stopped.sent_up_to, self.sent_to.max(self.discarded_to));
        let on_its_way = self.wire.iter().find_map(|request| match request {
            Wire::Key(position) => Some(*position),
            Wire::Notice => None,
        });
        let again = self.open.first().copied().filter(|position| *position < self.sent_to);
        let lowest = [on_its_way, again].into_iter().flatten().min();
        assert_eq!(stopped.accepted_up_to, lowest.unwrap_or(stopped.sent_up_to));
        assert_eq!(self.shared.counters.snapshot().chunks_discarded, self.unsent);
    }

    fn give_up(&mut self, position: u64) {
        if position < self.sent_to {
            self.given_up += 1;
        } else {
            self.unsent += 1;
        }
    }

    fn not_accepted(&mut self, request: Wire) {
        match request {
            Wire::Key(position) if position < self.discarded_to => self.give_up(position),
            Wire::Key(position) => {
                self.open.insert(position);
            }
            Wire::Notice => {}
        }
    }

    fn deliver(&mut self, gap: u64, count: u32) {
        let first = self.delivered_to + gap;
        let end = first + u64::from(count);
        let octets: Vec<u8> = (first..end).flat_map(|position| key_of(position, self.chunk_size)).collect();
        let Some(mut room) = self.vault.reserve(u32::try_from(octets.len()).unwrap()) else { return };
        room.as_mut_slice().copy_from_slice(&octets);
        let mut block = room.seal();
        let half = u32::try_from(octets.len()).unwrap() / 2;
        let mut key = Vec::new();
        if half > 0 {
            key.push(block.take(0, half).unwrap());
        }
        key.push(block.take(half, u32::try_from(octets.len()).unwrap() - half).unwrap());
        self.shared.extents.fetch_add(key.len(), Ordering::Relaxed);
        self.sender.command(Command::Deliver(Delivery { first, count, key }));
        self.delivered += u64::from(count);
        self.delivered_to = end;
        for position in first..end {
            self.not_accepted(Wire::Key(position));
        }
    }

    fn fill(&mut self) {
        self.sender.fill(&mut self.buffer, self.now);
        let octets = self.buffer.unwritten().to_vec();
        let mut rest = &octets[..];
        while !rest.is_empty() {
            let mut fields = [httparse::EMPTY_HEADER; 8];
            let mut head = httparse::Request::new(&mut fields);
            let httparse::Status::Complete(start) = head.parse(rest).unwrap() else { panic!("half a head") };
            let length = head.headers.iter().find(|field| field.name == "Content-Length").unwrap().value;
            let length: usize = std::str::from_utf8(length).unwrap().parse().unwrap();
            let body: Value = serde_json::from_slice(&rest[start..start + length]).unwrap();
            rest = &rest[start + length..];
            self.request(&body);
        }
        self.buffer.wrote(octets.len());
        assert!(self.buffer.is_empty());
    }

    fn request(&mut self, body: &Value) {
        assert!(!self.settling, "sent before what was on its way was settled");
        assert!(self.wire.back() != Some(&Wire::Notice), "sent behind a notice");
        if body["status"] != 0 {
            assert!(self.wire.is_empty(), "a notice among chunks");
            assert_eq!(body["key_buffer"], "");
            self.notice_attempts += 1;
            self.wire.push_back(Wire::Notice);
            return;
        }
        assert!(!self.suspended, "sent while suspended");
        let index = body["index"].as_u64().unwrap();
        let behind = FIRST.wrapping_sub(index) & 0xffff_ffff;
        let position = if behind == 0 { FIRST } else { FIRST + ((1 << 32) - behind) };
        let key = base64_turbo::STANDARD.decode(body["key_buffer"].as_str().unwrap()).unwrap();
        assert_eq!(key, key_of(position, self.chunk_size), "wrong key at {position}");
        assert!(position >= self.discarded_to, "{position} was discarded");
        assert_eq!(self.open.pop_first(), Some(position), "not the lowest that is to be sent");
        self.sent_to = self.sent_to.max(position + 1);
        self.wire.push_back(Wire::Key(position));
    }

    fn answer(&mut self, status: u16) {
        let answer = Answer { status, close: false, retry_after: None, excerpt: String::new() };
        let Some(request) = self.wire.pop_front() else {
            assert!(self.sender.answered(answer, self.now).is_err(), "an answer to nothing was taken");
            return;
        };
        let (success, refused) = (status < 300, matches!(status, 301 | 404 | 409));
        if success {
            self.accepted += u64::from(request != Wire::Notice);
        } else {
            self.not_accepted(request);
        }
        // A notice that is refused stops nothing.
        if !success && request != Wire::Notice {
            self.suspended |= refused && !self.settling;
            self.settling = true;
        }
        self.settling &= !self.wire.is_empty();
        self.sender.answered(answer, self.now).unwrap();
    }

    /// The KMS is well again.
    fn heal(&mut self) {
        for _ in 0..20_000 {
            if self.wire.is_empty() {
                self.step(Step::Resume);
                self.step(Step::Wait(100));
                if !self.sender.has_work(self.now) {
                    return;
                }
                self.step(Step::Fill);
            }
            self.step(Step::Answer(201));
        }
        panic!("no end of it");
    }
}

proptest! {
    #[test]
    fn no_schedule_breaks_order_repeats_a_chunk_or_loses_one(
        chunk_size in prop_oneof![Just(1_u32), Just(16), Just(32), Just(300), Just(5000)],
        most_in_flight in prop_oneof![Just(1_u32), Just(2), Just(16), Just(256)],
        steps in prop::collection::vec(step(), 1..160),
    ) {
        let mut world = World::new(chunk_size, most_in_flight);
        for step in steps {
            world.step(step);
        }
        world.heal();
        prop_assert_eq!(world.accepted + world.unsent + world.given_up, world.delivered, "chunks were lost");
        prop_assert_eq!(&world.open, &BTreeSet::new());
        prop_assert_eq!(world.sender.stopped().accepted_up_to, world.sender.stopped().sent_up_to);
        prop_assert!(world.notice_attempts <= world.notices * notices::ATTEMPTS);
        prop_assert_eq!(world.shared.extents.load(Ordering::Relaxed), 0);
        prop_assert_eq!(world.vault.used(), 0);
    }
}

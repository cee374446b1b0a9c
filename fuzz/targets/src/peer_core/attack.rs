//! One step of the attack, as the fuzzer's octets say.

use qkd_daemon::agreement::{
    BlockName, Capacity, Decision, Digest, Entry, Event, Extent, FollowerLine, Grant, Hello, LeaderLine, Log,
    Mark, Message, OpenDecision, OpenReply, OpenRequest, PROTOCOL_VERSION, Range, Report, Role,
};
use qkd_daemon::interface::{KeyStreamId, Qos, QosRequest, Status};
use serde_json::{Value, json};

use super::ends::Ends;
use crate::input::Input;

/// Kinds of steps.
pub(super) const KINDS: u8 = 16;

pub(super) fn step(ends: &mut Ends, input: &mut Input<'_>) {
    let attacked = ends.attacked;
    match input.byte() % KINDS {
        0 => ends.run(u64::from(input.byte() % 64)),
        1 => ends.block(input.byte() % 4),
        2 => {
            ends.accept(0);
            ends.accept(1);
        }
        3 => kms_call(ends, input),
        4 => {
            // What is on its way is lost, doubled or overtaken.
            let wire = &mut ends.wires[attacked];
            match input.byte() % 3 {
                0 => drop(wire.pop_front()),
                1 => wire.extend(wire.front().cloned()),
                _ => wire.rotate_left(usize::from(!wire.is_empty())),
            }
        }
        5 => {
            let Some(message) = known(ends, input) else { return };
            say(ends, message);
        }
        6 | 7 => {
            let Some(message) = known(ends, input) else { return };
            let mut json = serde_json::to_value(&message).expect("a message is JSON");
            for _ in 0..=input.byte() % 3 {
                let (at, value) = (usize::from(input.u16()), value(ends, input));
                let count = leaves(&mut json, usize::MAX, &value);
                leaves(&mut json, at % count.max(1), &value);
            }
            if let Ok(message) = Message::decode(json.to_string().as_bytes()) {
                say(ends, message);
            }
        }
        8 | 9 => {
            let message = entries(ends, input);
            say(ends, message);
        }
        10 => {
            let message = report(ends, input);
            say(ends, message);
        }
        11 => {
            let message = greeting(ends, input);
            say(ends, message);
        }
        12 => {
            let message = opening(ends, input);
            say(ends, message);
        }
        13 => {
            let length = usize::from(input.byte());
            if let Ok(message) = Message::decode(input.take(length)) {
                say(ends, message);
            }
        }
        14 => match input.byte() % 8 {
            0 => ends.restart(),
            1 => ends.jump(input.number() % 100_000_000),
            _ => ends.connect(),
        },
        _ => {
            let Some(stream) = stream(ends, input) else { return };
            match input.byte() % 2 {
                0 => ends.event(attacked, Event::Suspended { stream, why: "refused".to_owned() }),
                _ => {
                    let event = Event::Newest { name: BlockName::new(1, input.number() % 64) };
                    ends.event(attacked, event);
                }
            }
        }
    }
}

/// The end under attack hears `message`.
fn say(ends: &mut Ends, message: Message) {
    // The core is given only what a frame could carry.
    if message.encode().is_err() {
        return;
    }
    if !ends.ends[ends.attacked].core.status().connected {
        ends.connect();
    }
    ends.event(ends.attacked, Event::PeerMessage(message));
}

fn known(ends: &Ends, input: &mut Input<'_>) -> Option<Message> {
    let back = usize::from(input.byte());
    let count = ends.heard.len();
    ends.heard.get(count.checked_sub(1 + back % count.max(1))?).cloned()
}

fn stream(ends: &Ends, input: &mut Input<'_>) -> Option<KeyStreamId> {
    let pick = usize::from(input.byte());
    if pick >= 200 {
        return Some(KeyStreamId::from_u128(pick as u128));
    }
    ends.streams.get(pick % ends.streams.len().max(1)).copied()
}

fn any_stream(ends: &Ends, input: &mut Input<'_>) -> KeyStreamId {
    stream(ends, input).unwrap_or(KeyStreamId::from_u128(5))
}

fn kms_call(ends: &mut Ends, input: &mut Input<'_>) {
    let end = usize::from(input.byte() & 1);
    match input.byte() % 4 {
        0 => ends.open_stream(),
        1 => {
            let stream = stream(ends, input);
            ends.open(end, stream, u32::from(input.byte()).max(1));
        }
        2 => {
            let Some(stream) = stream(ends, input) else { return };
            let index = (input.byte() & 1 == 1).then(|| input.number() as u32);
            ends.get_key(end, stream, index);
        }
        _ => {
            let Some(stream) = stream(ends, input) else { return };
            ends.close(end, stream);
        }
    }
}

fn value(ends: &Ends, input: &mut Input<'_>) -> Value {
    match input.byte() % 6 {
        0..=2 => json!(input.number()),
        3 => json!(input.byte() & 1 == 1),
        4 => json!(any_stream(ends, input)),
        _ => json!(String::from_utf8_lossy(input.take(8))),
    }
}

/// Puts `value` in the place of the leaf number `at`; how many leaves there are.
fn leaves(json: &mut Value, at: usize, value: &Value) -> usize {
    let inner: Vec<&mut Value> = match json {
        Value::Object(map) => map.iter_mut().filter(|(name, _)| *name != "type").map(|(_, v)| v).collect(),
        Value::Array(inner) if !inner.is_empty() => inner.iter_mut().collect(),
        leaf => {
            if at == 0 {
                *leaf = value.clone();
            }
            return 1;
        }
    };
    let mut passed = 0;
    for inner in inner {
        passed += leaves(inner, at.checked_sub(passed).unwrap_or(usize::MAX), value);
    }
    passed
}

fn qos(input: &mut Input<'_>) -> Qos {
    Qos {
        key_chunk_size: input.number() as u32,
        max_bps: u32::MAX - input.number() as u32,
        min_bps: 0,
        jitter: 0,
        priority: input.byte().into(),
        timeout: 1 + u32::from(input.byte()),
        ttl: input.number() as u32,
        metadata_mimetype: "application/json".to_owned(),
    }
}

fn mark(input: &mut Input<'_>) -> Mark {
    Mark::from((1, input.number(), input.number() as u32))
}

fn decision(ends: &Ends, input: &mut Input<'_>) -> Decision {
    let stream = any_stream(ends, input);
    match input.byte() % 8 {
        0 => Decision::Open(OpenDecision {
            stream,
            source: "kms://a".to_owned(),
            destination: "kms://b".to_owned(),
            qos: qos(input),
            opener: if input.byte() & 1 == 0 { Role::Leader } else { Role::Follower },
        }),
        1 => Decision::Skip { stream, to: input.number() },
        2 => Decision::Burn { to: mark(input) },
        3 => Decision::End { stream },
        _ => {
            let count = 1 + u32::from(input.byte() % 8);
            let block = BlockName::new(1, input.number() % 70);
            let offset = input.number() as u32;
            // Most lies are about places; a length that does not fit the chunks is refused at once.
            let length = if input.byte() < 200 { count * 32 } else { input.number() as u32 };
            let mut extents = vec![Extent { block, offset, length }];
            if input.byte() >= 240 {
                extents.push(Extent { block: block.next(), offset: 0, length: input.number() as u32 });
            }
            let mark = if input.byte() < 200 {
                Mark::from((1, block.sequence, offset.wrapping_add(length)))
            } else {
                mark(input)
            };
            let next = ends.ends[ends.attacked].durable.streams.get(&stream).map_or(0, |state| state.next);
            let first = if input.byte() < 160 { next } else { input.number() };
            Decision::Grant(Grant { stream, first, count, extents, mark })
        }
    }
}

/// Entries that follow from what the end under attack has, whatever they say.
fn entries(ends: &Ends, input: &mut Input<'_>) -> Message {
    let durable = &ends.ends[ends.attacked].durable;
    let (mut number, mut hash) = (durable.last, durable.hash);
    let mut entries = Vec::new();
    for _ in 0..=input.byte() % 3 {
        number = number.saturating_add(1);
        let entry = Entry::chained(&hash, number, decision(ends, input));
        hash = entry.hash;
        entries.push(entry);
    }
    let streams = ends
        .streams
        .iter()
        .take(usize::from(input.byte() % 3))
        .map(|stream| {
            let octet = input.byte();
            let (closed, behind) = (octet >= 200, Some(u64::from(octet) << 56));
            LeaderLine { stream: *stream, opened: true, wanted: true, closed, behind }
        })
        .collect();
    let epoch = if input.byte() >= 250 { input.number() } else { durable.epoch };
    Message::Log(Log { epoch, heard: input.number(), entries, streams })
}

fn report(ends: &Ends, input: &mut Input<'_>) -> Message {
    let durable = &ends.ends[ends.attacked].durable;
    let last = ends.heard.iter().rev().find_map(|message| match message {
        Message::Report(report) => Some(report.serial),
        _ => None,
    });
    let (applied, hash) = match input.byte() % 4 {
        0 => (durable.peer_applied, durable.peer_hash),
        1 => (input.number(), Digest::NONE),
        _ => (durable.last, durable.hash),
    };
    let mut first = 0_u64;
    let have = (0..input.byte() % 4)
        .map(|_| {
            first = first.saturating_add(input.number());
            let last = first.saturating_add(input.number());
            let range = Range { session: 1, first, last };
            first = last.saturating_add(2);
            range
        })
        .collect();
    let streams = ends
        .streams
        .iter()
        .take(usize::from(input.byte() % 3))
        .map(|stream| FollowerLine {
            stream: *stream,
            opened: true,
            wanted: input.byte() < 200,
            closed: input.byte() >= 200,
            position: input.number(),
            wish: input.number(),
        })
        .collect();
    let capacity = Capacity { bytes: input.number(), blocks: input.number() };
    Message::Report(Report {
        epoch: durable.epoch,
        serial: last.unwrap_or(0).saturating_add(u64::from(input.byte())),
        urgent: input.byte() & 1 == 1,
        applied,
        hash,
        have,
        complete: BlockName::new(1, input.number()),
        streams,
        link: input.number() as u32,
        secret_key_rate_bps: input.number(),
        capacity,
        pinned: Capacity { bytes: 0, blocks: input.number() },
    })
}

fn greeting(ends: &Ends, input: &mut Input<'_>) -> Message {
    let durable = &ends.ends[ends.attacked].durable;
    if input.byte() >= 240 {
        return Message::Refuse { reason: "no".to_owned() };
    }
    let other = [(Role::Leader, 1), (Role::Follower, 2)][1 - ends.attacked];
    Message::Hello(Hello {
        version: PROTOCOL_VERSION,
        role: other.0,
        module: "X".to_owned(),
        epoch: if input.byte() < 128 { durable.epoch } else { input.number() },
        last: if input.byte() < 128 { durable.last } else { input.number() },
        hash: if input.byte() < 200 { durable.hash } else { Digest::NONE },
        card: other.1,
        peer_card: 3 - other.1,
        kms: vec![["kms://b", "kms://a"][ends.attacked].to_owned()],
        heard: input.byte() & 1 == 1,
    })
}

fn opening(ends: &Ends, input: &mut Input<'_>) -> Message {
    let stream = any_stream(ends, input);
    if input.byte() & 1 == 0 {
        return Message::OpenRequest(OpenRequest {
            call: input.number(),
            stream,
            chosen: input.byte() & 1 == 1,
            kms: "kms://b".to_owned(),
            source: "kms://a".to_owned(),
            destination: "kms://b".to_owned(),
            qos: QosRequest { key_chunk_size: Some(input.number() as u32), ..QosRequest::default() },
        });
    }
    let status = Status::try_from(u32::from(input.byte() % 9)).unwrap_or(Status::Timeout);
    let counter_proposal = (input.byte() & 1 == 1).then(|| qos(input));
    Message::OpenReply(OpenReply {
        call: input.number(),
        stream,
        status,
        detail: "x".to_owned(),
        counter_proposal,
    })
}

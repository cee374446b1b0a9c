//! Nobody costs the others anything, in virtual time and without a fault but the one that is looked at.

use qkd_daemon::calls::{Call, Open};
use qkd_daemon::interface::{KeyStreamId, QosRequest};

use super::node::{Asked, kms};
use super::push::Mood;
use super::world::World;

/// Rounds of 3 ms that a world runs.
const ROUNDS: usize = 1_000;

/// A stream: which KMS at each end, and its quality of service.
type Wish = (usize, usize, QosRequest);

fn qos(chunk: u32) -> QosRequest {
    QosRequest { key_chunk_size: Some(chunk), ..QosRequest::default() }
}

/// Octets that each of `wishes` has had at both ends after [`ROUNDS`], with the leader's KMS number 1 in `mood`.
fn octets(wishes: &[Wish], mood: Mood) -> Vec<u64> {
    let mut world = World::new(1, None, false);
    world.steady = true;
    world.faults.clear();
    let verdict = (|| {
        world.begin()?;
        world.all_well(20)?;
        for (at, (a, b, qos)) in wishes.iter().enumerate() {
            for end in 0..2 {
                let stream = Some(id(at));
                let (source, destination) = (kms(0, *a), kms(1, *b));
                let kms = [source.clone(), destination.clone()][end].clone();
                let open = Open { kms, source, destination, stream, qos: qos.clone() };
                world.call(end, Call::Open(open), Asked::Open)?;
                world.all_well(10)?;
            }
        }
        for end in 0..2 {
            for at in 0..wishes.len() {
                world.get_key(end, id(at), None)?;
            }
        }
        world.nodes[0].moods[1] = mood;
        world.all_well(ROUNDS)
    })();
    verdict.expect("nothing is broken");
    let reached = |at: usize| (0..2).map(|end| world.checker.reached(end, id(at))).min().unwrap_or(0);
    let sizes = wishes.iter().map(|(_, _, qos)| u64::from(qos.key_chunk_size.unwrap_or(0)));
    sizes.enumerate().map(|(at, size)| reached(at) * size).collect()
}

fn id(at: usize) -> KeyStreamId {
    KeyStreamId::from_u128(1_000_000 + at as u128)
}

#[test]
fn a_kms_that_is_down_costs_the_others_nothing() {
    let wishes = [(0, 0, qos(3)), (0, 1, qos(3)), (1, 0, qos(3))];
    let [before, after] = [Mood::Well, Mood::Down].map(|mood| octets(&wishes, mood));
    println!("octets in {} ms: all well {before:?}, the last one's KMS down {after:?}", 3 * ROUNDS);
    assert!(before.iter().all(|octets| *octets > 1_000), "{before:?}");
    assert!(after[2] < 50, "it is down: {after:?}");
    for at in 0..2 {
        assert!(after[at] >= before[at], "stream {at}: {before:?}, then {after:?}");
    }
}

#[test]
fn equals_share_alike_and_a_minimum_is_kept_beside_a_priority() {
    let equals = octets(&[(0, 0, qos(3)), (0, 0, qos(3)), (1, 1, qos(3)), (1, 0, qos(3))], Mood::Well);
    println!("octets of equals: {equals:?}");
    let (least, most) = (equals.iter().min().unwrap(), equals.iter().max().unwrap());
    assert!(least * 10 >= most * 8, "{equals:?}");
    let preferred = QosRequest { priority: Some(1), ..qos(3) };
    let minimum = QosRequest { min_bps: Some(4_000), ..qos(3) };
    let got = octets(&[(0, 0, preferred), (0, 0, minimum)], Mood::Well);
    println!("octets of one with priority and one with a minimum of 500 octets a second: {got:?}");
    assert!(got[1] >= 500 * 3 * ROUNDS as u64 / 1_000, "{got:?}");
}

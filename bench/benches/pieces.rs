//! What the pieces cost: `./dev bench pieces`.
#![allow(missing_docs, reason = "criterion's macros")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use qkd_bench::{BLOCK, CHUNK, Pair};
use qkd_daemon::push::measuring::{Answers, Requests};
use qkd_driver::measuring::Slots;

/// Slots of a ring; 64 of 64 KiB are what a daemon asks for unless told.
const SLOTS: usize = 64;

/// A block out of DMA memory: copied once, summed up, wiped; against memcpy over the same ring.
fn ingest(criterion: &mut Criterion) {
    for octets in [4_096_usize, 65_536] {
        let slots = Slots::new(octets, SLOTS).expect("locked memory");
        let key: Vec<u8> = (0..octets).map(|at| u8::try_from(at % 251).expect("an octet")).collect();
        let mut room = vec![0; octets];
        let mut group = criterion.benchmark_group(format!("ingest {octets}"));
        group.throughput(Throughput::Bytes(octets as u64));
        for slot in 0..SLOTS {
            slots.deliver(slot, &key);
        }
        let mut slot = 0;
        group.bench_function("memcpy", |bencher| {
            bencher.iter(|| {
                slots.memcpy(slot, black_box(&mut room));
                slot += 1;
            });
        });
        assert_eq!(room, key, "all of it was copied");
        group.bench_function("copy, check and wipe", |bencher| {
            bencher.iter(|| {
                black_box(slots.take(slot, black_box(&mut room)));
                slot += 1;
            });
        });
        group.finish();
    }
}

fn request(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("request");
    for octets in [32_u32, 256, 4_096, 65_536] {
        let key = vec![0x5a; octets as usize];
        let mut requests = Requests::new(octets);
        group.throughput(Throughput::Bytes(octets.into()));
        group.bench_function(BenchmarkId::from_parameter(octets), |bencher| {
            let mut position = 1_000_000;
            bencher.iter(|| {
                position += 1;
                black_box(requests.write(position, black_box(&key)).map(<[u8]>::len))
            });
        });
    }
    group.finish();
}

fn answer(criterion: &mut Criterion) {
    let one =
        "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{\"status\":0}";
    let many = one.repeat(64);
    let mut group = criterion.benchmark_group("answer");
    group.throughput(Throughput::Elements(64));
    for (name, remembers) in [("parsed", false), ("known", true)] {
        let mut answers = Answers::new();
        assert_eq!(answers.read(many.as_bytes(), remembers), 64);
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(answers.read(black_box(many.as_bytes()), remembers)));
        });
    }
    group.finish();
}

/// A block, granted by the leader, told to the follower and applied there, and accepted at both ends: both cores together,
/// per chunk.
fn grant(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("grant");
    group.throughput(Throughput::Elements(u64::from(BLOCK / CHUNK)));
    for streams in [1_u32, 16, 1_000] {
        let mut pair = Pair::with_streams(streams.into());
        group.bench_function(BenchmarkId::from_parameter(streams), |bencher| {
            bencher.iter(|| black_box(pair.block()));
        });
    }
    group.finish();
}

criterion_group!(pieces, ingest, request, answer, grant);
criterion_main!(pieces);

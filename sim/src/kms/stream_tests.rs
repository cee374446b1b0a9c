use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::history::position;
use crate::history::read::Reader;
use crate::history::record::{Header, VERSION, Violation};
use crate::history::write::Recorder;

const T: Milliseconds = 1_000_000;

struct Bench {
    _directory: tempfile::TempDir,
    path: PathBuf,
    journal: Journal,
    stream: Stream,
}

impl Bench {
    fn new(kind: KeyKind, sample_above: u64) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("history");
        let journal = Journal::new(Some(Recorder::create(&path).expect("creates")), false);
        journal.record(&Line::History(Header {
            version: VERSION,
            recording: Uuid::nil(),
            kms: String::new(),
            source: String::new(),
            destination: String::new(),
            module: String::new(),
            t: 0,
        }));
        let mut stream = Stream::new(Uuid::from_u128(1), 32, Watch { kind, sample_above, remembered: 1024 });
        stream.asked();
        Self { _directory: directory, path, journal, stream }
    }

    fn give(&mut self, index: u32, key: &[u8], answer: u16) -> Verdict {
        let key = base64_turbo::STANDARD.encode(key).into_bytes().into();
        let material = KeyMaterial { status: 0, index, key, stream: Uuid::from_u128(1) };
        self.stream.take(&material, answer, T, &self.journal)
    }

    /// The chunk of test key that belongs at `index`, if the stream is made of block 5 alone.
    fn good(&mut self, index: u32) -> Verdict {
        let key = chunk(index);
        self.give(index, &key, 201)
    }

    fn lines(mut self) -> Vec<Line> {
        self.stream.flush(&self.journal);
        self.journal.finish(T).expect("written");
        let mut reader = Reader::open(&self.path).expect("opens");
        std::iter::from_fn(|| reader.next_line().expect("reads")).collect()
    }

    fn violations(self) -> Vec<Invariant> {
        self.lines()
            .into_iter()
            .filter_map(|line| match line {
                Line::Violation(Violation { invariant, .. }) => Some(invariant),
                _ => None,
            })
            .collect()
    }
}

fn chunk(index: u32) -> [u8; 32] {
    let mut key = [0; 32];
    position::fill(1, 5, index * 32, &mut key);
    key
}

#[test]
fn a_stream_in_order_has_no_violation_and_every_chunk_recorded() {
    let mut bench = Bench::new(KeyKind::Positional, u64::MAX);
    (0..100).for_each(|index| assert_eq!(bench.good(index), Verdict::Accept));
    let lines = bench.lines();
    assert_eq!(lines.iter().filter(|line| matches!(line, Line::Chunk(_))).count(), 100);
    assert_eq!(lines.len(), 101);
}

#[test]
fn a_fast_stream_is_recorded_in_runs_that_leave_nothing_out() {
    let mut bench = Bench::new(KeyKind::Positional, 100);
    (0..5000).for_each(|index| assert_eq!(bench.good(index), Verdict::Accept));
    let lines = bench.lines();
    let mut next = 0;
    for line in &lines {
        let (first, count, octets) = match line {
            Line::Chunk(chunk) => (chunk.position, 1, 32),
            Line::Run(run) => (
                run.first,
                run.count,
                run.origin.iter().map(|p| crate::history::trace::Piece::from(*p).length()).sum(),
            ),
            _ => continue,
        };
        assert_eq!(first, next);
        assert_eq!(u64::from(octets), count * 32);
        next += count;
    }
    assert_eq!(next, 5000);
    assert!(lines.len() < 150, "{}", lines.len());
}

#[test]
fn a_repeated_chunk_with_other_octets_is_caught() {
    let mut bench = Bench::new(KeyKind::Positional, u64::MAX);
    (0..10).for_each(|index| drop(bench.good(index)));
    assert_eq!(bench.good(4), Verdict::Accept);
    assert_eq!((bench.stream.counts.chunks, bench.stream.counts.duplicates), (10, 1));
    bench.give(4, &chunk(5), 201);
    assert_eq!(bench.violations(), [Invariant::I3]);
}

#[test]
fn a_refused_chunk_counts_as_refused_until_it_is_accepted() {
    let mut bench = Bench::new(KeyKind::Positional, u64::MAX);
    bench.give(0, &chunk(0), 503);
    bench.give(0, &chunk(0), 503);
    assert_eq!(bench.stream.counts.refused, 1);
    bench.give(0, &chunk(0), 201);
    bench.give(0, &chunk(0), 201);
    assert_eq!((bench.stream.counts.refused, bench.stream.counts.chunks), (0, 1));
    assert!(bench.violations().is_empty());
}

#[test]
fn key_out_of_order_missing_or_shifted_is_caught() {
    let mut bench = Bench::new(KeyKind::Positional, u64::MAX);
    [0, 1, 4, 5, 3].into_iter().for_each(|index| drop(bench.good(index)));
    assert_eq!((bench.stream.counts.gaps, bench.stream.counts.missing), (1, 2));
    assert_eq!(bench.violations(), [Invariant::I4]);

    let mut bench = Bench::new(KeyKind::Positional, u64::MAX);
    bench.good(5);
    bench.give(6, &chunk(2), 201);
    assert_eq!(bench.violations(), [Invariant::I2], "key that goes back");
}

#[test]
fn invented_damaged_zero_and_repeated_key_is_caught() {
    let mut bench = Bench::new(KeyKind::Auto, u64::MAX);
    (0..20).for_each(|index| drop(bench.good(index)));
    let mut damaged = chunk(20);
    damaged[20] ^= 1;
    bench.give(20, &damaged, 201);
    (21..23).for_each(|index| drop(bench.good(index)));
    assert_eq!(bench.violations(), [Invariant::I2], "one wrong bit");

    let mut bench = Bench::new(KeyKind::Positional, u64::MAX);
    bench.give(0, &[7; 32], 201);
    let lines = bench.lines();
    assert!(lines.iter().any(|line| matches!(line, Line::Unexplained(_))), "{lines:?}");

    let mut bench = Bench::new(KeyKind::Random, u64::MAX);
    bench.give(0, &chunk(9), 201);
    bench.give(1, &[0; 32], 201);
    bench.give(2, &chunk(9), 201);
    assert_eq!(bench.violations(), [Invariant::I2, Invariant::I2]);
}

#[test]
fn key_before_get_key_or_after_close_is_caught() {
    let mut bench = Bench::new(KeyKind::Positional, u64::MAX);
    bench.stream.asked = false;
    bench.good(0);
    bench.stream.asked = true;
    bench.good(1);
    bench.stream.closed();
    bench.good(2);
    assert_eq!(bench.violations(), [Invariant::I5, Invariant::I5]);
}

#[test]
fn chunks_that_are_not_as_the_interface_says_are_refused() {
    let mut bench = Bench::new(KeyKind::Positional, u64::MAX);
    assert!(matches!(bench.give(0, &[1; 31], 201), Verdict::Refuse(_)));
    let wrong = |status, key: &'static [u8]| KeyMaterial {
        status,
        index: 0,
        key: key.into(),
        stream: Uuid::from_u128(1),
    };
    for (status, key) in [
        (0, b"".as_slice()),
        (2, b"AAAA".as_slice()),
        (0, b"AA=A".as_slice()),
        (0, b"\xff\xff\xff\xff".as_slice()),
    ] {
        assert!(matches!(bench.stream.take(&wrong(status, key), 201, T, &bench.journal), Verdict::Refuse(_)));
    }
    assert_eq!(bench.stream.take(&wrong(2, b""), 201, T, &bench.journal), Verdict::Accept);
    assert_eq!((bench.stream.counts.notices, bench.stream.counts.chunks), (1, 0));
    assert_eq!(bench.violations(), [Invariant::Interface; 5]);
}

#[test]
fn positions_that_lose_their_high_bits_are_caught() {
    for base in [0_u64, 1 << 32, (1 << 40) + 5] {
        let low = |position: u64| u32::try_from(position & 0xFFFF_FFFF).expect("low bits");
        for expected in [base + 0x7FFF_0000, base + 0x8000_0000, base + 0xFFFF_FFF0] {
            for position in
                [expected, expected + 1, expected + 0x7FFF_FFFF, expected - 1, expected - 0x7000_0000]
            {
                assert_eq!(unwrap_index(low(position), expected), position, "{expected:x}");
            }
        }
    }
    assert_eq!(unwrap_index(u32::MAX, 0), u64::from(u32::MAX));
}

proptest! {
    #[test]
    fn requests_in_any_order_that_panic_are_caught(
        requests in prop::collection::vec((prop_oneof![0_u32..40, any::<u32>()], 0_u32..40, prop_oneof![Just(201_u16), Just(503)]), 0..80),
        sample_above in 0_u64..10,
    ) {
        let mut bench = Bench::new(KeyKind::Auto, sample_above);
        for (index, key, answer) in requests {
            bench.give(index, &chunk(key), answer);
        }
        let counts = bench.stream.counts.clone();
        let recorded: u64 = bench.lines().iter().map(|line| match line {
            Line::Chunk(_) => 1,
            Line::Run(run) => run.count,
            _ => 0,
        }).sum();
        prop_assert_eq!(recorded, counts.chunks);
        prop_assert!(counts.refused <= counts.chunks);
    }
}

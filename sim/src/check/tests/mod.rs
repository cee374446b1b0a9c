//! Defects planted in good histories, each of which the judge must name by the right invariant.

mod defects;
mod files;

use std::path::PathBuf;

use serde_json::{Value, json};
use uuid::Uuid;

use super::{CountedLosses, Outcome, Verdict, judge};
use crate::history::digest::Digest;
use crate::history::position;
use crate::history::record::Invariant;
use crate::history::run::RunBuilder;
use crate::history::trace::Tracer;

const STREAM: Uuid = Uuid::from_u128(0xA);
const OTHER: Uuid = Uuid::from_u128(0xB);
const CHUNK: u32 = 32;

/// Two histories as lines of JSON, which a test damages before they are judged.
struct Case {
    directory: tempfile::TempDir,
    a: Vec<Value>,
    b: Vec<Value>,
}

fn header(kms: &str, number: u128) -> Value {
    json!({"kind": "history", "version": 1, "recording": Uuid::from_u128(number), "kms": kms, "source": "kms://a",
        "destination": "kms://b", "module": "http://m", "t": 1000})
}

fn call(kind: &str, stream: Uuid, t: u64) -> Value {
    json!({"kind": kind, "t": t, "answered": t + 5, "stream": stream, "http": 205, "status": 0})
}

/// Key of a stream: `STREAM` uses the even halves of block 7 on, `OTHER` the odd ones.
fn key(stream: Uuid, chunk: u64) -> Vec<u8> {
    let (block, offset) = place(stream, chunk);
    let mut key = vec![0; CHUNK as usize];
    position::fill(3, block, offset, &mut key);
    key
}

fn place(stream: Uuid, chunk: u64) -> (u64, u32) {
    let half = u32::from(stream == OTHER);
    (7 + chunk / 100, u32::try_from(chunk % 100).expect("small") * CHUNK + half * 100 * CHUNK)
}

fn chunk(stream: Uuid, position: u64) -> Value {
    let (block, offset) = place(stream, position);
    json!({"kind": "chunk", "t": 2000 + position, "stream": stream, "index": position, "position": position,
        "length": CHUNK, "sha256": Digest::of(&key(stream, position)), "answer": 201, "origin": [[3, block, offset, CHUNK]]})
}

fn run(stream: Uuid, first: u64, count: u64) -> Value {
    let mut run = RunBuilder::new(2000 + first, first, Digest::of(&key(stream, first)));
    let mut tracer = Tracer::default();
    for position in first..first + count {
        let key = key(stream, position);
        tracer.follow(&key, &mut run.pieces);
        run.push(2000 + position, Digest::of(&key));
    }
    let mut line = serde_json::to_value(run.finish(stream, CHUNK)).expect("serialises");
    line["kind"] = "run".into();
    line
}

impl Case {
    /// Two streams of `count` chunks at both ends, each chunk recorded by itself.
    fn new(count: u64) -> Self {
        Self::of(|stream| (0..count).map(|position| chunk(stream, position)).collect(), count)
    }

    fn of(records: impl Fn(Uuid) -> Vec<Value>, count: u64) -> Self {
        let end = |kms: &str, number| {
            let mut lines = vec![header(kms, number)];
            for stream in [STREAM, OTHER] {
                lines.push(call("get_key", stream, 1500));
            }
            let mut all: Vec<Value> = [STREAM, OTHER].into_iter().flat_map(&records).collect();
            all.sort_by_key(|line| line["until"].as_u64().or(line["t"].as_u64()));
            lines.extend(all);
            lines.extend([STREAM, OTHER].map(|stream| call("close", stream, 2000 + count)));
            lines.push(json!({"kind": "end", "t": 3000 + count}));
            lines
        };
        Self {
            directory: tempfile::tempdir().expect("directory"),
            a: end("kms://a", 1),
            b: end("kms://b", 2),
        }
    }

    fn paths(&self) -> (PathBuf, PathBuf) {
        let write = |name: &str, lines: &[Value]| {
            let path = self.directory.path().join(name);
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            std::fs::write(&path, text).expect("writes");
            path
        };
        (write("a", &self.a), write("b", &self.b))
    }

    fn judged(&self) -> Verdict {
        let (a, b) = self.paths();
        judge(&a, &b, CountedLosses::default()).expect("can be judged")
    }

    /// The chunk of `STREAM` at `position` in B.
    fn chunk_in_b(&mut self, position: u64) -> &mut Value {
        self.b
            .iter_mut()
            .find(|line| {
                line["kind"] == "chunk" && line["stream"] == json!(STREAM) && line["position"] == position
            })
            .expect("the chunk")
    }

    fn drop_in_b(&mut self, positions: std::ops::Range<u64>) {
        self.b.retain(|line| {
            line["kind"] != "chunk"
                || line["stream"] != json!(STREAM)
                || !positions.contains(&line["position"].as_u64().expect("number"))
        });
    }

    fn insert_in_b(&mut self, line: Value) {
        let at = self.b.len() - 1;
        self.b.insert(at, line);
    }
}

fn broken(verdict: &Verdict) -> Vec<Invariant> {
    verdict.violations.keys().copied().collect()
}

#[track_caller]
fn assert_broken(case: &Case, invariants: &[Invariant]) {
    let verdict = case.judged();
    assert_eq!(broken(&verdict), invariants, "{}", verdict.text());
    assert_eq!(verdict.outcome, Outcome::Violated);
}

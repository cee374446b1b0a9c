use std::io::Write;

use uuid::Uuid;

use super::digest::Digest;
use super::read::{ReadError, Reader};
use super::record::{Chunk, Header, Line, OriginPiece, VERSION, steps};
use super::write::Recorder;

fn header() -> Line {
    Line::History(Header {
        version: VERSION,
        recording: Uuid::from_u128(1),
        kms: "kms://a".into(),
        source: "kms://a".into(),
        destination: "kms://b".into(),
        module: "http://127.0.0.1:1".into(),
        t: 1,
    })
}

fn chunk(position: u64) -> Line {
    Line::Chunk(Chunk {
        t: 5,
        stream: Uuid::from_u128(2),
        index: u32::try_from(position).expect("small"),
        position,
        length: 32,
        sha256: Digest::of(b"key"),
        answer: 201,
        origin: vec![OriginPiece::Named(1, 2, 3, 30), OriginPiece::Unknown([2])],
        key: None,
    })
}

fn all(path: &std::path::Path) -> (Vec<Line>, bool) {
    let mut reader = Reader::open(path).expect("opens");
    let mut lines = Vec::new();
    while let Some(line) = reader.next_line().expect("reads") {
        lines.push(line);
    }
    (lines, reader.cut_short())
}

#[test]
fn a_line_that_changes_between_writing_and_reading_is_caught() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("a");
    let recorder = Recorder::create(&path).expect("creates");
    recorder.record(&header());
    for position in 0..1000 {
        recorder.record(&chunk(position));
    }
    recorder.record(&Line::End { t: 7 });
    recorder.finish().expect("written");
    let (lines, cut_short) = all(&path);
    assert!(!cut_short);
    assert_eq!(lines.len(), 1001);
    assert_eq!(lines[999], chunk(999));
    assert!(Recorder::create(&path).is_err(), "a history was overwritten");
}

#[test]
fn the_form_on_disk_is_the_documented_one() {
    let line = serde_json::to_value(chunk(9)).expect("serialises");
    assert_eq!(line["kind"], "chunk");
    assert_eq!(line["origin"], serde_json::json!([[1, 2, 3, 30], [2]]));
    assert_eq!(line["sha256"].as_str().map(str::len), Some(64));
    assert!(line.get("key").is_none(), "key is written without being asked for");
}

#[test]
fn a_last_line_cut_short_is_left_out_and_told_but_damage_before_it_is_refused() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("a");
    let mut text = serde_json::to_string(&header()).expect("serialises") + "\n";
    text += &(serde_json::to_string(&chunk(0)).expect("serialises") + "\n");
    let whole = serde_json::to_string(&chunk(1)).expect("serialises");
    std::fs::write(&path, text.clone() + &whole[..whole.len() / 2]).expect("writes");
    assert_eq!(all(&path), (vec![chunk(0)], true));

    std::fs::write(&path, text.clone() + &whole[..whole.len() / 2] + "\n" + &whole + "\n").expect("writes");
    let mut reader = Reader::open(&path).expect("opens");
    reader.next_line().expect("good line");
    assert!(matches!(reader.next_line(), Err(ReadError::Damaged { line: 3, .. })));
}

#[test]
fn files_that_are_no_history_are_refused_in_words() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("a");
    let refused = |text: &str| {
        let mut file = std::fs::File::create(&path).expect("creates");
        file.write_all(text.as_bytes()).expect("writes");
        Reader::open(&path).expect_err("refused")
    };
    assert!(matches!(refused(""), ReadError::Empty { .. }));
    assert!(matches!(refused("{\"kind\":\"end\",\"t\":1}\n"), ReadError::NotAHistory { .. }));
    assert!(matches!(refused("\x7fELF\n"), ReadError::NotAHistory { .. }));
    assert!(matches!(
        refused("{\"kind\":\"history\",\"version\":2}\n"),
        ReadError::OtherVersion { found: 2, .. }
    ));
    assert!(matches!(Reader::open(&directory.path().join("none")), Err(ReadError::Io { .. })));
}

#[test]
fn steps_that_overlap_or_leave_out_positions_are_caught() {
    for first in [0, 1, 63, 64, 65, 1000] {
        for count in [1, 2, 63, 64, 65, 1024] {
            let mut next = first;
            for step in steps(first, count) {
                assert_eq!(step.start, next);
                assert!(step.end > step.start && step.start / 64 == (step.end - 1) / 64);
                next = step.end;
            }
            assert_eq!(next, first + count);
        }
    }
}

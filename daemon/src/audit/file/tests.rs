//! What is feared of an audit record: that somebody changes it and nobody sees.

use std::path::{Path, PathBuf};

use super::super::{Event, What, Who, Wrong, verify};
use super::{AuditError, AuditFile};
use crate::interface::KeyStreamId;

fn event(number: u128) -> Event {
    let stream = KeyStreamId::from_u128(number);
    Event { who: Who::Kms(Some("kms://a".into())), what: What::Opened { stream, chunk_size: 32 } }
}

/// A record of `lines` lines in files of about four.
fn record(lines: u128) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut file = AuditFile::open(folder.path(), 1_000, 100).unwrap();
    for number in 0..lines {
        file.append(&[event(number)]).unwrap();
    }
    folder
}

fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| format!("{line}\n")).collect()
}

fn first(folder: &Path) -> PathBuf {
    folder.join("audit.000001.jsonl")
}

fn last(folder: &Path) -> PathBuf {
    let mut all: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    all.sort();
    all.pop().unwrap()
}

#[test]
fn a_record_that_nobody_touched_is_whole_over_files_and_restarts() {
    let folder = record(20);
    assert!(lines(&last(folder.path())).len() < 10, "there are several files");
    let verdict = verify(folder.path()).unwrap();
    assert_eq!((verdict.first, verdict.last.number, verdict.against_head), (1, 20, true));
    let mut again = AuditFile::open(folder.path(), 1_000, 100).unwrap();
    again.append(&[event(20), event(21)]).unwrap();
    assert_eq!(verify(folder.path()).unwrap().last, *again.head());
    assert_eq!(verify(&first(folder.path())).unwrap().first, 1);
}

#[test]
fn a_record_that_a_daemon_writes_at_this_moment_is_not_called_wrong() {
    let folder = record(20);
    let writing = std::sync::atomic::AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = AuditFile::open(folder.path(), 1_000_000, 100).unwrap();
            for number in 0..3_000 {
                file.append(&[event(number), event(number)]).unwrap();
            }
            writing.store(false, std::sync::atomic::Ordering::Release);
        });
        let mut looks = 0;
        while writing.load(std::sync::atomic::Ordering::Acquire) || looks == 0 {
            let verdict = verify(folder.path()).unwrap_or_else(|why| panic!("look {looks}: {why}"));
            assert!(verdict.last.number >= 20);
            looks += 1;
        }
    });
    assert_eq!(verify(folder.path()).unwrap().last.number, 6_020);
}

#[test]
fn a_line_that_was_changed_removed_inserted_or_moved_is_found() {
    let tamper = |change: &dyn Fn(&mut Vec<String>)| {
        let folder = record(20);
        let mut text = lines(&first(folder.path()));
        change(&mut text);
        std::fs::write(first(folder.path()), text.concat()).unwrap();
        verify(folder.path()).unwrap_err()
    };
    let changed = tamper(&|lines| lines[1] = lines[1].replace("kms://a", "kms://b"));
    assert!(matches!(changed, Wrong::Chain { line: 3, .. }), "{changed}");
    let removed = tamper(&|lines| drop(lines.remove(1)));
    assert!(matches!(removed, Wrong::Number { line: 2, found: 3, due: 2, .. }), "{removed}");
    let inserted = tamper(&|lines| lines.insert(1, lines[0].clone()));
    assert!(matches!(inserted, Wrong::Number { line: 2, found: 1, due: 2, .. }), "{inserted}");
    let forged = tamper(&|lines| {
        let line = lines[1].replace("\"number\":2", "\"number\":3");
        lines.insert(2, line);
    });
    assert!(matches!(forged, Wrong::Chain { line: 3, .. }), "{forged}");
    let moved = tamper(&|lines| lines.swap(1, 2));
    assert!(matches!(moved, Wrong::Number { line: 2, .. }), "{moved}");
    let first_removed = tamper(&|lines| drop(lines.remove(0)));
    assert!(matches!(first_removed, Wrong::Number { line: 1, .. }), "{first_removed}");
    let garbage = tamper(&|lines| lines[0] = "{}\n".into());
    assert!(matches!(garbage, Wrong::NoLine { line: 1, .. }), "{garbage}");
}

#[test]
fn an_end_that_was_cut_off_or_changed_or_added_to_is_found_and_no_daemon_goes_on_from_it() {
    let cut = record(20);
    let mut text = lines(&last(cut.path()));
    text.pop();
    std::fs::write(last(cut.path()), text.concat()).unwrap();
    assert!(matches!(verify(cut.path()), Err(Wrong::CutOff { found: 19, head: 20 })));
    let refused = AuditFile::open(cut.path(), 1_000, 100).unwrap_err();
    assert!(matches!(refused, AuditError::NotWhatItWas { why: Wrong::CutOff { .. }, .. }), "{refused}");

    let changed = record(20);
    let mut text = lines(&last(changed.path()));
    let line = text.pop().unwrap().replace("kms://a", "kms://b");
    text.push(line);
    std::fs::write(last(changed.path()), text.concat()).unwrap();
    assert!(matches!(verify(changed.path()), Err(Wrong::Changed(20))));
    assert!(AuditFile::open(changed.path(), 1_000, 100).is_err());

    let gone = record(20);
    std::fs::remove_file(last(gone.path())).unwrap();
    assert!(matches!(verify(gone.path()), Err(Wrong::CutOff { head: 20, .. })));
    let middle = record(20);
    std::fs::remove_file(middle.path().join("audit.000002.jsonl")).unwrap();
    assert!(matches!(verify(middle.path()), Err(Wrong::FileMissing(_))));

    // With the head of before, the last line is one that was added.
    let added = record(19);
    let head = std::fs::read(added.path().join("audit.head")).unwrap();
    AuditFile::open(added.path(), 1_000, 100).unwrap().append(&[event(19)]).unwrap();
    std::fs::write(added.path().join("audit.head"), head).unwrap();
    assert!(matches!(verify(added.path()), Err(Wrong::Added { found: 20, head: 19 })));
}

#[test]
fn a_line_that_a_killed_daemon_did_not_finish_is_dropped_and_the_record_goes_on() {
    let folder = record(3);
    let path = last(folder.path());
    let mut text = std::fs::read(&path).unwrap();
    text.extend_from_slice(b"{\"number\":4,\"time");
    std::fs::write(&path, text).unwrap();
    assert!(verify(folder.path()).is_err());
    AuditFile::open(folder.path(), 1_000, 100).unwrap().append(&[event(4)]).unwrap();
    assert_eq!(verify(folder.path()).unwrap().last.number, 4);
}

#[test]
fn old_files_go_so_that_the_disk_does_not_fill_and_what_is_left_is_still_a_chain() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = AuditFile::open(folder.path(), 1_000, 3).unwrap();
    for number in 0..60 {
        file.append(&[event(number)]).unwrap();
    }
    let files = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(files, 4, "three files and the head");
    let verdict = verify(folder.path()).unwrap();
    assert!(verdict.first > 1 && verdict.last.number == 60, "{verdict:?}");
}

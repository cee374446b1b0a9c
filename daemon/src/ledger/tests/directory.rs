//! The directory: whose it is, who has it, and what a start in it may not do.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::super::{FileLedger, Ledger, LedgerError};

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

fn mode_of(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn directory_and_file_are_their_owners_only() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("state");
    let ledger = FileLedger::open(&place).unwrap();
    assert_eq!((mode_of(&place), mode_of(ledger.file())), (0o700, 0o600));
    let names: Vec<_> = std::fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["ledger.redb"], "nothing else lies there");
    drop(ledger);
    mode(&place.join("ledger.redb"), 0o644);
    drop(FileLedger::open(&place).unwrap());
    assert_eq!(mode_of(&place.join("ledger.redb")), 0o600, "a copy that was put back is made private");
}

#[test]
fn what_others_may_write_to_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    mode(folder.path(), 0o770);
    let error = FileLedger::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("chmod 700"), "{error}");
    mode(folder.path(), 0o700);
    drop(FileLedger::open(folder.path()).unwrap());
    mode(&folder.path().join("ledger.redb"), 0o666);
    let error = FileLedger::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("others"), "{error}");
}

#[test]
fn a_link_in_the_ledgers_place_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (place, other) = (folder.path().join("state"), folder.path().join("other"));
    drop(FileLedger::open(&place).unwrap());
    std::fs::rename(place.join("ledger.redb"), &other).unwrap();
    std::os::unix::fs::symlink(&other, place.join("ledger.redb")).unwrap();
    assert!(matches!(FileLedger::open(&place), Err(LedgerError::Directory { .. })));
}

#[test]
fn a_second_process_is_refused_and_a_later_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let first = FileLedger::open(folder.path()).unwrap();
    let second = FileLedger::open(folder.path());
    assert!(matches!(second, Err(LedgerError::InUse { .. })), "{second:?}");
    drop(first);
    FileLedger::open(folder.path()).unwrap();
}

#[test]
fn a_directory_whose_parent_is_missing_is_not_made_up() {
    let folder = tempfile::tempdir().unwrap();
    let error = FileLedger::open(&folder.path().join("not/mounted")).unwrap_err().to_string();
    assert!(error.contains("mount it"), "{error}");
    std::fs::write(folder.path().join("file"), "").unwrap();
    assert!(FileLedger::open(&folder.path().join("file")).is_err());
}

#[test]
fn a_beginning_that_a_kill_cut_short_is_begun_again_and_never_taken_for_a_ledger() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ledger.redb.new"), [7; 5_000]).unwrap();
    let mut ledger = FileLedger::open(folder.path()).unwrap();
    assert!(ledger.is_new());
    assert_eq!(ledger.load().unwrap(), Default::default());
    assert!(!folder.path().join("ledger.redb.new").exists());
}

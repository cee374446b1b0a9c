//! A ledger that cannot be used: told in words, with an exit code of its own, before anything is done; and once it is
//! mended, all is as it was.

use std::path::{Path, PathBuf};
use std::process::Command;

use qkd_tests::DEADLINE;
use qkd_tests::module::ModuleConfig;
use qkd_tests::process::Process;
use qkd_tests::programs::program;

/// A configuration whose card is not there: a ledger that is refused comes first.
fn configuration(folder: &Path, name: &str) -> PathBuf {
    ModuleConfig {
        name,
        role: "leader",
        socket: &folder.join("no.sock"),
        peer: "listen = \"127.0.0.1:0\"".into(),
        peer_kms: "kms://b",
        kms: ("kms://a", "http://127.0.0.1:9".into()),
        more: "",
    }
    .write(folder)
}

fn ledger(folder: &Path) -> PathBuf {
    folder.join("ledger-A").join("ledger.redb")
}

/// Runs a command that must end by itself, and answers its exit code and what it said.
fn ends(command: &mut Command) -> (i32, String) {
    let mut process = Process::start("qkdd", command);
    let code = process.wait(DEADLINE).code().expect("an exit code");
    (code, process.output())
}

fn qkdd(folder: &Path) -> (i32, String) {
    ends(Command::new(program("qkdd")).arg("--config").arg(configuration(folder, "A")))
}

/// Runs the daemon in a mount namespace of its own that `mount` prepares; there `$1` is the ledger's directory.
fn qkdd_behind(mount: &str, folder: &Path) -> (i32, String) {
    let mut command = Command::new("unshare");
    // Whoever is not root is so in a namespace of users.
    if !nix::unistd::Uid::effective().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--mount", "sh", "-ec", &format!("{mount}; exec \"$2\" --config \"$3\""), "sh"]);
    command.arg(folder.join("ledger-A")).arg(program("qkdd")).arg(configuration(folder, "A"));
    ends(&mut command)
}

/// The ledger is taken, and what is missed next is the card.
fn takes(folder: &Path, what: &str) {
    let (code, said) = qkdd(folder);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains(what), "{said}");
}

#[test]
fn a_directory_without_room_is_refused_and_nothing_is_left_behind_that_would_be_taken_for_a_ledger() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("ledger-A")).unwrap();
    let (code, said) = qkdd_behind("mount -t tmpfs -o size=2M,mode=700 tmpfs \"$1\"", folder.path());
    assert_eq!(code, 8, "{said}");
    assert!(said.contains("make room") && said.contains("ledger"), "{said}");
    let (code, said) = qkdd_behind("mount -t tmpfs -o size=20M,mode=700 tmpfs \"$1\"", folder.path());
    assert_eq!(code, 3, "with room it is made, and the card is missed next: {said}");
}

#[test]
fn a_read_only_directory_is_refused_and_the_ledger_in_it_is_as_it_was_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    takes(folder.path(), "a new one is begun");
    let before = std::fs::read(ledger(folder.path())).unwrap();
    let read_only = "mount --bind \"$1\" \"$1\"; mount -o remount,bind,ro \"$1\"";
    let (code, said) = qkdd_behind(read_only, folder.path());
    assert_eq!(code, 8, "{said}");
    assert!(said.contains("make its file system writable"), "{said}");
    assert_eq!(std::fs::read(ledger(folder.path())).unwrap(), before);
    takes(folder.path(), "at write 0");
    std::fs::remove_file(ledger(folder.path())).unwrap();
    let (code, said) = qkdd_behind(read_only, folder.path());
    assert_eq!(code, 8, "also where there is none yet: {said}");
}

#[test]
fn a_ledger_that_another_process_has_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    takes(folder.path(), "a new one is begun");
    let directory = std::fs::File::open(folder.path().join("ledger-A")).unwrap();
    directory.lock().unwrap();
    let (code, said) = qkdd(folder.path());
    assert_eq!(code, 8, "{said}");
    assert!(said.contains("another process"), "{said}");
    drop(directory);
    takes(folder.path(), "at write 0");
}

#[test]
fn a_damaged_ledger_is_refused_and_never_replaced_in_silence() {
    let folder = tempfile::tempdir().unwrap();
    takes(folder.path(), "a new one is begun");
    let whole = std::fs::read(ledger(folder.path())).unwrap();
    let mut flipped = whole.clone();
    flipped[100] ^= 1;
    for damaged in [&whole[..0], &whole[..whole.len() / 2], b"not a ledger", &flipped] {
        std::fs::write(ledger(folder.path()), damaged).unwrap();
        let (code, said) = qkdd(folder.path());
        assert_eq!(code, 8, "{said}");
        assert!(said.contains("damaged") && said.contains("move the file away"), "{said}");
    }
    std::fs::write(ledger(folder.path()), whole).unwrap();
    takes(folder.path(), "at write 0");
}

#[test]
fn without_a_place_for_the_ledger_nothing_starts_and_both_ways_to_give_one_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = configuration(folder.path(), "A");
    let text = std::fs::read_to_string(&path).unwrap();
    let text: String =
        text.lines().filter(|line| !line.starts_with("directory")).map(|l| format!("{l}\n")).collect();
    std::fs::write(&path, &text).unwrap();
    let start = |state: Option<&Path>| {
        let mut command = Command::new(program("qkdd"));
        command.arg("--config").arg(&path).env_remove("STATE_DIRECTORY");
        if let Some(state) = state {
            command.env("STATE_DIRECTORY", state);
        }
        ends(&mut command)
    };
    let (code, said) = start(None);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("ledger.directory") && said.contains("STATE_DIRECTORY"), "{said}");
    // As the unit names it, after the PCI address of the card.
    let state = folder.path().join("0000:01:00.0");
    let (code, said) = start(Some(&state));
    assert_eq!(code, 3, "{said}");
    assert!(state.join("ledger.redb").is_file());
    std::fs::write(&path, text.replace("[ledger]", "[ledger]\nin_memory_forgets_everything = true")).unwrap();
    let (code, said) = start(None);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("kept in memory"), "{said}");
}

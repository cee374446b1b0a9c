//! The operator's socket: who may ask, what a silent one costs, and keys that must be gone when that is what it says.

use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use qkd_tests::DEADLINE;
use qkd_tests::ends::Ends;
use qkd_tests::process::Process;
use qkd_tests::programs::{copy_program, program};

const SOME: u64 = 500;

/// Starts the daemon at `end` anew, with a directory for its socket as systemd would give it; answers the socket.
fn with_socket(ends: &mut Ends, end: usize) -> PathBuf {
    let folder = ends.cards.folder.path().join(format!("run-{end}"));
    std::fs::create_dir(&folder).unwrap();
    ends.terminate(end);
    ends.start_module_by(end, &["env", &format!("RUNTIME_DIRECTORY={}", folder.display())]);
    let socket = folder.join("qkdd.ctl");
    let _ = ends.module(end).process.line("operators are served", DEADLINE);
    socket
}

/// Runs a command to its end; answers its exit code and what it said.
fn run(command: &mut Command) -> (i32, String) {
    let mut process = Process::start("qkdctl", command);
    let code = process.wait(DEADLINE).code().expect("an exit code");
    (code, process.output())
}

fn qkdctl(socket: &Path, what: &str) -> (i32, String) {
    run(Command::new(program("qkdctl")).arg("--socket").arg(socket).arg(what))
}

/// All streams end with a notice, nothing is delivered wrongly or twice, and new streams give key that agrees.
fn zeroize_at(end: usize) {
    let mut ends = Ends::start_positional();
    let socket = with_socket(&mut ends, end);
    ends.start_kms(2);
    ends.wait_for_chunks(SOME);
    let (code, said) = qkdctl(&socket, "status");
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(", in step") && said.contains("key streams: 2"), "{said}");
    let (code, said) = qkdctl(&socket, "zeroize");
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("the vault is empty") && said.contains("its zeroize number 1"), "{said}");
    assert!(said.contains("2 key streams ended"), "{said}");
    ends.wait_until("notices at both ends", |ends| (0..2).all(|end| ends.says(end, "notices") >= 2));
    assert_eq!([0, 1].map(|end| ends.says(end, "violations")), [0, 0]);
    let _ = ends.end_kms();
    let said = ends.check();
    assert!(said.contains("AGREE"), "{said}");
    ends.start_kms(2);
    ends.wait_until("key on every stream", |ends| (0..2).all(|end| ends.says(end, "with_key") == 2));
    assert!(ends.end_kms(), "a KMS has seen something wrong");
    let said = ends.check();
    assert!(said.contains("AGREE"), "{said}");
    let (code, said) = qkdctl(&socket, "zeroize");
    assert!(code == 0 && said.contains("its zeroize number 2"), "with no stream: {code} {said}");
    ends.terminate(end);
    assert!(!socket.exists(), "the socket stays behind");
    let (code, said) = qkdctl(&socket, "zeroize");
    assert_eq!(code, 3, "{said}");
}

#[test]
fn a_leader_that_is_zeroized_under_load_burns_everything_at_both_ends_and_goes_on_with_new_streams() {
    zeroize_at(0);
}

#[test]
fn a_follower_that_is_zeroized_under_load_burns_everything_at_both_ends_and_goes_on_with_new_streams() {
    zeroize_at(1);
}

#[test]
fn a_card_that_does_not_confirm_is_told_and_never_used_again() {
    let mut ends =
        Ends::start(&["--weather", "calm", "--rate", "4M", "--key", "positional", "--faults-from", "-"]);
    let socket = with_socket(&mut ends, 0);
    ends.start_kms(1);
    ends.wait_for_chunks(SOME);
    ends.cards.process.tell("end=a kind=freeze for=600s");
    let _ = ends.cards.process.line("fault done", DEADLINE);
    let (code, said) = qkdctl(&socket, "zeroize");
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("NOT proven") && said.contains("the card has not proven"), "{said}");
    let mut module = ends.modules[0].take().unwrap();
    assert_eq!(module.process.wait(DEADLINE).code(), Some(5), "{}", module.process.output());
    assert!(
        !module.process.output().contains("the card retains nothing and has proven it"),
        "{}",
        module.process.output()
    );
}

#[test]
fn a_caller_without_permission_is_refused_also_where_the_socket_s_mode_lets_everybody_in() {
    assert!(nix::unistd::Uid::effective().is_root(), "this test changes users and must run as root");
    let mut ends = Ends::start_positional();
    let socket = with_socket(&mut ends, 0);
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    let mode = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    let copy = ends.cards.folder.path().join("qkdctl");
    copy_program(&program("qkdctl"), &copy);
    mode(ends.cards.folder.path(), 0o755);
    mode(socket.parent().unwrap(), 0o755);
    let as_nobody = |what: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        run(command.arg(&copy).arg("--socket").arg(&socket).arg(what))
    };
    let (code, said) = as_nobody("zeroize");
    assert_eq!(code, 3, "the mode keeps others out: {said}");
    mode(&socket, 0o666);
    for what in ["zeroize", "status"] {
        let (code, said) = as_nobody(what);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("user 65534") && said.contains("may not ask"), "{said}");
    }
    let log = &ends.module(0).process;
    let _ = log.line("user 65534", DEADLINE);
    assert!(!log.output().contains("destroys every key"), "{}", log.output());
}

#[test]
fn silent_operators_delay_neither_others_nor_key() {
    let mut ends = Ends::start_positional();
    let socket = with_socket(&mut ends, 0);
    ends.start_kms(1);
    // Both are in step: what follows takes little of the time of those that are silent.
    ends.wait_for_chunks(1);
    let mut silent: Vec<UnixStream> = (0..6).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    let (code, said) = qkdctl(&socket, "status");
    assert!(matches!(code, 0 | 4), "it was not answered: {said}");
    ends.wait_for_chunks(1);
    let (code, said) = qkdctl(&socket, "status");
    assert!(matches!(code, 0 | 4), "it was not answered: {said}");
    // Answered before the time of the silent ones was over.
    for stream in &mut silent {
        stream.set_nonblocking(true).unwrap();
        assert_eq!(stream.read(&mut [0; 64]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
    // All places are taken: whoever comes then is served as soon as their time is over.
    silent.extend((0..20).map(|_| UnixStream::connect(&socket).unwrap()));
    let (code, said) = qkdctl(&socket, "status");
    assert!(matches!(code, 0 | 4), "it was not answered: {said}");
    let mut refused = String::new();
    silent[0].set_nonblocking(false).unwrap();
    silent[0].read_to_string(&mut refused).unwrap();
    assert!(refused.contains("no request came"), "{refused}");
    ends.wait_for_chunks(SOME);
}

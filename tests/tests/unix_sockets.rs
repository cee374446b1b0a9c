//! A KMS on the same machine is reached through a UNIX socket, and through nothing else.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use qkd_tests::ends::Ends;
use qkd_tests::programs::program;

/// Chunks that are enough to see that key goes on.
const SOME: u64 = 500;

#[test]
fn key_goes_through_a_unix_socket_and_on_after_a_kill_and_nothing_goes_to_the_endpoints_address() {
    let mut ends = Ends::start_with_sockets();
    let nobodys = ends.endpoints.map(|address| TcpListener::bind(address).expect("nobody has it"));
    ends.start_kms(3);
    ends.wait_for_chunks(SOME);
    for end in 0..2 {
        ends.kill(end);
        ends.start_module(end);
        ends.wait_for_chunks(SOME);
    }
    for (end, listener) in nobodys.iter().enumerate() {
        listener.set_nonblocking(true).expect("a socket");
        assert!(listener.accept().is_err(), "end {end} has connected over TCP");
    }
    assert!(ends.end_kms(), "a KMS has seen something wrong");
    let said = ends.check();
    assert!(said.contains("AGREE"), "{said}");
}

#[test]
fn a_kms_takes_no_place_that_is_another_s() {
    let folder = tempfile::tempdir().unwrap();
    let listens_at = |place: &Path| {
        let mut kms = Command::new(program("qkd-sim"));
        kms.args([
            "kms",
            "--open",
            "--patience",
            "1s",
            "--module",
            "http://127.0.0.1:9",
            "--source",
            "kms://a",
        ]);
        let ended = kms.args(["--destination", "kms://b", "--listen"]).arg(place).output().unwrap();
        (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned())
    };
    let file = folder.path().join("history");
    std::fs::write(&file, "kept").unwrap();
    let (code, said) = listens_at(&file);
    assert!(code == Some(2) && said.contains("is no socket; name another path"), "{code:?} {said}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
    let socket = folder.path().join("kms.sock");
    let others = UnixListener::bind(&socket).unwrap();
    let (code, said) = listens_at(&socket);
    assert!(code == Some(2) && said.contains("another program serves this socket"), "{code:?} {said}");
    // Left over, it is in nobody's way: now the module cannot be reached, which is another matter.
    drop(others);
    let (_, said) = listens_at(&socket);
    assert!(!said.contains("cannot listen"), "{said}");
}

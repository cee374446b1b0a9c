//! A KMS on the same machine is reached through a UNIX socket, and through nothing else.

use std::net::TcpListener;

use qkd_tests::ends::Ends;

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

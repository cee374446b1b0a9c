//! Framing, versions, clients that come and go, the socket file.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use nix::errno::Errno;

use super::client::{Client, Served, as_fds, sealable};
use crate::server::{BadSocket, Port, Server};

#[test]
fn nothing_is_answered_before_a_version() {
    let served = Served::new();
    for command in [2_u16, 4, 5, 9, 13, 99] {
        let mut client = served.client();
        assert_eq!(client.refused(command, &[0; 16], &[]), Errno::EINVAL);
        assert!(client.is_closed());
    }
    served.agreed();
}

#[test]
fn a_version_that_is_not_understood_is_refused() {
    let served = Served::new();
    for body in [
        &b""[..],
        &[0, 0, 0],
        &[1, 0, 0, 0],
        b"\0\0\0\0{\"capabilities\":{}}",
        b"\0\0\0\0nonsense\0",
        b"\0\0\0\0[]\0",
        b"\0\0\0\0\xFF\xFE\0",
    ] {
        let mut client = served.client();
        assert_eq!(client.refused(1, body, &[]), Errno::EINVAL, "{body:?}");
        assert!(client.is_closed());
    }
    let deep = [b"\0\0\0\0".to_vec(), b"[".repeat(60_000), vec![0]].concat();
    assert_eq!(served.client().refused(1, &deep, &[]), Errno::EINVAL);
    let mut client = served.agreed();
    assert_eq!(client.refused(1, &[0, 0, 0, 0], &[]), Errno::EINVAL, "a second version");
}

#[test]
fn the_answer_to_a_version_names_no_newer_one() {
    let served = Served::new();
    for (minor, expected) in [(0, 0), (1, 1), (7, 1)] {
        let mut client = served.client();
        let answered = client.call(1, &[0, 0, minor, 0], &[]);
        assert_eq!(&answered.body[..4], [0, 0, expected, 0]);
        let (end, text) = answered.body[4..].split_last().unwrap();
        assert_eq!(*end, 0, "the text ends with NUL");
        // QEMU takes no longer answer than its own message was, and no more mappings than this.
        assert!(text.len() < 150, "{} octets", text.len());
        let told: serde_json::Value = serde_json::from_slice(text).unwrap();
        let expected = serde_json::json!({
            "max_msg_fds": 8, "max_data_xfer_size": 65536, "max_dma_maps": 65535, "pgsizes": 4096
        });
        assert_eq!(told["capabilities"], expected);
    }
}

#[test]
fn a_size_that_no_message_has_ends_the_connection_and_the_next_client_is_served() {
    let served = Served::new();
    for size in [0, 15, 65_569, 1 << 30, u32::MAX] {
        let mut client = served.agreed();
        let header = client.message(4, size, 0);
        client.raw(&header);
        assert_eq!(client.answer().error, Errno::EINVAL as u32, "{size}");
        assert!(client.is_closed());
    }
    served.agreed();
}

#[test]
fn a_client_that_leaves_within_a_message_does_not_keep_the_next_one_out() {
    let served = Served::new();
    for octets in [1, 15, 16, 20] {
        let mut client = served.agreed();
        let mut message = client.message(4, 32, 0).to_vec();
        message.resize(32, 0);
        client.raw(&message[..octets]);
        drop(client);
    }
    served.agreed();
}

#[test]
fn a_message_that_stays_incomplete_ends_the_connection() {
    let served = Served::new();
    let mut client = served.agreed();
    let header = client.message(4, 32, 0);
    client.raw(&header);
    assert!(client.is_closed(), "after the time that a message may take");
}

#[test]
fn unknown_commands_and_wrong_sizes_are_refused_and_the_connection_goes_on() {
    let served = Served::new();
    let mut client = served.agreed();
    for command in [0, 6, 11, 12, 14, 15, 16, 17, 18, 19, u16::MAX] {
        assert_eq!(client.refused(command, &[0; 40], &[]), Errno::EOPNOTSUPP, "{command}");
    }
    for command in [2, 3, 4, 5, 7, 8, 9, 10, 13] {
        for size in [1, 3, 13, 33, 57, 60_000] {
            let errno = client.refused(command, &vec![0; size], &[]);
            assert!(matches!(errno, Errno::EINVAL | Errno::EOPNOTSUPP), "{command}, {size}: {errno}");
        }
    }
    assert_eq!(client.call(4, &[16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[]).error, 0);
}

#[test]
fn a_command_without_reply_gets_none_and_a_reply_is_no_command() {
    let served = Served::new();
    let mut client = served.agreed();
    client.send(99, 1 << 4, &[], &[]);
    client.send(4, 1, &[0; 16], &[]);
    assert_eq!(client.answer().error, Errno::EINVAL as u32, "the answer to the second");
    assert_eq!(client.refused(99, &[], &[]), Errno::EOPNOTSUPP);
}

#[test]
fn more_descriptors_than_a_message_may_bring_end_the_connection() {
    let served = Served::new();
    let mut client = served.agreed();
    let files: Vec<_> = (0..20).map(|_| sealable(4096)).collect();
    client.send(2, 0, &[0; 32], &as_fds(&files));
    assert!(client.is_closed());
    served.agreed();
}

#[test]
fn descriptors_that_nobody_wants_are_closed() {
    let served = Served::new();
    let mut client = served.agreed();
    let (ours, theirs) = UnixStream::pair().unwrap();
    assert_eq!(client.refused(99, &[], &as_fds(&[theirs])), Errno::EOPNOTSUPP);
    // Our own copy went with `theirs`; when the server's is gone too, the pair is at its end.
    assert!(Client::over(ours).is_closed());
}

#[test]
fn a_second_client_waits_until_the_first_is_gone() {
    let served = Served::new();
    let first = served.agreed();
    let mut second = served.client();
    second.send(1, 0, &[0, 0, 0, 0], &[]);
    second.stream.set_nonblocking(true).unwrap();
    assert!(std::io::Read::read(&mut &second.stream, &mut [0]).is_err(), "no answer yet");
    second.stream.set_nonblocking(false).unwrap();
    drop(first);
    assert_eq!(second.answer().error, 0);
}

#[test]
fn the_socket_belongs_to_its_owner_and_goes_with_the_server() {
    let mut served = Served::new();
    let mode = std::fs::metadata(&served.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    served.stop_serving();
    assert!(!served.path.exists());
}

#[test]
fn a_card_that_nobody_is_told_the_end_of_has_no_error_interrupt() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("card.sock");
    for (port, wanted) in
        [(Port::new(1, 1).unwrap(), 1), (Port::new(1, 1).unwrap().without_error_interrupt(), 0)]
    {
        let server = Server::start(&path, Arc::new(port)).unwrap();
        let mut client = Client::connect(&path);
        client.agree();
        let asked: Vec<u8> = [16_u32, 0, 3, 0].into_iter().flat_map(u32::to_le_bytes).collect();
        let answered = client.call(7, &asked, &[]);
        assert_eq!((answered.error, &answered.body[12..16]), (0, &u32::to_le_bytes(wanted)[..]));
        drop((client, server));
    }
}

#[test]
fn a_stale_socket_is_replaced_a_live_one_and_other_files_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let port = || Arc::new(Port::new(1, 1).unwrap());
    let stale = folder.path().join("stale");
    drop(UnixListener::bind(&stale).unwrap());
    assert!(stale.exists());
    drop(Server::start(&stale, port()).unwrap());

    let live = folder.path().join("live");
    let _listener = UnixListener::bind(&live).unwrap();
    assert!(matches!(Server::start(&live, port()), Err(BadSocket::Busy(_))));

    let file = folder.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    assert!(matches!(Server::start(&file, port()), Err(BadSocket::NotASocket(_))));
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
    assert!(matches!(Server::start(&folder.path().join("no/such"), port()), Err(BadSocket::Io { .. })));
}

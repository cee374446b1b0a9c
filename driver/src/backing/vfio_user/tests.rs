//! The vfio-user client against a server that answers rightly, and in every wrong way.

mod server;

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use qkd_contract::registers as reg;

use super::client::Client;
use super::wire::{Command, SparseArea};
use super::{Backing, BackingError, VfioUser};
use crate::mmio::Mmio;
use crate::{Card, CardOptions, IdentityError, OpenError};
use server::{Answer, BAR_BYTES, Server, capability, sparse};

/// Long enough for a loaded machine; nothing waits for it but tests of silence.
const PATIENT: Duration = Duration::from_secs(20);
/// For servers that never answer.
const SHORT: Duration = Duration::from_millis(50);

/// Connects to a server that answers `command` with `answer`, and all else honestly.
fn connect(command: Command, answer: Answer, timeout: Duration) -> (Result<VfioUser, BackingError>, Server) {
    let (socket, server) = Server::start(Some((command, answer)));
    let backing =
        Client::over(socket, timeout).and_then(|client| VfioUser::over(PathBuf::from("test"), client));
    (backing, server)
}

fn honest() -> (VfioUser, Server) {
    let (socket, server) = Server::start(None);
    let client = Client::over(socket, PATIENT).expect("an honest server");
    (VfioUser::over(PathBuf::from("test"), client).expect("an honest server"), server)
}

#[test]
fn registers_memory_interrupts_and_reset_reach_the_server() {
    let (mut backing, server) = honest();
    backing.registers().write32(reg::COMMAND.offset, 0x1234_5678);
    assert_eq!(server.bar_u32(reg::COMMAND.offset), 0x1234_5678, "the BAR is shared memory");
    assert_eq!(backing.registers().read32(0x1_0000), u32::MAX, "outside the BAR");
    assert_eq!(backing.registers().read64(4), u64::MAX, "unaligned");

    let memory = backing.map_dma(5000).expect("it maps");
    assert_eq!(memory.length(), 8192);
    memory.copy_in(4096, b"seen by the card");
    assert_eq!(server.memory(memory.iova() + 4096, 16), b"seen by the card");

    backing.wire_interrupts().expect("they are wired");
    server.raise(1);
    let signals = wait_for_one(&mut backing);
    assert!(signals.control && !signals.event);
    server.raise(0);
    assert!(wait_for_one(&mut backing).event);
    assert!(!backing.wait(Duration::ZERO, None).expect("it waits").any(), "a signal is consumed");

    backing.set_bus_mastering(true).expect("the bit takes");
    backing.reset_function().expect("it resets");
    backing.unmap_dma(&memory).expect("it unmaps");
    assert!(server.is_unmapped(memory.iova()));
    assert_eq!(backing.pci_identity().expect("readable").vendor, 0x5144);
}

fn wait_for_one(backing: &mut VfioUser) -> crate::backing::Signals {
    let deadline = Instant::now() + PATIENT;
    while Instant::now() < deadline {
        let signals = backing.wait(Duration::from_millis(100), None).expect("it waits");
        if signals.any() {
            return signals;
        }
    }
    panic!("no signal came");
}

#[test]
fn a_waker_and_a_server_that_ends_wake_the_wait() {
    let (mut backing, server) = honest();
    let (reader, writer) = nix::unistd::pipe().expect("a pipe");
    nix::unistd::write(&writer, b"x").expect("written");
    assert!(backing.wait(PATIENT, Some(reader.as_fd())).expect("it waits").waker);
    server.end();
    assert!(wait_for_one(&mut backing).gone);
    assert!(matches!(backing.read_config(0, &mut [0; 4]), Err(BackingError::Gone { .. })));
}

#[test]
fn a_server_that_breaks_the_protocol_is_refused_in_bounded_time() {
    let wrong = [
        ("a size below a header's", Answer::Size(3)),
        ("a huge size", Answer::Size(u32::MAX)),
        ("a size beyond what is accepted", Answer::Size(10 << 20)),
        ("another request's id", Answer::Id(1)),
        ("another command", Answer::Command(77)),
        ("a type that is none", Answer::Type(9)),
        ("commands without end", Answer::Flood),
    ];
    for (what, answer) in wrong {
        for command in [Command::Version, Command::DeviceInfo, Command::RegionInfo] {
            let (backing, _server) = connect(command, answer.clone(), PATIENT);
            let error = backing.expect_err(what);
            assert!(matches!(error, BackingError::Protocol { .. }), "{what} at {command:?}: {error}");
        }
    }
}

#[test]
fn bodies_that_are_short_or_senseless_are_refused() {
    let bodies = [
        (Command::Version, vec![0, 0]),
        (Command::Version, [&[0, 0, 1, 0], b"{\"capabilities\":".as_slice(), &[0]].concat()),
        (Command::Version, [&[0, 0, 1, 0], "[".repeat(4000).as_bytes(), &[0]].concat()),
        (Command::Version, [&[0, 0, 1, 0], vec![b' '; 5000].as_slice()].concat()),
        (Command::DeviceInfo, vec![0; 15]),
        (Command::RegionInfo, vec![0; 31]),
        (Command::RegionInfo, capability(1 << 3, u32::MAX, &[])),
        (Command::RegionInfo, capability(1 << 3, 32, &[1, 0, 1])),
        (Command::RegionInfo, capability(1 << 3, 32, &[9, 0, 1, 0, 32, 0, 0, 0])),
        (Command::RegionInfo, sparse(u32::MAX, &[])),
        (Command::RegionInfo, sparse(2, &[SparseArea { offset: 0, size: BAR_BYTES }])),
    ];
    for (command, body) in bodies {
        let (backing, _server) = connect(command, Answer::Body(body.clone()), PATIENT);
        let error = backing.expect_err("a senseless body");
        assert!(matches!(error, BackingError::Protocol { .. }), "{command:?} {body:?}: {error}");
    }
}

#[test]
fn a_server_that_cannot_serve_a_card_is_told_so() {
    let version = [&[1, 0, 0, 0], b"{}".as_slice(), &[0]].concat();
    let no_descriptors = [&[0, 0, 1, 0], br#"{"capabilities":{"max_msg_fds":0}}"#.as_slice(), &[0]].concat();
    let no_pci = [16_u32, 1, 9, 5].map(u32::to_le_bytes).concat();
    let answers = [
        (Command::Version, Answer::Body(version)),
        (Command::Version, Answer::Body(no_descriptors)),
        (Command::DeviceInfo, Answer::Body(no_pci)),
        (Command::RegionInfo, Answer::NoDescriptor),
        (Command::RegionInfo, Answer::ShortFile),
        (
            Command::RegionInfo,
            Answer::Body(sparse(1, &[SparseArea { offset: 4096, size: BAR_BYTES - 4096 }])),
        ),
        (Command::RegionInfo, Answer::Body(capability(0, 0, &[]))),
    ];
    for (command, answer) in answers {
        let (backing, _server) = connect(command, answer.clone(), PATIENT);
        let error = backing.expect_err("it cannot serve a card");
        assert!(matches!(error, BackingError::Unsuitable { .. }), "{command:?} {answer:?}: {error}");
    }
}

#[test]
fn a_refusal_is_told_with_its_reason_and_leaves_the_connection_usable() {
    let (backing, _server) = connect(Command::DmaMap, Answer::Refusal(12), PATIENT);
    let mut backing = backing.expect("it connects");
    assert!(matches!(backing.map_dma(4096), Err(BackingError::Refused { errno: 12, .. })));
    backing.read_config(0, &mut [0; 4]).expect("the connection is in order");
    let (backing, _server) = connect(Command::DeviceReset, Answer::Refusal(0), PATIENT);
    let reset = backing.expect("it connects").reset_function();
    assert!(
        matches!(reset, Err(BackingError::Refused { .. })),
        "an error without a reason is one: {reset:?}"
    );
}

#[test]
fn silence_and_half_a_message_end_at_the_deadline_and_the_connection_is_not_used_again() {
    for answer in [Answer::Silence, Answer::Half] {
        let (backing, _server) = connect(Command::RegionRead, answer.clone(), SHORT);
        let mut backing = backing.expect("it connects");
        let before = Instant::now();
        let error = backing.read_config(0, &mut [0; 4]).expect_err("no answer");
        assert!(matches!(error, BackingError::Timeout { .. }), "{answer:?}: {error}");
        assert!(before.elapsed() < PATIENT);
        let again = backing.read_config(0, &mut [0; 4]);
        assert!(
            matches!(again, Err(BackingError::Gone { .. })),
            "a late answer could be taken for another: {again:?}"
        );
    }
}

#[test]
fn reads_of_another_place_or_length_are_refused() {
    let elsewhere = [&8_u64.to_le_bytes(), &7_u32.to_le_bytes()[..], &4_u32.to_le_bytes(), &[0; 4]].concat();
    let longer = [&0_u64.to_le_bytes(), &7_u32.to_le_bytes()[..], &4_u32.to_le_bytes(), &[0; 8]].concat();
    for body in [elsewhere, longer] {
        let (backing, _server) = connect(Command::RegionRead, Answer::Body(body), PATIENT);
        let error = backing.expect("it connects").read_config(0, &mut [0; 4]).expect_err("another place");
        assert!(matches!(error, BackingError::Protocol { .. }), "{error}");
    }
}

#[test]
fn commands_of_the_server_are_answered_with_an_error_and_disturb_nothing() {
    let (backing, server) = connect(Command::RegionRead, Answer::AfterCommands(3), PATIENT);
    let mut octets = [0; 2];
    backing.expect("it connects").read_config(0, &mut octets).expect("the reply comes after them");
    assert_eq!(u16::from_le_bytes(octets), 0x5144);
    assert_eq!(server.refusals_seen(), 3);
}

#[test]
fn a_server_without_a_card_behind_it_is_no_card() {
    let (backing, _server) = honest();
    let error = Card::open(backing, CardOptions::default()).expect_err("its registers read zero");
    assert!(matches!(error, OpenError::Identity(IdentityError::WrongMagic { found: 0 })), "{error}");
}

#[test]
fn nobody_at_the_path_is_an_error_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = VfioUser::connect(folder.path().join("none.sock"), PATIENT).expect_err("nobody is there");
    assert!(matches!(error, BackingError::Io { .. }), "{error}");
}

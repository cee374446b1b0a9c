//! What an operator gets wrong, and what breaks under the daemon: told in words, with an exit code of its own, at once.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use qkd_tests::DEADLINE;
use qkd_tests::module::{Cards, Module, ModuleConfig, Pair};
use qkd_tests::process::Process;
use qkd_tests::programs::program;

const NOBODY: &str = "http://127.0.0.1:9";

fn config<'a>(name: &'a str, role: &'a str, socket: &'a Path, peer: &str, more: &'a str) -> ModuleConfig<'a> {
    let (own, other) = if name == "A" { ("kms://a", "kms://b") } else { ("kms://b", "kms://a") };
    ModuleConfig { name, role, socket, peer: peer.into(), peer_kms: other, kms: (own, NOBODY.into()), more }
}

/// Starts a daemon that must end by itself, and answers its exit code and what it said.
fn ends(config: &ModuleConfig, folder: &Path, options: &[&str]) -> (i32, String) {
    let mut command = Command::new(program("qkdd"));
    command.arg("--config").arg(config.write(folder)).args(options);
    let mut process = Process::start("qkdd", &mut command);
    let code = process.wait(DEADLINE).code().expect("an exit code");
    (code, process.output())
}

fn wait_for(module: &Module, words: &str) {
    let _ = module.process.line(words, DEADLINE);
}

/// Two daemons with these roles; both must say `words`.
fn both_say(roles: [&str; 2], words: &str) {
    let cards = Cards::start(&["--weather", "calm"]);
    let a = config("A", roles[0], &cards.socket_a, "listen = \"127.0.0.1:0\"", "").start(cards.folder.path());
    let connect = format!("connect = \"{}\"", a.peer.unwrap());
    let b = config("B", roles[1], &cards.socket_b, &connect, "").start(cards.folder.path());
    wait_for(&a, words);
    wait_for(&b, words);
}

#[test]
fn two_leaders_are_refused_in_words() {
    both_say(["leader", "leader"], "both ends");
}

#[test]
fn two_followers_are_refused_in_words() {
    both_say(["follower", "follower"], "neither end is set up to lead");
}

#[test]
fn a_card_that_is_not_there_or_not_readable_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("no.sock");
    let (code, said) =
        ends(&config("A", "leader", &absent, "listen = \"127.0.0.1:0\"", ""), folder.path(), &[]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("no.sock"), "the message must name the socket: {said}");
}

#[test]
fn a_card_of_another_serial_number_or_with_test_key_is_refused() {
    let cards = Cards::start(&["--key", "positional"]);
    let listen = "listen = \"127.0.0.1:0\"";
    let (code, said) = ends(&config("A", "leader", &cards.socket_a, listen, ""), cards.folder.path(), &[]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("test key"), "{said}");
}

#[test]
fn an_address_that_is_taken_is_told() {
    let cards = Cards::start(&[]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("listen = \"{}\"", taken.local_addr().unwrap());
    let (code, said) = ends(&config("A", "leader", &cards.socket_a, &listen, ""), cards.folder.path(), &[]);
    assert_eq!(code, 6, "{said}");
    assert!(said.contains("peer.listen"), "{said}");
}

#[test]
fn a_wrong_configuration_is_told_with_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("a.sock");
    let wrong =
        config("A", "leader", &socket, "listen = \"127.0.0.1:0\"", "[streams]\ndefalt_chunk_size = 32\n");
    let (code, said) = ends(&wrong, folder.path(), &["--check-config"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("A.toml:") && said.contains("default_chunk_size"), "{said}");
    let right = config("B", "leader", &socket, "listen = \"127.0.0.1:0\"", "");
    let (code, said) = ends(&right, folder.path(), &["--check-config"]);
    assert_eq!(code, 0, "{said}");
}

#[test]
fn a_stop_is_clean_and_a_card_that_goes_ends_the_daemon_with_its_own_code() {
    let mut pair = Pair::start(&["--weather", "calm"], NOBODY.into(), NOBODY.into(), "");
    wait_for(&pair.b, "takes over epoch");
    pair.b.process.signal(Signal::SIGTERM);
    assert_eq!(pair.b.process.wait(DEADLINE).code(), Some(0), "{}", pair.b.process.output());
    assert!(pair.b.process.output().contains("wiped"), "{}", pair.b.process.output());
    pair.cards.process.signal(Signal::SIGKILL);
    let code = pair.a.process.wait(DEADLINE).code();
    assert_eq!(code, Some(4), "{}", pair.a.process.output());
    assert!(pair.a.process.output().contains("gone"), "{}", pair.a.process.output());
}

#[test]
fn a_simulator_that_asks_for_its_cards_back_and_ends_is_no_card_out_of_order() {
    let mut pair = Pair::start(&["--weather", "calm"], NOBODY.into(), NOBODY.into(), "");
    wait_for(&pair.b, "takes over epoch");
    pair.cards.process.signal(Signal::SIGTERM);
    for module in [&mut pair.a, &mut pair.b] {
        let code = module.process.wait(DEADLINE).code();
        assert_eq!(code, Some(4), "{}", module.process.output());
    }
}

#[test]
fn a_daemon_that_starts_anew_burns_what_its_card_holds_and_says_so() {
    let pair = Pair::start(&["--weather", "calm"], NOBODY.into(), NOBODY.into(), "");
    wait_for(&pair.a, "is burnt");
    wait_for(&pair.b, "is burnt");
}

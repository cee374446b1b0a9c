//! What a service manager is told, over the socket that it names: readiness, how things stand, and that the daemon lives.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Instant;

use nix::sys::signal::Signal;
use qkd_tests::DEADLINE;
use qkd_tests::module::{Cards, ModuleConfig};
use qkd_tests::process::Process;
use qkd_tests::programs::program;

/// Time of the watchdog in microseconds: fed every two seconds, and a card that does not answer is waited for ten.
const WATCHDOG_USEC: &str = "8000000";
const NOBODY: &str = "http://127.0.0.1:9";

/// The service manager's end.
struct Manager {
    socket: UnixDatagram,
}

impl Manager {
    /// The next message; each has one line.
    fn next(&self) -> String {
        let mut text = [0; 4096];
        let length = self.socket.recv(&mut text).expect("a message before the deadline");
        String::from_utf8(text[..length].to_vec()).expect("text").trim_end().to_owned()
    }

    /// Waits for a message that begins with `begin`, and answers all that came before it.
    fn until(&self, begin: &str) -> Vec<String> {
        let end = Instant::now() + DEADLINE;
        let mut before = Vec::new();
        loop {
            assert!(Instant::now() < end, "no {begin:?} in time, but {before:?}");
            let message = self.next();
            if message.starts_with(begin) {
                return before;
            }
            before.push(message);
        }
    }

    /// What has come and was not read, once the sender has ended.
    fn rest(&self) -> Vec<String> {
        self.socket.set_nonblocking(true).unwrap();
        let mut rest = Vec::new();
        let mut text = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut text) {
            rest.push(String::from_utf8_lossy(&text[..length]).trim_end().to_owned());
        }
        rest
    }
}

/// A daemon on card A, which knows its service manager's socket unless it is `told` nothing.
fn start(cards: &Cards, told: bool) -> (Process, Manager) {
    let folder = cards.folder.path();
    let place = folder.join("notify.sock");
    let socket = UnixDatagram::bind(&place).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let config = ModuleConfig {
        name: "A",
        role: "leader",
        socket: &cards.socket_a,
        peer: "listen = \"127.0.0.1:0\"".into(),
        peer_kms: "kms://b",
        kms: ("kms://a", NOBODY.into()),
        more: "",
    };
    let mut command = Command::new(program("qkdd"));
    command.arg("--config").arg(config.write(folder)).env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_PID");
    command.env("WATCHDOG_USEC", WATCHDOG_USEC);
    if told {
        command.env("NOTIFY_SOCKET", place);
    }
    (Process::start("qkdd", &mut command), Manager { socket })
}

fn stop(process: &mut Process) {
    process.signal(Signal::SIGTERM);
    assert_eq!(process.wait(DEADLINE).code(), Some(0), "{}", process.output());
}

#[test]
fn it_is_not_ready_before_the_card_is_up() {
    let mut cards = Cards::start(&["--fault", "at=0s kind=self-test count=1000"]);
    let (mut process, manager) = start(&cards, true);
    assert_eq!(process.wait(DEADLINE).code(), Some(3), "{}", process.output());
    let told = manager.rest();
    assert!(told.iter().any(|message| message.contains("the card")), "it must tell what it does: {told:?}");
    assert!(!told.iter().any(|message| message == "READY=1"), "{told:?}");
    cards.process.signal(Signal::SIGTERM);
    cards.process.wait(DEADLINE);
}

#[test]
fn it_is_ready_when_the_api_answers_and_says_when_it_stops() {
    let cards = Cards::start(&["--weather", "calm"]);
    let (mut process, manager) = start(&cards, true);
    manager.until("READY=1");
    let line = process.line("ready api=", DEADLINE);
    let address = line.split_whitespace().find_map(|word| word.strip_prefix("api=")).unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    manager.until("STATUS=Leader; the QKD link distils key; waiting for the other module");
    stop(&mut process);
    let rest = manager.rest();
    assert_eq!(rest.iter().filter(|message| *message == "STOPPING=1").count(), 1, "{rest:?}");
    assert!(!rest.contains(&"READY=1".to_owned()), "ready is told once: {rest:?}");
}

#[test]
fn it_lives_while_it_waits_for_first_light_and_stops_at_once() {
    // Cards that have lost power do not know each other until light comes. An outage ends early where the link notices a
    // restart after it began, hence several.
    let dark = ["at=1s kind=power-loss", "at=1050ms for=1h kind=outage", "at=1200ms for=1h kind=outage"];
    let mut options: Vec<&str> = dark.iter().flat_map(|fault| ["--fault", *fault]).collect();
    options.push("--json");
    let cards = Cards::start(&options);
    let _ = cards.process.line("\"state\":\"Stopped\",\"fault\":\"None\",\"link\":\"Off\"", DEADLINE);
    let (mut process, manager) = start(&cards, true);
    manager.until("READY=1");
    manager.until("STATUS=The card is up; waiting for the QKD link");
    manager.until("WATCHDOG=1");
    manager.until("WATCHDOG=1");
    stop(&mut process);
    assert_eq!(manager.rest().iter().filter(|message| *message == "STOPPING=1").count(), 1);
}

#[test]
fn it_stops_at_once_while_it_waits_for_the_card() {
    let cards = Cards::start(&[]);
    // The socket takes the connection, and nobody answers: the daemon would wait long and then end with another code.
    cards.process.signal(Signal::SIGSTOP);
    let (mut process, manager) = start(&cards, true);
    manager.until("STATUS=Reaching the card");
    let _ = process.line("memory for keys", DEADLINE);
    stop(&mut process);
    assert_eq!(manager.rest(), ["STOPPING=1"]);
    cards.process.signal(Signal::SIGCONT);
}

#[test]
fn the_watchdog_is_not_fed_while_the_cards_thread_hangs() {
    let cards = Cards::start(&["--weather", "calm"]);
    let (mut process, manager) = start(&cards, true);
    manager.until("WATCHDOG=1");
    // The card's heart stops, the daemon resets it, and the reset is not answered.
    cards.process.signal(Signal::SIGSTOP);
    manager.until("STATUS=the card's thread hangs");
    cards.process.signal(Signal::SIGCONT);
    let message = manager.next();
    assert!(message.starts_with("STATUS=Leader"), "fed or silent while the thread hung: {message}");
    manager.until("WATCHDOG=1");
    stop(&mut process);
}

#[test]
fn without_a_service_manager_nothing_is_told() {
    let cards = Cards::start(&["--weather", "calm"]);
    let (mut process, manager) = start(&cards, false);
    let _ = process.line("QKD link: Distilling", DEADLINE);
    let names = std::fs::read_dir(format!("/proc/{}/task", process.pid())).unwrap();
    let names: Vec<String> =
        names.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap()).collect();
    let has = |name: &str| names.iter().any(|found| found.trim() == name);
    assert!(has("card") && !has("notify"), "the card's thread is there, and none that tells: {names:?}");
    stop(&mut process);
    assert_eq!(manager.rest(), Vec::<String>::new());
}

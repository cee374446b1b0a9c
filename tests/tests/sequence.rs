//! KMSs in trouble, and a daemon that starts again: what the public interface promises their KMSs then.

use std::process::Command;

use nix::sys::signal::Signal;
use qkd_tests::DEADLINE;
use qkd_tests::module::{ModuleConfig, Pair};
use qkd_tests::process::Process;
use qkd_tests::programs::workspace;

#[test]
fn kms_in_trouble_get_what_the_interface_promises() {
    let script = workspace().join("tests/witness/troubled_kms.py");
    let mut kms = Process::start("troubled_kms.py", Command::new("python3").arg(script));
    let line = kms.line("listening ", DEADLINE);
    let ports: Vec<u16> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [port_a, port_b] = ports[..] else { panic!("two ports expected in {line:?}") };
    let url = |port| format!("http://127.0.0.1:{port}");
    let mut pair = Pair::start(&["--rate", "1M", "--weather", "calm"], url(port_a), url(port_b), "");
    kms.tell(&format!(
        r#"{{"module_a": "http://{}", "module_b": "http://{}", "kms_a": "kms://a", "kms_b": "kms://b"}}"#,
        pair.a.api, pair.b.api
    ));
    let _ = kms.line("restart B", DEADLINE * 5);
    pair.b.process.signal(Signal::SIGKILL);
    let _ = pair.b.process.wait(DEADLINE);
    let b = ModuleConfig {
        name: "B",
        role: "follower",
        socket: &pair.cards.socket_b,
        peer: format!("connect = \"{}\"", pair.a.peer.expect("the leader listens")),
        peer_kms: "kms://a",
        kms: ("kms://b", url(port_b)),
        more: "",
    }
    .start(pair.cards.folder.path());
    kms.tell(&format!(r#"{{"module_b": "http://{}"}}"#, b.api));
    let end = kms.line(" passed, ", DEADLINE * 5);
    assert_eq!(
        end,
        "6 passed, 0 failed",
        "{}\n{}\n{}",
        kms.output(),
        pair.a.process.output(),
        b.process.output()
    );
    assert!(kms.wait(DEADLINE).success());
}

//! A KMS written by somebody else, from the public interface alone, runs the sequence at both ends.

use std::process::Command;

use qkd_tests::DEADLINE;
use qkd_tests::module::Pair;
use qkd_tests::process::Process;
use qkd_tests::programs::workspace;

#[test]
fn two_foreign_kms_get_the_same_keys_whatever_form_they_speak() {
    let script = workspace().join("tests/witness/two_kms.py");
    let mut kms = Process::start("two_kms.py", Command::new("python3").arg(script));
    let line = kms.line("listening ", DEADLINE);
    let ports: Vec<u16> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [port_a, port_b] = ports[..] else { panic!("two ports expected in {line:?}") };
    let url = |port| format!("http://127.0.0.1:{port}");
    let pair = Pair::start(&["--rate", "5M", "--weather", "calm"], url(port_a), url(port_b), "");
    kms.tell(&format!(
        r#"{{"module_a": "http://{}", "module_b": "http://{}", "kms_a": "kms://a", "kms_b": "kms://b"}}"#,
        pair.a.api, pair.b.api
    ));
    let end = kms.line(" passed, ", DEADLINE * 5);
    assert_eq!(
        end,
        "7 passed, 0 failed",
        "{}\n{}\n{}",
        kms.output(),
        pair.a.process.output(),
        pair.b.process.output()
    );
    assert!(kms.wait(DEADLINE).success());
}

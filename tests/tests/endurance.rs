//! Real daemons that are killed at random instants under load, with everything else going wrong around them.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use qkd_tests::programs::{program, write_script};
use serde_json::Value;

/// Runs the harness to its end; each of its waits has a deadline of its own.
fn endure(more: &[&str]) -> Output {
    Command::new(program("qkd-sim")).arg("endurance").args(more).output().expect("qkd-sim starts")
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn check(folder: &Path) -> (Option<i32>, Value) {
    let output = Command::new(program("qkd-sim"))
        .args(["check", "--json"])
        .args([folder.join("a.history"), folder.join("b.history")])
        .output()
        .expect("qkd-sim starts");
    (output.status.code(), serde_json::from_slice(&output.stdout).expect("a verdict in JSON"))
}

/// Changes one hexadecimal digit of the digest of a chunk that both KMSs got.
fn alter_a_chunk(history: &Path) {
    let text = fs::read_to_string(history).expect("a history");
    let mut done = false;
    let altered: Vec<String> = text
        .lines()
        .map(|line| match line.find("\"sha256\":\"") {
            Some(at) if !done && line.contains("\"kind\":\"chunk\"") => {
                done = true;
                let digit = at + "\"sha256\":\"".len();
                let other = if line[digit..].starts_with('0') { "1" } else { "0" };
                format!("{}{other}{}", &line[..digit], &line[digit + 1..])
            }
            _ => line.to_owned(),
        })
        .collect();
    assert!(done, "no chunk in the history");
    fs::write(history, altered.join("\n") + "\n").expect("writes");
}

#[test]
fn fifty_kills_under_load_break_no_promise_and_stop_no_stream() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    let output = endure(&["--kills", "50", "--seed", "5", "--json", "--keep", kept.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output));
    let last =
        String::from_utf8_lossy(&output.stdout).lines().last().map(str::to_owned).expect("a last line");
    let verdict: Value = serde_json::from_str(&last).expect("a verdict in JSON");
    assert_eq!(verdict["success"], true, "{last}");
    assert!(verdict["kills"].as_u64() >= Some(50), "{last}");
    assert!(verdict["verdict"]["origin_octets"].as_u64() > Some(1_000_000), "too little load: {last}");
    for kind in ["kill -9", "SIGTERM", "SIGSTOP", "peer link cut", "peer link slow", "peer link reset"] {
        assert!(verdict["faults"][kind].as_u64() >= Some(1), "no {kind}: {last}");
    }
    // The same histories with one chunk altered are not let pass.
    alter_a_chunk(&kept.join("b.history"));
    let (code, verdict) = check(&kept);
    assert_eq!(code, Some(1), "{verdict}");
    assert!(verdict["violations"]["I1"].as_u64() >= Some(1), "{verdict}");
}

#[test]
fn a_daemon_that_forgets_its_ledger_is_caught_because_its_streams_do_not_resume() {
    let folder = tempfile::tempdir().unwrap();
    let forgetful = folder.path().join("qkdd");
    let script = format!("rm -f \"$STATE_DIRECTORY\"/*\nexec '{}' \"$@\"", program("qkdd").to_str().unwrap());
    write_script(&forgetful, &script);
    let qkdd = forgetful.to_str().unwrap();
    let kept = folder.path().join("kept");
    let output = endure(&[
        "--kills",
        "1",
        "--seed",
        "1",
        "--recovers-within",
        "8s",
        "--qkdd",
        qkdd,
        "--keep",
        kept.to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("did not resume at A"), "{}", text(&output));
}

#[test]
fn lost_and_restored_ledgers_end_streams_with_notice_and_reuse_nothing() {
    let output = endure(&["--kills", "12", "--seed", "5", "--ledger-faults"]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("ledger lost"), "{}", text(&output));
    assert!(text(&output).contains("ledger restored from a backup"), "{}", text(&output));
}

//! The audit record of a real module: what it holds, that a change is found, and that without it nothing is handed out.

use std::path::PathBuf;
use std::process::Command;

use qkd_tests::DEADLINE;
use qkd_tests::ends::Ends;
use qkd_tests::memory_scan::cells_of;
use qkd_tests::programs::program;

fn record(ends: &Ends, end: usize) -> PathBuf {
    ends.ledger(end).parent().unwrap().join("audit")
}

/// Exit code and words of `qkdctl audit verify`.
fn verify(path: &PathBuf) -> (Option<i32>, String) {
    let output = Command::new(program("qkdctl")).args(["audit", "verify"]).arg(path).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn who_opened_started_and_closed_is_recorded_over_restarts_and_a_cut_or_changed_record_is_found_and_not_gone_on_with()
 {
    let mut ends = Ends::start_positional();
    ends.start_kms(2);
    ends.wait_for_chunks(500);
    ends.kill(0);
    ends.start_module(0);
    ends.wait_for_chunks(500);
    ends.wait_until("key on every stream", |ends| (0..2).all(|end| ends.says(end, "with_key") == 2));
    assert!(ends.end_kms(), "a KMS has seen something wrong");
    ends.terminate(0);
    ends.terminate(1);
    for end in 0..2 {
        let (code, said) = verify(&record(&ends, end));
        assert_eq!(code, Some(0), "{said}");
        let text = std::fs::read_to_string(record(&ends, end).join("audit.000001.jsonl")).unwrap();
        let count = |what: &str| text.matches(&format!("\"what\":\"{what}\"")).count();
        assert_eq!((count("opened"), count("closed")), (2, 2), "{text}");
        assert!(count("started") >= 2 && count("peer_connected") >= 2, "{text}");
        assert_eq!((count("daemon_started"), count("daemon_stopped")), (2 - end, 1), "{text}");
        cells_of(text.as_bytes(), |_, dress, _| panic!("the record holds key, {dress:?}"));
    }
    let file = record(&ends, 0).join("audit.000001.jsonl");
    let whole = std::fs::read_to_string(&file).unwrap();
    let cut: String = whole.lines().take(whole.lines().count() - 1).map(|line| format!("{line}\n")).collect();
    let changed = whole.replacen("\"kms\":\"kms://a\"", "\"kms\":\"kms://c\"", 1);
    assert_ne!(whole, changed);
    for (text, words) in [(cut, "cut off"), (changed, "does not follow")] {
        std::fs::write(&file, text).unwrap();
        let (code, said) = verify(&record(&ends, 0));
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(words), "{said}");
        let config = ends.cards.folder.path().join("A.toml");
        let ended = Command::new(program("qkdd")).arg("--config").arg(config).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.code() == Some(8) && said.contains("not what it was"), "{said}");
    }
}

#[test]
fn where_the_record_cannot_be_written_the_daemon_ends_before_it_answers() {
    let mut ends = Ends::start_positional();
    ends.terminate(0);
    // With the signal ignored, a file that may not be written further is an error like a full disk.
    ends.start_module_by(0, &["env", "--ignore-signal=XFSZ"]);
    // What the start and the other module have it record is recorded.
    let _ = ends.module(0).process.line("greets as follower", DEADLINE);
    let (head, body) = (
        "Connection: close\r\nContent-Type: application/json",
        "{\"key_stream_id\":\"00000000-0000-4000-8000-000000000000\"}",
    );
    let request = format!(
        "POST /api/v1/kms/etsi004/get-key HTTP/1.1\r\nHost: a\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let api = ends.module(0).api;
    let ask = || {
        let mut stream = std::net::TcpStream::connect(api).unwrap();
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        stream
    };
    let answer_of = |mut stream: std::net::TcpStream| {
        let mut answer = String::new();
        let _ = std::io::Read::read_to_string(&mut stream, &mut answer);
        answer
    };
    let refused = answer_of(ask());
    assert!(refused.contains("is not open"), "{refused}");
    let pid = ends.module(0).process.pid().to_string();
    let limited = Command::new("prlimit").args(["--pid", &pid, "--fsize=16"]).status().unwrap();
    assert!(limited.success());
    // A call that is refused touches no ledger, only the record.
    let stream = ask();
    let mut module = ends.modules[0].take().unwrap();
    assert_eq!(module.process.wait(DEADLINE).code(), Some(8), "{}", module.process.output());
    let said = module.process.output();
    assert!(said.contains("the audit record") && said.contains("cannot be written"), "{said}");
    let answer = answer_of(stream);
    assert!(!answer.contains("is not open"), "it was answered without being recorded: {answer}");
}

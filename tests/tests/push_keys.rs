//! The script by which others test their KMS in continuous integration, and the samples that call it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

use qkd_tests::documentation::lab::{Place, Running};
use qkd_tests::http::call;
use qkd_tests::programs::{program, workspace};
use qkd_tests::{DEADLINE, wait_until};
use serde_json::{Value, json};

const KMS: &str = "qkd/qkd-sim kms --module http://127.0.0.1:8001 --listen 127.0.0.1:9001";

/// A folder with what `./dev static` packs.
fn unpacked() -> Place {
    let place = Place::new();
    let folder = place.folder().join("qkd");
    std::fs::create_dir(&folder).unwrap();
    for name in ["qkd-sim", "qkdd", "qkdctl"] {
        std::os::unix::fs::symlink(program(name), folder.join(name)).unwrap();
    }
    std::os::unix::fs::symlink(workspace().join("packaging/ci/push-keys"), folder.join("push-keys")).unwrap();
    place
}

/// Free ports instead of those that are used unless others are given.
fn own_ports(command: &str) -> String {
    command.replace("push-keys ", "push-keys --module 127.0.0.1:8001 --far 127.0.0.1:9002 ")
}

/// What the folder for temporary files, which the script uses, has in it.
fn left_in(place: &Place) -> usize {
    std::fs::read_dir(place.folder().join("tmp")).unwrap().count()
}

fn with_own_tmp(place: &Place, command: &str) -> String {
    std::fs::create_dir_all(place.folder().join("tmp")).unwrap();
    format!("TMPDIR=$PWD/tmp {command}")
}

#[test]
fn the_samples_commands_push_keys_to_the_reference_kms() {
    for sample in ["github-actions.yml", "gitlab-ci.yml"] {
        let text = std::fs::read_to_string(workspace().join("packaging/ci").join(sample)).unwrap();
        let of = |start: &str| {
            let lines =
                text.lines().map(|line| line.trim().trim_start_matches("- ").trim_start_matches("run: "));
            let mut lines = lines.filter(|line| line.starts_with(start));
            let line = lines.next().unwrap_or_else(|| panic!("{sample} has no {start}"));
            assert!(lines.next().is_none(), "{sample} has two of {start}");
            line.to_owned()
        };
        let place = unpacked();
        // Nothing in a sample waits for the KMS: it may come up last.
        let keys = place.shell(sample, &with_own_tmp(&place, &own_ports(&of("qkd/push-keys "))));
        let _ = keys.process().line("waiting until ", DEADLINE);
        let _kms = place.shell("the KMS under test", of("qkd/qkd-sim kms ").trim_end_matches('&'));
        let (said, code) = end_of(keys);
        assert!(code == Some(0) && said.contains("PASS: the KMS has accepted"), "{code:?} {said}");
        assert!(std::fs::read_to_string(place.folder().join("conform.xml")).unwrap().contains("<testsuite "));
        assert!(place.folder().join("qkd-logs/near.log").exists());
        assert_eq!(left_in(&place), 0, "something is left behind");
    }
}

#[test]
fn a_kms_that_joins_gets_the_key_stream_s_id_and_its_keys() {
    let place = unpacked();
    let command = own_ports("qkd/push-keys --programs qkd --join --chunks 50 http://127.0.0.1:9001");
    let script = place.shell("push-keys", &command);
    let line = script.process().line("push-keys: key stream ", DEADLINE);
    let id = line.rsplit(' ').next().unwrap();
    let _kms = place.shell(
        "the KMS under test",
        &format!("exec {KMS} --join {id} --source kms://far --destination kms://a"),
    );
    let _ = script.process().line("PASS: the KMS has accepted", DEADLINE);
}

/// A server that answers everything with 404.
fn knows_nothing(at: SocketAddr) {
    let listener = TcpListener::bind(at).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut octets = [0; 1 << 16];
                while let Ok(1..) = stream.read(&mut octets) {
                    let answer = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
                    if stream.write_all(answer.as_bytes()).is_err() {
                        break;
                    }
                }
            });
        }
    });
}

fn address(place: &Place, text: &str) -> SocketAddr {
    place.adapt(text).parse().unwrap()
}

/// The script's end: what it said, and its exit code.
fn end_of(mut script: Running) -> (String, Option<i32>) {
    let code = script.process_mut().wait(DEADLINE).code();
    (script.process().output(), code)
}

#[test]
fn a_kms_that_answers_404_to_everything_fails_with_the_reason() {
    let place = unpacked();
    let module = address(&place, "127.0.0.1:8001");
    knows_nothing(address(&place, "127.0.0.1:9001"));
    let command = own_ports("qkd/push-keys --programs qkd http://127.0.0.1:9001");
    let script = place.shell("push-keys", &with_own_tmp(&place, &command));
    let _ = script.process().line("waiting for the KMS under test", DEADLINE);
    let open = json!({"source": "kms://a", "destination": "kms://far", "key_stream_id": null, "qos": {}});
    let (code, said) = call(module, "POST", "open-connect", &open.to_string());
    assert_eq!(code, 201, "{said}");
    let opened: Value = serde_json::from_str(&said).unwrap();
    let get_key = json!({"key_stream_id": opened["key_stream_id"]}).to_string();
    // Refused until the far KMS has joined.
    wait_until("key stream that both have opened", || call(module, "POST", "get-key", &get_key).0 == 205);
    let (said, code) = end_of(script);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("FAIL: the KMS refuses key; it has accepted 0 of 1000"), "{said}");
    assert!(said.contains("HTTP status 404"), "the reason is not told: {said}");
    assert_eq!(left_in(&place), 0, "something is left behind");
}

#[test]
fn a_kms_whose_certificate_is_not_taken_fails_with_the_reason() {
    let place = unpacked();
    for folder in ["lab", "elsewhere"] {
        let _ = place.run(folder, &format!("qkd/qkd-sim lab-certificates {folder} --kms-b kms://far"));
    }
    let files = "--certificate elsewhere/kms-a.pem --certificate-key elsewhere/kms-a.key --authorities lab/authority.pem";
    let kms = KMS.replace("http:", "https:");
    let kms = place.shell(
        "the KMS under test",
        &format!("exec {kms} --open --source kms://a --destination kms://far {files}"),
    );
    let _ = kms.process().line("listening ", DEADLINE);
    let command = "qkd/push-keys --programs qkd --certificates lab --patience 5 https://127.0.0.1:9001";
    let (said, code) = place.code_of("push-keys", &own_ports(command));
    assert!(code == 1 && said.contains("FAIL: nobody has opened a key stream at https"), "{code} {said}");
    assert!(said.contains("refused in the TLS handshake"), "the reason is not told: {said}");
}

#[test]
fn what_cannot_be_tested_is_no_success() {
    let place = unpacked();
    let code = |options: &str| place.code_of(options, &own_ports(&format!("qkd/push-keys {options}")));
    let (said, nobody) = code("--programs qkd --patience 1 http://127.0.0.1:9001");
    assert!(nobody == 1 && said.contains("FAIL: nobody has opened a key stream"), "{nobody} {said}");
    let (said, nobody) = code("--programs qkd --patience 5 --join http://127.0.0.1:9001");
    assert!(nobody == 1 && said.contains("FAIL: the KMS has accepted 0 of"), "{nobody} {said}");
    for (options, reason) in [
        ("--programs qkd", "URL"),
        ("--programs qkd http://127.0.0.1:9001 http://127.0.0.1:9002", "one URL"),
        ("--programs qkd --chunks some http://127.0.0.1:9001", "no number"),
        ("--programs qkd --cure http://127.0.0.1:9001", "--cure"),
        ("--programs qkd https://127.0.0.1:9001", "give --certificates"),
        (
            "--programs qkd --certificates nowhere https://127.0.0.1:9001",
            "nowhere/authority.pem cannot be read",
        ),
        ("--programs qkd --certificates nowhere http://127.0.0.1:9001", "https"),
        ("--programs qkd --uri 'kms://a\"' http://127.0.0.1:9001", "character"),
        ("--programs qkd --rate much http://127.0.0.1:9001", "cards did not start"),
    ] {
        let (said, code) = code(options);
        assert!(code == 2 && said.contains(reason), "{options}: {code} {said}");
    }
}

//! `qkdctl conform` on what is right, and on what has a planted defect.

use std::process::Command;

use qkd_sim::lab::Lab;
use qkd_tests::DEADLINE;
use qkd_tests::conform::defects::{of_answers, of_pushes};
use qkd_tests::conform::{Defect, Found, Proxy, Spoil, conform, small_kms};
use qkd_tests::module::{Cards, Module, ModuleConfig, Pair};
use qkd_tests::ports::{free_ports, with_ports};
use qkd_tests::process::Process;
use qkd_tests::programs::{program, workspace};
use qkd_tests::secure::{Choice, Secured};

const CARDS: &[&str] = &["--weather", "calm", "--rate", "4M"];

fn url(address: impl std::fmt::Display) -> String {
    format!("http://{address}")
}

/// Both ends of a link, whose KMSs are at these addresses; they do not wait for a KMS in trouble as long as usual.
fn pair(profile: &str, kms: [String; 2]) -> Pair {
    let cards = Cards::start(CARDS);
    let [kms_a, kms_b] = kms;
    let start = |name: &str,
                 role: &str,
                 socket: &std::path::Path,
                 peer: String,
                 kms: (&str, String),
                 peer_kms: &str|
     -> Module {
        let more = "[push]\nanswer_deadline_ms = 700\nbackoff_greatest_ms = 500\n";
        let config = ModuleConfig { name, role, socket, peer, peer_kms, kms, more };
        let path = config.write(cards.folder.path());
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replacen("[api]", &format!("[api]\nprofile = {profile:?}"), 1)).unwrap();
        config.start_as(Command::new(program("qkdd")).arg("--config").arg(path))
    };
    let a = start(
        "A",
        "leader",
        &cards.socket_a,
        "listen = \"127.0.0.1:0\"".into(),
        ("kms://a", kms_a),
        "kms://b",
    );
    let connect = format!("connect = \"{}\"", a.peer.unwrap());
    let b = start("B", "follower", &cards.socket_b, connect, ("kms://b", kms_b), "kms://a");
    let _ = b.process.line("takes over epoch", DEADLINE);
    Pair { a, b, cards }
}

/// Nothing is wrong, and nothing was left out but `skipped`.
fn all_pass(found: &Found, skipped: &[&str]) {
    assert_eq!(found.with("FAIL"), [""; 0], "{found:#?}");
    assert_eq!(found.with("WARN"), [""; 0], "{found:#?}");
    assert_eq!(found.with("SKIP"), skipped, "{found:#?}");
    assert!(found.with("PASS").len() >= 30, "{found:#?}");
    assert_eq!(found.code, 0);
    let schema = std::fs::read_to_string(workspace().join("docs/schema/conform.json")).unwrap();
    qkd_tests::schema::check(&found.report, &serde_json::from_str(&schema).unwrap());
}

/// The planted defect is found under its clause, and nothing else is blamed but what cannot be right then.
fn only(found: &Found, what: &str, clause: &str, besides: &[&str]) {
    let failed = found.with("FAIL");
    assert!(failed.contains(&clause), "{what}: {clause} must fail: {found:#?}");
    let others: Vec<_> = failed.iter().filter(|id| **id != clause && !besides.contains(id)).collect();
    assert!(others.is_empty(), "{what}: {others:?} failed as well: {found:#?}");
    assert_eq!(found.code, 1, "{what}");
}

#[test]
fn our_modules_keep_every_clause_at_either_end_and_in_either_profile() {
    let [listen, other_listen] = free_ports();
    let (here, there) = (listen.to_string(), other_listen.to_string());
    let folder = tempfile::tempdir().unwrap();
    let junit = folder.path().join("junit.xml");
    for profile in ["openapi", "ok"] {
        let pair = pair(profile, [url(listen), url(other_listen)]);
        let (a, b) = (url(pair.a.api), url(pair.b.api));
        let (first, last) = (["module", &a], ["--deadline", "30", "--junit", junit.to_str().unwrap()]);
        let arguments = match profile {
            "openapi" => {
                [&first[..], &["--other", &b, "--listen", &here, "--other-listen", &there], &last].concat()
            }
            // From the follower's end; that it is a module is found out.
            _ => {
                let names = ["--source", "kms://b", "--destination", "kms://a"];
                [
                    &[b.as_str()][..],
                    &names,
                    &["--other", &a, "--listen", &there, "--other-listen", &here],
                    &last,
                ]
                .concat()
            }
        };
        let found = conform(&arguments);
        all_pass(&found, &["tls.client"]);
        let text = std::fs::read_to_string(&junit).unwrap();
        assert_eq!(text.matches("<testcase ").count(), found.checks.len());
        assert!(text.contains("failures=\"0\" errors=\"0\" skipped=\"1\""), "{text}");
    }
}

#[test]
fn our_modules_keep_every_clause_over_tls() {
    let secured = Secured::start(Choice { more: "[push]\nanswer_deadline_ms = 700\n", ..Choice::default() });
    let file = |name: &str| secured.lab.join(name).to_str().unwrap().to_owned();
    let https = |end: usize| format!("https://localhost:{}", secured.module(end).api.port());
    let (a, b) = (https(0), https(1));
    let listen = secured.endpoints.map(|address| address.to_string());
    let found = conform(&[
        "module",
        &a,
        "--other",
        &b,
        "--listen",
        &listen[0],
        "--other-listen",
        &listen[1],
        "--deadline",
        "30",
        "--certificate",
        &file("kms-a.pem"),
        "--certificate-key",
        &file("kms-a.key"),
        "--authorities",
        &file("authority.pem"),
        "--other-certificate",
        &file("kms-b.pem"),
        "--other-certificate-key",
        &file("kms-b.key"),
    ]);
    all_pass(&found, &[]);
}

#[test]
fn a_modules_defects_are_found_under_their_clauses() {
    let [listen, other_listen] = free_ports();
    let pushed = Proxy::start(listen);
    let pair = pair("openapi", [url(pushed.address), url(other_listen)]);
    let api = Proxy::start(pair.a.api);
    let (a, b) = (url(api.address), url(pair.b.api));
    let sound = conform(&["module", &a]);
    assert_eq!((sound.with("FAIL"), sound.with("WARN")), (vec![], vec![]), "{sound:#?}");
    assert!(sound.with("SKIP").contains(&"push.order"), "{sound:#?}");
    for planted in of_answers() {
        api.set(planted.spoil);
        only(&conform(&["module", &a]), planted.what, planted.clause, planted.besides);
    }
    api.set(Spoil::default());
    let (here, there) = (listen.to_string(), other_listen.to_string());
    let both = ["module", &a, "--other", &b, "--listen", &here, "--other-listen", &there, "--deadline", "6"];
    for planted in of_pushes() {
        pushed.set(planted.spoil);
        only(&conform(&both), planted.what, planted.clause, planted.besides);
    }
}

#[test]
fn the_reference_kms_keeps_every_clause() {
    let [listen, kms] = free_ports();
    let mut command = Command::new(program("qkd-sim"));
    command
        .args(["kms", "--open", "--source", "kms://a", "--destination", "kms://b", "--key", "random"])
        .args(["--module", &url(listen), "--listen", &kms.to_string()]);
    let process = Process::start("qkd-sim kms", &mut command);
    let _ = process.line("listening ", DEADLINE);
    let found = conform(&["kms", &url(kms), "--listen", &listen.to_string(), "--deadline", "30"]);
    all_pass(&found, &["tls.client"]);
}

#[test]
fn the_reference_kms_keeps_every_clause_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let lab = folder.path().join("lab");
    let _authority = Lab { hosts: [vec![], vec![]], kms: ["kms://a".into(), "kms://b".into()], days: 10 }
        .write(&lab)
        .unwrap();
    let file = |name: &str| lab.join(name).to_str().unwrap().to_owned();
    let [listen, kms] = free_ports();
    let mut command = Command::new(program("qkd-sim"));
    command
        .args(["kms", "--open", "--source", "kms://a", "--destination", "kms://b", "--key", "random"])
        .args(["--module", &format!("https://localhost:{}", listen.port()), "--listen", &kms.to_string()])
        .args(["--certificate", &file("kms-a.pem"), "--certificate-key", &file("kms-a.key")])
        .args(["--authorities", &file("authority.pem")]);
    let process = Process::start("qkd-sim kms", &mut command);
    let _ = process.line("listening ", DEADLINE);
    let found = conform(&[
        "kms",
        &format!("https://localhost:{}", kms.port()),
        "--listen",
        &listen.to_string(),
        "--certificate",
        &file("module-a.pem"),
        "--certificate-key",
        &file("module-a.key"),
        "--authorities",
        &file("authority.pem"),
    ]);
    all_pass(&found, &[]);
}

#[test]
fn a_kmss_defects_are_found_under_their_clauses() {
    const STREAM: &str = "0b9c5b1a-6a04-4b8e-9a52-3a2f0f6c1d2e";
    const NOTICES: &[&str] = &["notice.insufficient", "notice.link-down", "notice.closed"];
    let probe = |defect| {
        let kms = url(small_kms(STREAM, defect));
        conform(&["kms", &kms, "--stream", STREAM, "--deadline", "3"])
    };
    all_pass(&probe(Defect::None), &["tls.client", "open.request", "get-key.request"]);
    for (defect, clause, besides) in [
        (Defect::TakesStrangers, "material.unknown", &["chunk.in-flight"][..]),
        (Defect::FailsOnStrangers, "material.unknown", &["chunk.in-flight"]),
        (Defect::NoStatus, "answer.status", &["chunk.status"]),
        (Defect::RefusesRepeated, "chunk.again", &["chunk.again-elsewhere"]),
        (Defect::TakesChanged, "chunk.changed", &[]),
        (Defect::TakesAnyLength, "chunk.length", &["chunk.changed"]),
        (Defect::TakesNoBase64, "chunk.base64", &["chunk.changed"]),
        (Defect::NoticesUseIndexes, "notice.insufficient", &["notice.link-down"]),
        (Defect::RefusesNotices, "notice.insufficient", NOTICES),
        (Defect::LosesPipelined, "chunk.in-flight", &[]),
        (Defect::WantsOrder, "chunk.members", &[]),
        (Defect::RefusesGaps, "chunk.after-loss", NOTICES),
        (Defect::TakesNoJson, "material.json", &[]),
    ] {
        only(&probe(defect), &format!("{defect:?}"), clause, besides);
    }
}

#[test]
fn what_cannot_be_probed_is_no_success() {
    let [nobody] = free_ports();
    let found = conform(&["module", &url(nobody)]);
    assert_eq!((found.with("FAIL"), found.code), (vec!["reach"], 1), "{found:#?}");
    assert!(found.with("PASS").is_empty(), "{found:#?}");
    for wrong in
        [&["conform", "gateway", "http://localhost:1"][..], &["conform", "ftp://localhost"], &["conform"]]
    {
        let done = Command::new(program("qkdctl")).args(wrong).output().unwrap();
        assert_eq!(done.status.code(), Some(2), "{wrong:?}: {done:?}");
    }
}

#[test]
fn a_side_that_is_only_just_started_is_not_called_broken_where_waiting_is_wanted() {
    for part in [&["kms"][..], &["module"], &[]] {
        let [late] = free_ports();
        let mut probe = Command::new(program("qkdctl"));
        let deadline = if part == ["module"] { "1" } else { "10" };
        probe.arg("conform").args(part).args([&url(late), "--wait", "60", "--deadline", deadline]);
        let mut probe = Process::start("the probe", &mut probe);
        let line = probe.line("waiting until ", DEADLINE);
        assert!(line.contains(&late.to_string()) && line.contains("refused"), "{line}");
        let mut kms = Command::new(program("qkd-sim"));
        kms.args([
            "kms",
            "--module",
            "http://127.0.0.1:9",
            "--source",
            "kms://a",
            "--destination",
            "kms://b",
        ]);
        let _kms = Process::start("the KMS", kms.args(["--open", "--listen", &late.to_string()]));
        let _ = probe.line("PASS reach ", DEADLINE);
        let ended = probe.wait(DEADLINE);
        assert_eq!(ended.code(), Some(i32::from(part == ["module"])), "{}", probe.output());
    }
}

fn page() -> String {
    std::fs::read_to_string(workspace().join("docs/kms-developers.md")).unwrap()
}

#[test]
fn the_page_has_every_clause_that_is_checked() {
    let done = Command::new(program("qkdctl")).args(["conform", "--list"]).output().unwrap();
    let list = String::from_utf8(done.stdout).unwrap();
    let (_, tables) =
        page().split_once("<!-- clauses -->\n").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert_eq!(tables.trim(), list.trim(), "put the output of qkdctl conform --list behind the mark");
}

#[test]
fn what_the_page_tells_to_type_tests_the_reference_kms() {
    let page = page();
    let block =
        page.split("<!-- conform -->\n```sh\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let [module, kms] = free_ports();
    let script = with_ports(block, "", &["8009", "9009"], &[module, kms]);
    let folder = tempfile::tempdir().unwrap();
    let programs = program("qkdctl").parent().unwrap().to_str().unwrap().to_owned();
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap());
    let mut command = Command::new("bash");
    command.args(["-e", "-c", &script]).current_dir(folder.path()).env("PATH", path);
    let mut shell = Process::start("the page's commands", &mut command);
    let ended = shell.wait(DEADLINE * 2);
    assert!(ended.success(), "{}", shell.output());
    let line = shell.line(" passed, ", DEADLINE);
    assert!(line.contains(" 0 warnings, 0 failed, 1 skipped"), "{line}");
    assert!(std::fs::read_to_string(folder.path().join("conform.xml")).unwrap().contains("<testsuite "));
}

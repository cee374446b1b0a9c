//! Certificates over their life: made as the documents say, renewed, broken, revoked.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use qkd_sim::lab::{Issued, Subject};
use qkd_tests::programs::{program, workspace};
use qkd_tests::secure::{Choice, Client, KMS, Secured, chunks, classical, hybrid, identity};
use qkd_tests::{DEADLINE, wait_until};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn certificates_made_by_the_documents_commands_are_taken() {
    let text = read(&workspace().join("docs/certificates.md"));
    let (_, rest) = text.split_once("<!-- run -->\n```sh\n").expect("commands to run");
    let (commands, _) = rest.split_once("```\n").expect("their end");
    let mut secured = Secured::prepare();
    let made = secured.cards.folder.path().join("made");
    std::fs::create_dir(&made).expect("a folder");
    let ran = Command::new("bash").args(["-euc", commands]).current_dir(&made).output().expect("bash runs");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    for name in ["authority.pem", "module-a.pem", "module-a.key"] {
        std::fs::copy(made.join(name), secured.lab.join(name)).expect("a file");
    }
    secured.start_module(0, Choice::default());
    let of = |name: &str| Issued {
        certificate: read(&made.join(format!("{name}.pem"))),
        key: read(&made.join(format!("{name}.key"))),
    };
    let client = Client::new(&of("authority"), Some(&of("kms-a")), hybrid());
    let exchange = client.exchange(secured.module(0).api, REQUEST).expect("an answer");
    // Not 403: the certificate stands for the KMS.
    assert!(exchange.answer.starts_with(b"HTTP/1.1 404"));
}

#[test]
fn certificates_that_cannot_be_used_are_told_by_check_config() {
    let folder = tempfile::tempdir().expect("a folder");
    let lab = folder.path().join("lab");
    let made = Command::new(program("qkd-sim")).arg("lab-certificates").arg(&lab).status().expect("it runs");
    assert!(made.success());
    let config = folder.path().join("a.toml");
    let lines = read(&lab.join("tls-a.toml"));
    let text = format!(
        "[module]\nname = \"A\"\nrole = \"leader\"\n[card]\nsocket = \"/x\"\n[api]\nlisten = \"192.0.2.1:8001\"\n\
         [peer]\nlisten = \"192.0.2.1:7001\"\ncertificate_name = \"module-b.qkd.test\"\nkms = [\"kms://b\"]\n\
         [[kms]]\nuri = \"kms://a\"\nendpoint = \"https://192.0.2.2\"\ncertificate_names = [\"URI:kms://a\"]\n{lines}"
    );
    std::fs::write(&config, text).expect("a file");
    let check = || {
        let output = Command::new(program("qkdd")).args(["--check-config", "--config"]).arg(&config).output();
        let output = output.expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(check().0, Some(0), "{:?}", check());
    let key = lab.join("module-a.key");
    let chmod =
        |mode: &str| assert!(Command::new("chmod").arg(mode).arg(&key).status().expect("chmod").success());
    for mode in ["644", "660", "604"] {
        chmod(mode);
        let (code, said) = check();
        assert!(
            code == Some(2) && said.contains(&format!("has mode {mode}:")) && said.contains("chmod"),
            "{code:?} {said}"
        );
    }
    chmod("640");
    assert_eq!(check().0, Some(0), "its group may read it");
    std::fs::copy(lab.join("module-b.key"), &key).expect("a file");
    let (code, said) = check();
    assert!(code == Some(2) && said.contains("cannot be used together"), "another's key: {code:?} {said}");
    std::fs::remove_file(&key).expect("a file");
    let (code, said) = check();
    assert!(code == Some(2) && said.contains("module-a.key cannot be read"), "{code:?} {said}");
}

#[test]
fn a_revoked_certificate_is_refused_from_the_next_reload_on() {
    let mut secured = Secured::prepare();
    let list = secured.cards.folder.path().join("revoked.pem");
    let put = |serials: &[u64]| {
        std::fs::write(&list, secured.authority.revocation_list(serials, 1).expect("a list"))
            .expect("a file");
    };
    put(&[]);
    let subject = Subject::new("kms-a", &["localhost"], &[KMS[0]], 1);
    let client = Client::new(
        &secured.authority.own,
        Some(&secured.authority.issue(&subject).expect("a certificate")),
        classical(),
    );
    secured.start_module(0, Choice { tls: &format!("revocation_lists = {list:?}"), ..Choice::default() });
    let module = secured.module(0);
    assert!(client.exchange(module.api, REQUEST).is_ok());
    let list_of = |serials: &[u64]| secured.authority.revocation_list(serials, 1).expect("a list");
    std::fs::write(&list, list_of(&[subject.serial])).expect("a file");
    module.process.signal(Signal::SIGHUP);
    let _ = module.process.line("certificates are read again", DEADLINE);
    let refused = client.exchange(module.api, REQUEST).err().expect("refused");
    assert!(refused.to_string().contains("Revoked"), "{refused}");
}

#[test]
fn a_renewed_certificate_is_used_without_an_interruption_and_a_broken_one_is_not() {
    let secured = Secured::start(Choice::default());
    let module = secured.module(0);
    let client = secured.client("kms-a", hybrid());
    let shown = || client.exchange(module.api, REQUEST).expect("an answer").certificate;
    let first = shown();
    let kms = secured.start_kms(1);
    wait_until("chunks at both ends", || kms.iter().all(|kms| chunks(kms) > 100));

    let subject = Subject::new("module-a", &["localhost", "127.0.0.1", "module-a.qkd.test"], &[], 1);
    let renewed = secured.authority.issue(&subject).expect("a certificate");
    let put = |certificate: &str, key: &str| {
        std::fs::write(secured.lab.join("module-a.pem"), certificate).expect("a file");
        std::fs::write(secured.lab.join("module-a.key"), key).expect("a file");
    };
    put(&renewed.certificate, &renewed.key);
    module.process.signal(Signal::SIGHUP);
    let _ = module.process.line("certificates are read again", DEADLINE);
    let soon = module.process.line("expires in 0 days", DEADLINE);
    assert!(soon.contains("module-a.pem"), "{soon}");
    let second = shown();
    assert_ne!(first, second);
    assert_eq!(second.as_ref(), identity(&renewed).0.first());

    let expired = Subject {
        from: SystemTime::now() - Duration::from_secs(7_200),
        until: SystemTime::now() - Duration::from_secs(3_600),
        ..subject
    };
    let expired = secured.authority.issue(&expired).expect("a certificate");
    let other = secured.issued("module-b");
    let broken = [
        ("rubbish", "rubbish", renewed.key.as_str()),
        ("another's key", &renewed.certificate, &other.key),
        ("no key", &renewed.certificate, ""),
        ("expired", &expired.certificate, &expired.key),
    ];
    for (number, (what, certificate, key)) in broken.into_iter().enumerate() {
        put(certificate, key);
        module.process.signal(Signal::SIGHUP);
        let _ = module.process.nth_line("old certificates stay in use", number, DEADLINE);
        assert_eq!(shown(), second, "{what}");
    }
    put(&renewed.certificate, &renewed.key);
    let lies_open = Command::new("chmod").arg("644").arg(secured.lab.join("module-a.key")).status();
    assert!(lies_open.expect("chmod runs").success());
    module.process.signal(Signal::SIGHUP);
    let said = module.process.nth_line("old certificates stay in use", 4, DEADLINE);
    assert!(said.contains("has mode 644:"), "{said}");

    // Meanwhile key has gone on, over the connection that stood before all of this.
    let before = chunks(&kms[0]);
    wait_until("more chunks", || chunks(&kms[0]) > before + 100);
    for kms in &kms {
        assert_eq!(
            kms.output().matches("key-material comes over TLS").count(),
            1,
            "the push was interrupted"
        );
    }
}

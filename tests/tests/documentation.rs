//! Every command that the documentation tells to type is typed by somebody; those that a developer's machine can run, here.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Mutex;

use qkd_tests::DEADLINE;
use qkd_tests::documentation::lab::{Lab, Place, edited};
use qkd_tests::documentation::runners::{faults, run_by_nobody, to_run_here};
use qkd_tests::documentation::{Block, blocks, commands, look_through};
use qkd_tests::programs::workspace;

const CARDS: &str = "exec qkd-sim pair --socket-a /tmp/qkd-lab/a.sock --socket-b /tmp/qkd-lab/b.sock --rate 4M --weather calm";

/// Blocks that are run one after the other, in one place.
type Scene = (&'static str, fn(&Pages));

/// The blocks that are run here, and which of them were.
struct Pages {
    blocks: Vec<Block>,
    taken: Mutex<BTreeSet<String>>,
}

impl Pages {
    /// The commands below `<!-- run: NAME -->`.
    fn take(&self, name: &str) -> &str {
        let mark = format!("run: {name}");
        let mut found = self.blocks.iter().filter(|block| block.mark.as_ref() == Some(&mark));
        let block = found.next().unwrap_or_else(|| panic!("no block is marked {mark:?}"));
        assert!(found.next().is_none(), "{mark:?} marks two blocks");
        self.taken.lock().unwrap().insert(name.to_owned());
        &block.text
    }
}

fn read(file: &str) -> String {
    std::fs::read_to_string(workspace().join(file)).unwrap()
}

#[test]
fn every_command_that_a_page_tells_to_type_is_run_by_somebody() {
    let blocks = blocks();
    assert!(blocks.len() > 30, "{blocks:#?}");
    let faults = faults(&blocks);
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(run_by_nobody() < 5);
}

#[test]
fn no_command_hides_in_a_block_that_is_not_one_of_commands() {
    for (page, text) in qkd_tests::documentation::pages() {
        let found = look_through(&page, &text);
        assert!(found.elsewhere.is_empty(), "{:#?}", found.elsewhere);
    }
    for hidden in ["```\n./dev test\n```\n", "```console\n$ qkdctl status\n```\n", "x\n\n    qkdctl status\n"]
    {
        assert!(!look_through("page", hidden).elsewhere.is_empty(), "{hidden}");
    }
}

#[test]
fn a_block_that_nobody_runs_is_found() {
    let sound = blocks();
    let spoilt = |spoil: &dyn Fn(&mut Block) -> bool| {
        let mut blocks = sound.clone();
        assert!(blocks.iter_mut().any(spoil), "there is such a block");
        faults(&blocks).join("\n")
    };
    let marked = |wanted: &'static str, change: fn(&mut Block)| {
        spoilt(&move |block: &mut Block| {
            let is_it = block.mark.as_deref() == Some(wanted);
            if is_it {
                change(block);
            }
            is_it
        })
    };
    assert!(marked("walk", |block| block.mark = None).contains("who runs it"));
    assert!(marked("walk", |block| block.mark = Some("somebody".into())).contains("nobody is known"));
    assert!(marked("walk", |block| block.mark = Some("run: x".into())).contains("3 blocks are marked"));
    let wrong_option = |block: &mut Block| block.text = "qkdctl doctor --cure\n".into();
    assert!(marked("run: virtual machine", wrong_option).contains("qkdctl doctor --cure"));
    assert!(
        marked("run: ./dev test", |block| block.text = "./dev demonstrate\n".into()).contains("./dev demon")
    );
    assert!(
        marked("run: ./dev test", |block| block.text = "./dev dem\n".into()).contains("does not: ./dev dem")
    );
}

#[test]
fn what_the_pages_tell_to_type_does_what_they_say() {
    let pages = Pages { blocks: blocks(), taken: Mutex::default() };
    let wanted: BTreeSet<String> = to_run_here(&pages.blocks).into_iter().collect();
    let scenes: [Scene; 8] = [
        ("an operator", operator),
        ("two KMSs and the probe of a module", modules),
        ("the probe of a KMS", probed_kms),
        ("faults", link_in_trouble),
        ("certificates", certificates),
        ("a card's configuration", configuration),
        ("a maker's own identifiers", own_identifiers),
        ("endurance", endurance),
    ];
    let failed: Vec<&str> = std::thread::scope(|scope| {
        let started: Vec<_> =
            scenes.iter().map(|(name, scene)| (*name, scope.spawn(|| scene(&pages)))).collect();
        started.into_iter().filter_map(|(name, scene)| scene.join().is_err().then_some(name)).collect()
    });
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(*pages.taken.lock().unwrap(), wanted, "what is marked to be run here is");
}

/// First column of the table behind this line: what stands there as code.
fn table(page: &str, heading: &str) -> Vec<String> {
    let rows =
        page.lines().skip_while(|line| !line.contains(heading)).skip_while(|line| !line.starts_with('|'));
    let cells =
        rows.take_while(|line| line.starts_with('|')).skip(2).map(|row| row.split(" | ").next().unwrap());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()).collect()
}

fn operator(pages: &Pages) {
    let page = read("docs/watching.md");
    let (_, listener) = page.split_once("```toml\n").unwrap();
    let (listener, _) = listener.split_once("```").unwrap();
    let lab = Lab::start(CARDS, &format!("{listener}socket = \"/tmp/qkd-lab/qkdd.ctl\"\n"));
    let place = &lab.place;
    for path in table(&page, "serves the status page at") {
        let said =
            place.run(&path, &format!("curl --silent --show-error --fail http://127.0.0.1:8101{path}"));
        assert!(!said.is_empty(), "{path}");
    }
    let commands = table(&page, "qkdctl` asks the daemon");
    assert!(commands.len() > 8, "{commands:?}");
    for command in
        commands.iter().filter(|command| command.starts_with("qkdctl ") && !command.contains("zeroize"))
    {
        // A card that is not there cannot be bound; the command line is right all the same.
        let (command, wanted) = match command.split(' ').nth(1).unwrap() {
            "bind" | "unbind" => (edited(command, &[("ADDRESS", "0000:ff:1f.7")]), 1),
            "audit" => (edited(command, &[("DIRECTORY", "/tmp/qkd-lab/ledger-a/audit")]), 0),
            "watch" => (format!("{command} --once"), 0),
            _ => (command.clone(), 0),
        };
        let command = command.replace("qkdctl ", "qkdctl --socket /tmp/qkd-lab/qkdd.ctl ");
        let (said, code) = place.code_of(&command, &command);
        assert_eq!(code, wanted, "{command}:\n{said}");
    }
    let ours = ("/run/qkd/ADDRESS/qkdd.ctl", "/tmp/qkd-lab/qkdd.ctl");
    let said = place.run("status of a module", &edited(pages.take("status of a module"), &[ours]));
    assert!(said.contains("no key stream is open"), "{said}");
    for (name, instance) in [("zeroize", "INSTANCE"), ("zeroize as an operator", "ADDRESS")] {
        let socket = format!("/run/qkd/{instance}/qkdd.ctl");
        let said = place.run(name, &edited(pages.take(name), &[(&socket, "/tmp/qkd-lab/qkdd.ctl")]));
        assert!(said.contains("zeroized") && !said.contains("NOT"), "{said}");
    }
}

fn modules(pages: &Pages) {
    let lab = Lab::start(CARDS, "");
    let place = &lab.place;
    let said = place.run("histories", &edited(pages.take("histories"), &[("--seconds 30", "--seconds 4")]));
    assert!(said.contains("listening "), "{said}");
    let alone = place.run("conform module", pages.take("conform module"));
    assert!(alone.contains(" 0 failed, "), "{alone}");
    let name = "conform module and its pushes";
    let pushes = place.run(name, pages.take(name));
    assert!(pushes.contains(" 0 failed, 1 skipped"), "{pushes}");
}

fn probed_kms(pages: &Pages) {
    let place = Place::new();
    let script = workspace().join("packaging/ci/push-keys");
    let script = format!("{} --module 127.0.0.1:8001 --far 127.0.0.1:9002", script.display());
    let edits = [("/usr/share/doc/qkd-sim/examples/push-keys", script.as_str())];
    for name in ["push keys", "push keys over TLS"] {
        let said = place.run(name, &edited(pages.take(name), &edits));
        assert!(said.contains("PASS: the KMS has accepted"), "{said}");
    }
    std::fs::remove_dir_all(place.folder().join("lab")).unwrap();

    let kms =
        "exec qkd-sim kms --listen 127.0.0.1:9001 --source kms://a --destination kms://b --open --module";
    let plain = place.shell("the KMS", &format!("{kms} http://127.0.0.1:8001"));
    let _ = plain.process().line("listening ", DEADLINE);
    let said = place.run("conform kms alone", pages.take("conform kms alone"));
    assert!(said.contains(" 0 failed, "), "{said}");
    drop(plain);

    let _ = place.run("a laboratory", "qkd-sim lab-certificates lab && cp lab/module-a.pem probe.pem");
    let _ = place.run("its files", "cp lab/module-a.key probe.key && cp lab/authority.pem ca.pem");
    let files = "--certificate lab/kms-a.pem --certificate-key lab/kms-a.key --authorities lab/authority.pem";
    let secure = place.shell("the KMS over TLS", &format!("{kms} https://localhost:8001 {files}"));
    let _ = secure.process().line("listening ", DEADLINE);
    let name = "conform kms over TLS";
    let said = place.run(name, &edited(pages.take(name), &[("kms-a.example", "localhost")]));
    assert!(said.contains(" 0 failed, "), "{said}");
}

fn link_in_trouble(pages: &Pages) {
    let lab = Lab::start(pages.take("faults"), "");
    let leader = lab.modules[0].process();
    let _ = leader.line("QKD link: Off", DEADLINE);
    // Each coming up is said by the card's side, and the first one by the key agreement, too.
    let _ = leader.nth_line("QKD link: Distilling", 2, DEADLINE);
}

fn mode(path: &std::path::Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn certificates(pages: &Pages) {
    let place = Place::new();
    let _ = place.run("laboratory certificates", pages.take("laboratory certificates"));
    let name = "certificates of a laboratory";
    let _ = place.run(name, &edited(pages.take(name), &[("/etc/qkd", "/tmp/qkd-lab")]));
    for file in ["certificates/authority.pem", "lab/tls-a.toml", "lab/tls-b.toml", "lab/kms-b.key"] {
        assert!(place.folder().join(file).exists(), "{file}");
    }
    // Made as the page says, which another test tries with a module and a KMS.
    let made = pages
        .blocks
        .iter()
        .find(|block| block.page == "docs/certificates.md" && block.mark.as_deref() == Some("run"));
    let _ = place.run("an authority", &made.unwrap().text);
    let name = "certificates for the module";
    let edits = [("/etc/qkd", "/tmp/qkd-lab/etc"), ("-g qkd", "-g $(id -gn)")];
    let _ = place.run(name, &edited(pages.take(name), &edits));
    let tls = place.folder().join("etc/tls");
    assert_eq!((mode(&tls), mode(&tls.join("module-a.key"))), (0o750, 0o640));
    let config = format!(
        "{}\n[tls]\ncertificate = \"{tls}/module-a.pem\"\nkey = \"{tls}/module-a.key\"\nauthorities = \"{tls}/authority.pem\"\n",
        edited(
            &read("packaging/card.toml"),
            &[
                ("kms = [\"kms://b\"]", "kms = [\"kms://b\"]\ncertificate_name = \"module-b.example\""),
                (
                    "\"http://127.0.0.1:9001\"",
                    "\"https://localhost:9001\"\ncertificate_names = [\"URI:kms://a\"]"
                )
            ]
        ),
        tls = tls.display()
    );
    std::fs::write(place.folder().join("a.toml"), config).unwrap();
    let _ = place.run("qkdd takes them", "qkdd --check-config --config a.toml");
}

fn configuration(pages: &Pages) {
    let place = Place::new();
    // What is put in the place of an address is put there as the page says it.
    std::fs::write(place.folder().join("card.toml"), place.adapt(&read("packaging/card.toml"))).unwrap();
    let edits = [("/usr/share/doc/qkdd/examples", "/tmp/qkd-lab"), ("/etc/qkd", "/tmp/qkd-lab")];
    let commands = edited(pages.take("configure"), &edits);
    let said = place.run("configure", &commands);
    let written = std::fs::read_to_string(place.folder().join("0000:01:00.0.toml")).unwrap();
    assert!(written.contains("\nconnect = ") && written.contains("\"follower\""), "{written}{said}");
}

fn own_identifiers(pages: &Pages) {
    let place = Place::new();
    // Which words udev understands, the package's own script tells, which the virtual machine runs.
    place.stand_in("udevadm", "echo udevadm \"$@\"");
    let said = place.run(
        "a maker's own identifiers",
        &edited(pages.take("a maker's own identifiers"), &[("/etc/udev/rules.d", "/tmp/qkd-lab")]),
    );
    let rule = std::fs::read_to_string(place.folder().join("69-qkd-card-own.rules")).unwrap();
    let shipped = edited(&read("udev/69-qkd-card-ids.rules"), &[("0x5144", "0x1234"), ("0x0001", "0x5678")]);
    assert!(shipped.lines().any(|line| line == rule.trim()), "{rule}");
    let known: Vec<Vec<String>> = commands(&read("packaging/qkdd/postinst"))
        .iter()
        .map(|command| command.split(' ').map(str::to_owned).collect())
        .collect();
    let asked: Vec<&str> = said.lines().filter(|line| line.starts_with("udevadm ")).collect();
    assert_eq!(asked.len(), 2, "{said}");
    for command in asked {
        let is_known =
            |known: &Vec<String>| command.split(' ').all(|word| known.iter().any(|known| known == word));
        assert!(known.iter().any(is_known), "{command}: no such call of udevadm is tried");
    }
}

fn endurance(pages: &Pages) {
    let place = Place::new();
    // The programs are built already.
    place.stand_in("cargo", "[ \"$1\" = build ]");
    let commands = edited(pages.take("endurance"), &[("endurance 50", "endurance 2")]);
    let _ = place.run("endurance", &format!("cd {:?}\n{commands}", workspace()));
}

/// A program's help, for the subcommand that these words begin with; empty when there is none.
fn help_of<'a>(program: &str, words: &[&'a str]) -> (String, Vec<&'a str>) {
    let subcommands: Vec<&str> = words
        .iter()
        .copied()
        .take_while(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-'))
        .collect();
    let done = Command::new(qkd_tests::programs::program(program))
        .args(&subcommands)
        .arg("--help")
        .output()
        .unwrap();
    let text = if done.status.success() { done.stdout } else { Vec::new() };
    (String::from_utf8(text).unwrap(), subcommands)
}

/// What is wrong with a command that stands in a sentence or a table.
fn wrong_in(span: &str) -> Option<String> {
    let mut words: Vec<&str> = span.split(' ').collect();
    let name = words.remove(0).trim_start_matches("target/release/");
    if name == "./dev" {
        let usage = Command::new(workspace().join("dev")).arg("help").output().unwrap();
        let usage = String::from_utf8(usage.stdout).unwrap();
        let command = words.first()?;
        let is_known = usage
            .lines()
            .any(|line| line.strip_prefix("  ").is_some_and(|line| line.split(' ').next() == Some(*command)));
        return (!is_known).then(|| format!("{span}: ./dev has no such command"));
    }
    if !["qkdctl", "qkdd", "qkd-sim"].contains(&name) || words.contains(&"…") {
        return None;
    }
    // What comes before the subcommand belongs to all of them.
    if words.first() == Some(&"--socket") {
        words.drain(..2);
    }
    let (help, subcommands) = help_of(name, &words);
    // As a whole word.
    let knows = |option: &str| {
        help.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).any(|word| word == option)
    };
    if help.is_empty() || (name == "qkdd" && !subcommands.is_empty()) {
        return Some(format!("{span}: {name} has no such command"));
    }
    let options =
        words.iter().filter(|word| word.starts_with('-')).map(|word| word.split('=').next().unwrap());
    let mut options = options.filter(|option| !knows(option));
    options.next().map(|option| format!("{span}: {name} has no {option}"))
}

#[test]
fn no_sentence_speaks_of_a_subcommand_or_an_option_that_is_not_there() {
    let mut looked_at = 0;
    let mut wrong = Vec::new();
    for (page, text) in qkd_tests::documentation::pages() {
        for (_, span) in look_through(&page, &text).inline {
            let program = span.split(' ').next().unwrap_or_default();
            if span.contains(' ') && ["./dev", "qkdctl", "qkdd", "qkd-sim"].contains(&program) {
                looked_at += 1;
                wrong.extend(wrong_in(&span).map(|what| format!("{page}: {what}")));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(looked_at > 40, "only {looked_at} commands were found");
    for span in [
        "./dev cure",
        "qkdctl cure",
        "qkdctl watch --cure",
        "qkd-sim pair --cure",
        "qkdd cure",
        "qkdd --cure",
    ] {
        assert!(wrong_in(span).is_some(), "{span}");
    }
}

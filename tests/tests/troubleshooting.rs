//! docs/troubleshooting.md and docs/architecture.md leave nothing out that the program has, and speak of nothing that it has not.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use qkd_tests::programs::{program, workspace};
use serde_json::Value;

fn read(file: &str) -> String {
    fs::read_to_string(workspace().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// First cells of the table behind the line that has `heading`.
fn first_cells(page: &str, heading: &str) -> BTreeSet<String> {
    let rows =
        page.lines().skip_while(|line| !line.contains(heading)).skip_while(|line| !line.starts_with('|'));
    let rows = rows.take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.trim_start_matches("| ").split(" | ").next().unwrap().trim_matches('`').to_owned())
        .collect()
}

fn set<T: ToString>(items: impl IntoIterator<Item = T>) -> BTreeSet<String> {
    items.into_iter().map(|item| item.to_string()).collect()
}

/// Every value of an enumeration in the schema of qkdctl's answers that has this one.
fn enumeration(schema: &Value, with: &str, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(members) => {
            let values: Vec<&str> = match (members.get("enum"), members.get("oneOf")) {
                (Some(Value::Array(values)), _) => values.iter().filter_map(Value::as_str).collect(),
                (_, Some(Value::Array(values))) => {
                    values.iter().filter_map(|one| one["const"].as_str()).collect()
                }
                _ => Vec::new(),
            };
            if values.contains(&with) {
                found.extend(set(values));
            }
            members.values().for_each(|member| enumeration(member, with, found));
        }
        Value::Array(items) => items.iter().for_each(|item| enumeration(item, with, found)),
        _ => {}
    }
}

#[test]
fn every_cause_of_degraded_is_explained_and_no_other() {
    // The schema is generated from the program.
    let schema: Value = serde_json::from_str(&read("docs/schema/qkdctl.json")).unwrap();
    let mut causes = BTreeSet::new();
    enumeration(&schema, "kms_refuses", &mut causes);
    assert!(causes.len() >= 8, "{causes:?}");
    assert_eq!(first_cells(&read("docs/troubleshooting.md"), "says *degraded*"), causes);
    assert_eq!(first_cells(&read("docs/watching.md"), "**Degraded** is everything else"), causes);
}

#[test]
fn every_exit_code_is_explained_and_no_other() {
    let source = read("daemon/src/engine/exit.rs");
    let (_, codes) = source.split_once("pub fn exit_code").expect("what gives the exit codes");
    let codes = codes.split_once("})").expect("its end").0;
    let given =
        codes.split("=> ").skip(1).filter_map(|rest| rest.split(',').next()?.trim().parse::<u8>().ok());
    let mut given: BTreeSet<String> = set(given);
    assert!(given.len() >= 8, "{given:?}");
    given.insert("0".into());
    let page = read("docs/troubleshooting.md");
    assert_eq!(first_cells(&page, "shows the exit code"), given);
    assert_eq!(first_cells(&read("README.md"), "| exit code | meaning | what to do |"), given);
    // What the help of qkdctl says.
    let help = Command::new(program("qkdctl")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    let (_, codes) = help.split_once("Exit codes: ").unwrap();
    let codes = codes.split_once(" Usage:").unwrap().0;
    let told = codes.split([' ', ';']).filter(|word| word.parse::<u8>().is_ok_and(|code| code > 0));
    assert_eq!(first_cells(&page, "## qkdctl itself"), set(told));
}

#[test]
fn every_thread_of_the_daemon_is_in_the_architecture_and_every_name_there_is_in_the_sources() {
    let page = read("docs/architecture.md");
    let mut sources = String::new();
    for folder in ["daemon/src", "driver/src"] {
        gather(&workspace().join(folder), &mut sources);
    }
    // The probe's are qkdctl's.
    let threads = page.split_once("## Threads of qkdd").unwrap().1.split_once("## Who owns what").unwrap().0;
    let named =
        sources.split("thread::Builder::new().name(\"").skip(1).map(|rest| rest.split('"').next().unwrap());
    let aside = sources.split("aside(\"").skip(1).map(|rest| rest.split('"').next().unwrap());
    let names: BTreeSet<&str> = named.chain(aside).filter(|name| !name.starts_with("conform ")).collect();
    assert!(names.len() >= 4, "{names:?}");
    for name in names {
        assert!(threads.contains(&format!("`{name}`")), "the thread {name} is not told of");
    }
    for span in page.split('`').skip(1).step_by(2) {
        if span.contains('/') {
            assert!(workspace().join(span).exists(), "{span} is not there");
        } else if span.chars().next().is_some_and(|first| first.is_ascii_uppercase()) {
            assert!(sources.contains(span), "{span} is not in the sources");
        }
    }
}

fn gather(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            gather(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            *text += &fs::read_to_string(path).unwrap();
        }
    }
}

//! docs/messages.md tells of every message that an operator can see, and of none that there is not.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Every source file below `folder`.
fn sources(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(fs::read_to_string(path).expect("a source file"));
        }
    }
}

/// Ids in a source, and the places where a message has none.
fn ids(source: &str, ids: &mut BTreeSet<String>) -> Vec<String> {
    let mut without = Vec::new();
    for level in ["error", "warn", "info"] {
        for call in source.split(&format!("log::{level}!(")).skip(1) {
            match call
                .trim_start()
                .strip_prefix("id = \"")
                .and_then(|rest| rest.split_once("\"; ").or(rest.split_once("\";\n")))
            {
                Some((id, _)) => {
                    ids.insert(id.to_owned());
                }
                None => without.push(call.chars().take(80).collect()),
            }
        }
    }
    for call in source.split("saying.say(").skip(1) {
        match call.split(',').find_map(|part| part.trim().strip_prefix('"')?.strip_suffix('"')) {
            Some(id) => {
                ids.insert(id.to_owned());
            }
            None => without.push(call.chars().take(80).collect()),
        }
    }
    without
}

#[test]
fn the_list_of_messages_is_that_of_the_program() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for folder in ["daemon/src", "driver/src"] {
        sources(&root.join(folder), &mut files);
    }
    let mut said = BTreeSet::new();
    let without: Vec<String> = files.iter().flat_map(|file| ids(file, &mut said)).collect();
    assert!(without.is_empty(), "messages without an id: {without:#?}");
    let page = fs::read_to_string(root.join("docs/messages.md")).expect("the list");
    let listed: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(id, _)| id.to_owned()))
        .collect();
    assert!(said.len() > 80, "{said:?}");
    assert_eq!(
        said.difference(&listed).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "not in docs/messages.md"
    );
    assert_eq!(
        listed.difference(&said).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "nothing says these any more"
    );
}

#[test]
fn a_message_without_an_id_is_seen() {
    let mut found = BTreeSet::new();
    let source = ["log::", "warn!(\"x\"); log::", "info!(id = \"a.b\"; \"y\")"].concat();
    assert_eq!(ids(&source, &mut found).len(), 1);
    assert!(found.contains("a.b"));
}

//! Every clause is defined once, and every clause that is cited is defined.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a failed test")]

mod document;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use document::{CONTRACT, clause_ids, defined_clause};

const SOURCES: &[(&str, &str)] = &[
    ("command.rs", include_str!("../src/command.rs")),
    ("layout.rs", include_str!("../src/layout.rs")),
    ("lib.rs", include_str!("../src/lib.rs")),
    ("limits.rs", include_str!("../src/limits.rs")),
    ("pci.rs", include_str!("../src/pci.rs")),
    ("registers.rs", include_str!("../src/registers.rs")),
    ("state.rs", include_str!("../src/state.rs")),
];

fn definitions(text: &str) -> Vec<&str> {
    text.lines().filter_map(defined_clause).collect()
}

#[test]
fn a_clause_is_defined_twice() {
    let all = definitions(CONTRACT);
    let mut seen = BTreeSet::new();
    let twice: Vec<_> = all.iter().filter(|id| !seen.insert(**id)).collect();
    assert!(twice.is_empty(), "{twice:?}");
    assert!(seen.contains("REG-1") && seen.contains("TST-2"), "the first and the last family were read");
}

#[test]
fn a_clause_that_a_source_cites_is_not_defined() {
    let defined: BTreeSet<_> = definitions(CONTRACT).into_iter().collect();
    let mut cited = 0;
    for (file, source) in SOURCES {
        for id in clause_ids(source) {
            assert!(defined.contains(id), "{file} cites {id}");
            cited += 1;
        }
    }
    assert!(cited >= qkd_contract::registers::ALL.len(), "each register cites a clause");
}

#[test]
fn a_source_file_is_not_looked_at() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files: BTreeSet<_> =
        std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(files, SOURCES.iter().map(|(file, _)| (*file).to_owned()).collect());
}

#[test]
fn a_clause_that_the_document_cites_is_not_defined() {
    let defined: BTreeSet<_> = definitions(CONTRACT).into_iter().collect();
    let dangling: BTreeSet<_> = clause_ids(CONTRACT).into_iter().filter(|id| !defined.contains(id)).collect();
    assert!(dangling.is_empty(), "{dangling:?}");
}

/// Every Rust file in a folder and below it.
fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn family(id: &str) -> &str {
    id.split_once('-').unwrap().0
}

/// The clause ids in a text that also names other things which look like one.
fn ids_of<'t>(text: &'t str, families: &BTreeSet<&str>) -> Vec<&'t str> {
    clause_ids(text).into_iter().filter(|id| families.contains(family(id))).collect()
}

#[test]
fn a_clause_that_the_driver_or_the_simulator_cites_is_not_defined() {
    let defined: BTreeSet<_> = definitions(CONTRACT).into_iter().collect();
    let families: BTreeSet<_> = defined.iter().copied().map(family).collect();
    for (user, at_least) in [("driver", 100), ("sim", 50)] {
        let mut files = Vec::new();
        rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(user).join("src"), &mut files);
        let mut cited = 0;
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            for id in ids_of(&text, &families) {
                assert!(defined.contains(id), "{} cites {id}", file.display());
                cited += 1;
            }
        }
        assert!(cited >= at_least, "{user} cites {cited} clauses only: its files were not read");
    }
    assert_eq!(ids_of("(BLK-99), SSH-2, SES-1", &families), ["BLK-99", "SES-1"]);
}

/// Paragraphs and list items of the text, code blocks left out.
fn paragraphs(text: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    let mut in_code = false;
    for line in text.lines() {
        if line.starts_with("```") {
            in_code = !in_code;
        }
        if line.is_empty() || line.starts_with("- ") || line.starts_with('|') {
            found.push(String::new());
        }
        if !in_code {
            let paragraph = found.last_mut().unwrap();
            paragraph.push_str(line);
            paragraph.push(' ');
        }
    }
    found
}

/// Paragraphs outside clauses that bind somebody.
fn rules_without_a_clause(text: &str) -> Vec<String> {
    let paragraphs = paragraphs(text).into_iter();
    let binding =
        paragraphs.filter(|p| p.split(|c: char| !c.is_ascii_alphabetic()).any(|word| word == "MUST"));
    binding.filter(|p| defined_clause(p).is_none()).collect()
}

#[test]
fn a_rule_binds_without_a_clause() {
    let loose = rules_without_a_clause(CONTRACT);
    let expected = ["Each rule is a clause with an id"];
    assert_eq!(loose.len(), expected.len(), "{loose:#?}");
    assert!(
        loose.iter().zip(expected).all(|(found, start)| found.trim_start().starts_with(start)),
        "{loose:#?}"
    );
}

#[test]
fn planted_faults_in_clauses_go_unnoticed() {
    assert_eq!(defined_clause("- **REG-1** All values"), Some("REG-1"));
    assert_eq!(defined_clause("text **REG-1** All values"), None);
    assert_eq!(defined_clause("- **note** text"), None);
    assert_eq!(clause_ids("(ID-1, CMD-10) CRC-32C MSI-X A-1 REG-1a -5 reg-1"), ["ID-1", "CMD-10"]);
    assert_eq!(rules_without_a_clause("The card MUST\nlive.\n\n- **ST-1** It MUST.\n").len(), 1);
}

//! Histories that say too little, are damaged, or do not belong together.

use std::path::Path;

use serde_json::json;

use super::*;
use crate::check::CheckError;
use crate::history::read::ReadError;

#[test]
fn what_a_kms_saw_itself_counts() {
    let mut case = Case::new(50);
    case.insert_in_b(json!({"kind": "violation", "t": 2100, "invariant": "Interface", "what": "no base64"}));
    assert_broken(&case, &[Invariant::Interface]);
}

#[test]
fn too_little_to_judge_is_not_agreement() {
    let mut empty = Case::new(50);
    empty.b.retain(|line| line["kind"] != "chunk");
    let mut apart = Case::new(50);
    apart.drop_in_b(0..50);
    apart.b.retain(|line| line["kind"] != "chunk");
    apart.a.retain(|line| line["kind"] != "chunk" || line["stream"] == json!(STREAM));
    apart.insert_in_b(chunk(OTHER, 0));
    let mut lost = Case::new(50);
    lost.insert_in_b(json!({"kind": "dropped", "lines": 3}));
    for case in [empty, apart, lost] {
        let verdict = case.judged();
        assert_eq!(verdict.outcome, Outcome::NotProven, "{}", verdict.text());
    }
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    let case = Case::new(5);
    let (a, b) = case.paths();
    let refused = |a: &Path, b: &Path| judge(a, b, CountedLosses::default()).expect_err("refused");
    let copy = case.directory.path().join("copy");
    std::fs::copy(&a, &copy).expect("copies");
    assert!(matches!(refused(&a, &a), CheckError::Same(..)));
    assert!(matches!(refused(&a, &copy), CheckError::Same(..)));
    std::fs::write(&copy, "").expect("writes");
    assert!(matches!(refused(&a, &copy), CheckError::Read(ReadError::Empty { .. })));
    for header in [
        header("kms://a", 5),
        json!({"kind": "history", "version": 1, "recording": Uuid::nil(), "kms": "kms://c",
        "source": "kms://a", "destination": "kms://c", "module": "", "t": 1}),
    ] {
        std::fs::write(&copy, format!("{header}\n")).expect("writes");
        assert!(matches!(refused(&a, &copy), CheckError::Strangers(_)));
    }
    std::fs::write(
        &copy,
        format!("{}\n{{\"kind\":\"chunk\"}}\n{}\n", header("kms://b", 9), json!({"kind": "end", "t": 1})),
    )
    .expect("writes");
    assert!(matches!(refused(&a, &copy), CheckError::Read(ReadError::Damaged { line: 2, .. })));
    assert!(matches!(refused(&b, Path::new("/nonexistent/history")), CheckError::Read(ReadError::Io { .. })));
}

#[test]
fn a_history_cut_short_by_a_crash_is_judged_and_told() {
    let case = Case::new(50);
    let (a, b) = case.paths();
    let text = std::fs::read_to_string(&b).expect("reads");
    std::fs::write(&b, &text[..text.len() * 3 / 4]).expect("writes");
    let verdict = judge(&a, &b, CountedLosses::default()).expect("can be judged");
    assert_eq!(verdict.outcome, Outcome::Agree, "{}", verdict.text());
    assert!(verdict.notes.iter().any(|note| note.contains("cut short")), "{:?}", verdict.notes);
    assert!(verdict.notes.iter().any(|note| note.contains("no last line")), "{:?}", verdict.notes);
}

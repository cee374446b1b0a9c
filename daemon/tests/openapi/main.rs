//! The OpenAPI documents: the committed ones are those that the code makes, and they say what the interface says.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test stops at the first thing that is not as it must be"
)]

mod facts;

use std::path::{Path, PathBuf};

use qkd_daemon::api::openapi::{Document, json};
use serde_json::Value;

fn file(name: &str) -> PathBuf {
    let name = match name.strip_prefix("module") {
        Some(kind) => format!("openapi{kind}.json"),
        None => format!("openapi-{name}.json"),
    };
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)
}

#[test]
fn a_committed_document_that_is_not_the_code_s_is_found() {
    for (name, document) in Document::ALL {
        let (path, wanted) = (file(name), json(document));
        if std::env::var_os("QKD_UPDATE_OPENAPI").is_some() {
            std::fs::write(&path, &wanted).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap();
        assert!(
            found == wanted,
            "{} is out of date: run this test with QKD_UPDATE_OPENAPI=1",
            path.display()
        );
    }
}

/// Walks a document's references and places where a schema may stand; answers what is wrong.
fn loose_ends(document: &Value, at: &Value, path: &str, found: &mut Vec<String>) {
    match at {
        Value::Object(members) => {
            if let Some(Value::String(to)) = members.get("$ref")
                && to.strip_prefix('#').is_none_or(|pointer| document.pointer(pointer).is_none())
            {
                found.push(format!("{path} refers to {to}, which is not there"));
            }
            if let Some(Value::Array(required)) = members.get("required") {
                for name in required.iter().filter_map(Value::as_str) {
                    if members.get("properties").and_then(|properties| properties.get(name)).is_none() {
                        found.push(format!("{path} requires {name}, which it does not describe"));
                    }
                }
            }
            for (name, value) in members {
                loose_ends(document, value, &format!("{path}/{name}"), found);
            }
        }
        Value::Array(items) => {
            for (number, value) in items.iter().enumerate() {
                loose_ends(document, value, &format!("{path}/{number}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn documents_have_no_loose_ends() {
    for (name, document) in Document::ALL {
        let document: Value = serde_json::from_str(&json(document)).unwrap();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1."), "{name}");
        let mut found = Vec::new();
        loose_ends(&document, &document, "", &mut found);
        assert!(found.is_empty(), "{name}: {found:#?}");
    }
}

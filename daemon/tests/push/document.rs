//! What is pushed is what docs/openapi-kms.json says: every message of these tests is held against it.

use std::path::Path;
use std::sync::OnceLock;

use jsonschema::Validator;
use serde_json::{Value, json};

const POINTER: &str =
    "/paths/~1api~1v1~1qkd~1etsi004~1key-material/post/requestBody/content/application~1json/schema";

/// The schema of a message, and what judges by it.
fn document() -> &'static (Value, Validator) {
    static DOCUMENT: OnceLock<(Value, Validator)> = OnceLock::new();
    DOCUMENT.get_or_init(|| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi-kms.json");
        let document: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let schema = document.pointer(POINTER).expect("the document describes key-material").clone();
        let validator = jsonschema::draft202012::options()
            .should_validate_formats(true)
            .build(&schema)
            .expect("a schema");
        (schema, validator)
    })
}

/// Members that the schema has no word for.
fn undescribed(value: &Value, schema: &Value, found: &mut Vec<String>) {
    for (name, inside) in value.as_object().into_iter().flatten() {
        match schema["properties"].get(name) {
            Some(schema) => undescribed(inside, schema, found),
            None => found.push(format!("{name} is not described")),
        }
    }
}

/// What the document does not allow in a message that was pushed.
pub(crate) fn wrong_in(message: &Value) -> Vec<String> {
    let (schema, validator) = document();
    let mut wrong: Vec<String> = validator.iter_errors(message).map(|error| error.to_string()).collect();
    undescribed(message, schema, &mut wrong);
    wrong
}

#[test]
fn a_message_that_the_document_does_not_describe_is_found() {
    let good = json!({
        "status": 0, "index": 0, "key_buffer": "AAECAwQFBgcICQoLDA0ODw==",
        "metadata": {"size": 57, "buffer": {"key_stream_id": crate::stream::STREAM}},
    });
    assert_eq!(wrong_in(&good), Vec::<String>::new());
    let spoilt = |pointer: &str, value: Value| {
        let mut message = good.clone();
        *message.pointer_mut(pointer).unwrap() = value;
        wrong_in(&message)
    };
    for (pointer, value) in [
        ("/status", json!(3)),
        ("/status", json!("0")),
        ("/index", json!(-1)),
        ("/index", json!(1_u64 << 32)),
        ("/key_buffer", json!(null)),
        ("/metadata/size", json!("57")),
        ("/metadata/buffer", json!("{\"key_stream_id\": \"\"}")),
        ("/metadata/buffer/key_stream_id", json!("0b9c5b1a-6a04-4b8e-9a52-3a2f0f6c1d2x")),
        ("/metadata/buffer", json!({})),
        ("/metadata/buffer", json!({"key_stream_id": crate::stream::STREAM, "more": 1})),
    ] {
        assert!(!spoilt(pointer, value.clone()).is_empty(), "{pointer}: {value}");
    }
    for member in ["status", "index", "key_buffer"] {
        let mut message = good.clone();
        message.as_object_mut().unwrap().remove(member);
        assert!(!wrong_in(&message).is_empty(), "without {member}");
    }
}

//! The reference KMS's reader of key-material.

use qkd_sim::kms::fuzzing::key_material;

use crate::Target;

pub(crate) const TARGET: Target = Target { name: "kms_body", run, seeds, bounded: 20_000, longest: 4096 };

fn run(octets: &[u8]) {
    match key_material(octets) {
        Ok((_, _, key, _)) => assert!(key <= octets.len()),
        // The body may hold key, and is never quoted.
        Err(why) => {
            assert!(why.len() < 300, "{why}");
            assert!(!why.contains("U0VDUkVU"), "quotes the body: {why}");
        }
    }
}

fn seeds() -> Vec<Vec<u8>> {
    const ID: &str = "0b9c5b1a-6a04-4b8e-9a52-3a2f0f6c1d2e";
    let usual = format!(
        r#"{{"status":0,"index":7,"key_buffer":"U0VDUkVU","metadata":{{"size":57,"buffer":{{"key_stream_id": "{ID}"}}}}}}"#
    );
    let text = format!(
        r#"{{"metadata":{{"buffer":"{{\"key_stream_id\": \"{ID}\"}}","size":57}},"key_buffer":"U0VDUkVU","index":7,"status":0}}"#
    );
    let notice = format!(
        r#"{{"status":2,"index":9,"key_buffer":"","metadata":{{"size":57,"buffer":{{"key_stream_id": "{ID}"}}}}}}"#
    );
    vec![
        usual.clone().into_bytes(),
        text.into_bytes(),
        notice.into_bytes(),
        usual.replace("AAEC", "A\\u0041EC").into_bytes(),
    ]
}

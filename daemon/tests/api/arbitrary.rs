//! Whatever a client sends, it gets an answer that the interface has, and soon.

use std::sync::OnceLock;

use proptest::prelude::*;
use qkd_daemon::config::Profile;
use serde_json::{Map, Value, json};

use crate::client::{CLOSE, GET_KEY, OPEN, request};
use crate::module::{CHOSEN, Module};

fn module() -> &'static Module {
    static MODULE: OnceLock<Module> = OnceLock::new();
    MODULE.get_or_init(|| Module::willing(Profile::OpenApi))
}

fn endpoint() -> impl Strategy<Value = (&'static str, &'static str, u16, u64)> {
    prop_oneof![Just(("POST", OPEN, 201, 5)), Just(("GET", GET_KEY, 205, 3)), Just(("PUT", CLOSE, 204, 5))]
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0..100_u32).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        Just(json!(CHOSEN)),
        Just(json!("kms://a")),
        Just(json!("kms://b")),
    ]
}

fn name() -> impl Strategy<Value = String> {
    const KNOWN: &[&str] = &[
        "source",
        "destination",
        "key_stream_id",
        "qos",
        "index",
        "metadata",
        "size",
        "buffer",
        "key_chunk_size",
        "max_bps",
        "min_bps",
        "jitter",
        "priority",
        "timeout",
        "ttl",
        "metadata_mimetype",
    ];
    prop_oneof![4 => prop::sample::select(KNOWN).prop_map(str::to_owned), 1 => any::<String>()]
}

fn json_value() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(4, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::btree_map(name(), inner, 0..8)
                .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// A right open-connect in which some members were replaced.
fn nearly_right() -> impl Strategy<Value = Value> {
    let right = json!({
        "source": "kms://a", "destination": "kms://b", "key_stream_id": CHOSEN, "index": 7,
        "metadata": {"size": 57, "buffer": ""},
        "qos": {"key_chunk_size": 32, "max_bps": 1, "min_bps": 1, "jitter": 1, "priority": 1, "timeout": 1, "ttl": 1}
    });
    prop::collection::vec((name(), json_value()), 0..3).prop_map(move |changes| {
        let mut body = right.clone();
        for (name, value) in changes {
            let qos = body["qos"].as_object_mut().filter(|qos| qos.contains_key(&name));
            match qos {
                Some(qos) => drop(qos.insert(name, value)),
                None => drop(body.as_object_mut().unwrap().insert(name, value)),
            }
        }
        body
    })
}

fn answered((method, path, success, refusal): (&str, &str, u16, u64), body: &[u8]) {
    let mut client = module().connect();
    client.send(
        request(method, path, "").replace("Content-Length: 0", &format!("Content-Length: {}", body.len())),
    );
    client.send(body);
    let answer = client.answer();
    if answer.http == success {
        return;
    }
    assert_eq!(answer.http, 400, "{answer:?}");
    let status = answer.status();
    assert!(status == refusal || (path == GET_KEY && status == 8), "{answer:?}");
    let detail = answer.detail();
    assert!(!detail.is_empty() && detail.len() < 1_000 && !detail.contains(char::is_control), "{detail:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_json_is_answered(endpoint in endpoint(), body in json_value()) {
        answered(endpoint, body.to_string().as_bytes());
    }

    #[test]
    fn nearly_right_json_is_answered(endpoint in endpoint(), body in nearly_right()) {
        answered(endpoint, body.to_string().as_bytes());
    }

    #[test]
    fn any_octets_are_answered(endpoint in endpoint(), body in prop::collection::vec(any::<u8>(), 0..512)) {
        answered(endpoint, &body);
    }
}

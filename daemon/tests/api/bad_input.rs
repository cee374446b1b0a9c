//! Requests that break JSON, the schema or the configuration: 400, the path's status, and a detail that helps.

use qkd_daemon::config::Profile;
use serde_json::{Value, json};

use crate::calls::{OPEN_BODY, stream_body};
use crate::client::{CLOSE, GET_KEY, OPEN, request};
use crate::module::{CHOSEN, Module};

/// Sends every body to the endpoint and wants 400, `status`, and a detail that has the text beside the body in it.
fn refused(method: &str, path: &str, status: u64, bodies: &[(String, &str)]) {
    let module = Module::willing(Profile::OpenApi);
    let mut client = module.connect();
    for (body, hint) in bodies {
        let answer = client.ask(method, path, body);
        assert_eq!((answer.http, answer.status()), (400, status), "{body}");
        let detail = answer.detail();
        assert!(detail.contains(hint), "{hint:?} is not in {detail:?}, the answer to {body}");
        assert!(detail.len() < 400, "{detail}");
    }
    assert_eq!(module.calls(), [], "a bad request reached the key agreement");
}

/// A right open-connect with one member changed, or removed when `value` is `None`.
fn open_with(member: &str, value: Option<Value>) -> String {
    let mut body: Value = serde_json::from_str(OPEN_BODY).unwrap();
    let members = body.as_object_mut().unwrap();
    match value {
        Some(value) => drop(members.insert(member.to_owned(), value)),
        None => drop(members.remove(member)),
    }
    body.to_string()
}

#[test]
fn texts_that_are_no_json_object_are_refused_everywhere() {
    let texts = [
        ("", "empty"),
        (" ", "EOF"),
        ("{", "EOF"),
        ("[]", "JSON object"),
        ("null", "JSON object"),
        ("\"x\"", "JSON object"),
        ("17", "JSON object"),
        ("{}{}", "trailing"),
        ("{} x", "trailing"),
        ("\u{feff}{}", "byte order mark"),
        ("{'key_stream_id':1}", "key must be a string"),
        ("{\"a\":1,\"a\":2}", "\"a\" stands twice"),
        ("key_stream_id=1", "expected"),
        ("{\"a\":\"\u{0}\"}", "control character"),
        ("{\"a\":\"\\ud800\"}", "hex escape"),
    ];
    let texts: Vec<_> = texts.map(|(text, hint)| (text.to_owned(), hint)).into();
    refused("POST", OPEN, 5, &texts);
    refused("GET", GET_KEY, 3, &texts);
    refused("POST", GET_KEY, 3, &texts);
    refused("PUT", CLOSE, 5, &texts);
}

#[test]
fn octets_that_are_not_utf_8_are_refused() {
    let module = Module::willing(Profile::OpenApi);
    let mut client = module.connect();
    let mut octets = request("GET", GET_KEY, "{\"key_stream_id\":\"..\"}").into_bytes();
    let last = octets.len() - 4;
    octets[last] = 0xff;
    client.send(octets);
    let answer = client.answer();
    assert_eq!((answer.http, answer.status()), (400, 3));
    assert!(answer.detail().contains("UTF-8"));
}

#[test]
fn deep_nesting_is_refused_and_the_module_lives_on() {
    let module = Module::willing(Profile::OpenApi);
    // Within the largest body, and far beyond it.
    for (depth, http) in [(30_000, 400), (500_000, 413)] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let body = format!("{}0{}", open.repeat(depth / open.len()), close.repeat(depth / open.len()));
            let mut client = module.connect();
            client.send_what_is_taken(request("POST", OPEN, &body));
            let answer = client.answer();
            assert_eq!((answer.http, answer.status()), (http, 5), "{depth} {open}");
        }
    }
    assert_eq!(module.connect().ask("POST", OPEN, OPEN_BODY).http, 201);
}

#[test]
fn hostile_text_comes_back_short_and_printable() {
    let module = Module::willing(Profile::OpenApi);
    let name = format!("\\u001b[2J\\u0000{}", "x".repeat(10_000));
    let answer = module.connect().ask("POST", OPEN, &format!("{{\"{name}\":1,\"{name}\":2}}"));
    let detail = answer.detail();
    assert_eq!(answer.http, 400);
    assert!(detail.len() < 300 && !detail.contains(char::is_control), "{detail:?}");
}

#[test]
fn missing_members_of_open_connect_are_named() {
    let cases =
        ["source", "destination", "key_stream_id", "qos"].map(|member| (open_with(member, None), member));
    refused("POST", OPEN, 5, &cases);
}

#[test]
fn numbers_that_are_no_u32_are_refused() {
    let wrong = [
        "-1",
        "1.5",
        "32.0",
        "1e2",
        "4294967296",
        "18446744073709551616",
        "-9223372036854775809",
        "\"32\"",
        "true",
        "[]",
        "{}",
        "1e400",
    ];
    for member in ["key_chunk_size", "max_bps", "min_bps", "jitter", "priority", "timeout", "ttl"] {
        let cases: Vec<_> = wrong
            .iter()
            .map(|number| {
                let body = OPEN_BODY.replace("\"qos\":{}", &format!("\"qos\":{{\"{member}\":{number}}}"));
                (body, if *number == "1e400" { "number out of range" } else { member })
            })
            .collect();
        refused("POST", OPEN, 5, &cases);
    }
    let cases: Vec<_> = wrong
        .iter()
        .flat_map(|number| {
            let hint = |name| if *number == "1e400" { "number out of range" } else { name };
            let size = if *number == "{}" { "[]" } else { number };
            [
                (format!(r#"{{"key_stream_id":"{CHOSEN}","index":{number}}}"#), hint("index")),
                (
                    format!(r#"{{"key_stream_id":"{CHOSEN}","metadata":{{"size":{size}}}}}"#),
                    hint("metadata.size"),
                ),
            ]
        })
        .collect();
    refused("GET", GET_KEY, 3, &cases);
}

#[test]
fn chunk_size_of_zero_breaks_the_schema_and_other_zeros_do_not() {
    refused("POST", OPEN, 5, &[(open_with("qos", Some(json!({"key_chunk_size": 0}))), "qos.key_chunk_size")]);
    let module = Module::willing(Profile::OpenApi);
    let zeros = json!({"max_bps": 0, "min_bps": 0, "jitter": 0, "priority": 0, "timeout": 0, "ttl": 0});
    assert_eq!(module.connect().ask("POST", OPEN, &open_with("qos", Some(zeros))).http, 201);
}

#[test]
fn key_stream_ids_in_another_form_are_refused() {
    let wrong = [
        json!(""),
        json!("0f8fad5b"),
        json!(CHOSEN.replace('-', "")),
        json!(format!("{{{CHOSEN}}}")),
        json!(format!("urn:uuid:{CHOSEN}")),
        json!(format!(" {CHOSEN}")),
        json!(format!("{CHOSEN}0")),
        json!(CHOSEN.replace('-', "_")),
        json!("0f8fad5bd-9cb-469f-a165-70867728950e"),
        json!(CHOSEN.replace('f', "g")),
        json!(CHOSEN.replace('f', "ｆ")),
        json!(0),
        json!([CHOSEN]),
        json!({"key_stream_id": CHOSEN}),
        json!(false),
    ];
    let bodies: Vec<_> =
        wrong.iter().map(|id| (json!({"key_stream_id": id}).to_string(), "key_stream_id")).collect();
    refused("GET", GET_KEY, 3, &bodies);
    refused("PUT", CLOSE, 5, &bodies);
    let bodies: Vec<_> =
        wrong.iter().map(|id| (open_with("key_stream_id", Some(id.clone())), "key_stream_id")).collect();
    refused("POST", OPEN, 5, &bodies);
    // Null asks the module to choose; there is nothing to choose at get-key and close.
    let null = [(json!({"key_stream_id": null}).to_string(), "key_stream_id"), ("{}".to_owned(), "missing")];
    refused("GET", GET_KEY, 3, &null);
    refused("PUT", CLOSE, 5, &null);
}

#[test]
fn qos_and_metadata_that_are_no_objects_are_refused() {
    let wrong = [json!(null), json!([]), json!("{}"), json!(1), json!(true)];
    let bodies: Vec<_> = wrong.iter().map(|qos| (open_with("qos", Some(qos.clone())), "qos")).collect();
    refused("POST", OPEN, 5, &bodies);
    let mimetype = open_with("qos", Some(json!({"metadata_mimetype": 1})));
    refused("POST", OPEN, 5, &[(mimetype, "qos.metadata_mimetype")]);
    let bodies: Vec<_> = wrong
        .iter()
        .skip(1)
        .map(|metadata| (json!({"key_stream_id": CHOSEN, "metadata": metadata}).to_string(), "metadata"))
        .collect();
    refused("GET", GET_KEY, 3, &bodies);
    let buffer = json!({"key_stream_id": CHOSEN, "metadata": {"buffer": 1}}).to_string();
    refused("GET", GET_KEY, 3, &[(buffer, "metadata.buffer")]);
}

#[test]
fn names_that_are_no_uris_are_refused() {
    let long = format!("kms://{}", "a".repeat(600));
    let wrong = [
        json!(null),
        json!(1),
        json!({}),
        json!(""),
        json!("a"),
        json!("kms:"),
        json!("//a"),
        json!("1kms://a"),
        json!("kms://a b"),
        json!("kms://a\n"),
        json!("kms://ä"),
        json!("kms://%zz"),
        json!("kms://a<b"),
        json!(long),
    ];
    for member in ["source", "destination"] {
        let bodies: Vec<_> = wrong.iter().map(|uri| (open_with(member, Some(uri.clone())), member)).collect();
        refused("POST", OPEN, 5, &bodies);
    }
}

#[test]
fn only_a_kms_of_each_end_makes_a_key_stream() {
    let open = |source: &str, destination: &str| {
        json!({"source": source, "destination": destination, "key_stream_id": null, "qos": {}}).to_string()
    };
    refused(
        "POST",
        OPEN,
        5,
        &[
            (open("kms://a", "kms://nobody"), "destination"),
            (open("kms://nobody", "kms://a"), "source"),
            (open("kms://nobody", "kms://b"), "neither"),
            (open("kms://b", "kms://b2"), "neither"),
            (open("kms://a", "kms://a2"), "both"),
            (open("kms://a", "kms://a"), "both"),
            (open("KMS://a", "kms://b"), "neither"),
            (open("kms://a/", "kms://b"), "neither"),
        ],
    );
}

#[test]
fn an_address_in_a_request_reaches_nobody() {
    // Key goes only where the configuration says; a request that names an endpoint changes nothing.
    let module = Module::willing(Profile::OpenApi);
    let mut client = module.connect();
    assert_eq!(client.ask("POST", OPEN, OPEN_BODY).http, 201);
    assert_eq!(client.ask("POST", OPEN, &open_with("endpoint", Some(json!("http://evil/")))).http, 201);
    let calls = module.calls();
    assert_eq!(calls[0], calls[1]);
    assert_eq!(client.ask("GET", GET_KEY, &stream_body()).http, 205);
}

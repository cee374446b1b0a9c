//! Right requests: how they reach the key agreement, and how its answers are told, in both profiles.

use qkd_daemon::calls::{Answer, Call, Close, GetKey, Open};
use qkd_daemon::config::Profile;
use qkd_daemon::interface::{QosRequest, Status};
use serde_json::json;

use crate::client::{CLOSE, GET_KEY, OPEN};
use crate::module::{CHOSEN, Module, Reaction, chosen, qos, settings, yes};

pub(crate) const OPEN_BODY: &str =
    r#"{"source":"kms://a","destination":"kms://b","key_stream_id":null,"qos":{}}"#;

pub(crate) fn stream_body() -> String {
    format!(r#"{{"key_stream_id":"{CHOSEN}"}}"#)
}

#[test]
fn openapi_profile_answers_201_205_and_204() {
    let module = Module::willing(Profile::OpenApi);
    let mut client = module.connect();

    let opened = client.ask("POST", OPEN, OPEN_BODY);
    assert_eq!(opened.http, 201);
    let expected = json!({
        "source": "kms://a", "destination": "kms://b", "key_stream_id": CHOSEN, "status": 1,
        "qos": {"key_chunk_size": 32, "max_bps": 4_294_967_295_u32, "min_bps": 0, "jitter": 1, "priority": 2,
                "timeout": 5000, "ttl": 3600, "metadata_mimetype": "application/json"}
    });
    assert_eq!(opened.json(), expected);

    let got = client.ask("GET", GET_KEY, &stream_body());
    assert_eq!((got.http, got.json()), (205, json!({"status": 0})));
    assert_eq!(got.header("content-length"), Some("12"));

    let closed = client.ask("PUT", CLOSE, &stream_body());
    assert_eq!(closed.http, 204);
    for header in ["content-length", "content-type", "transfer-encoding"] {
        assert_eq!(closed.header(header), None);
    }
    // The connection goes on, and nothing stands between the answers.
    assert_eq!(client.ask("GET", GET_KEY, &stream_body()).http, 205);
    assert_eq!(client.left_over(), b"");
}

#[test]
fn ok_profile_answers_200_with_a_body_to_all_three() {
    let module = Module::willing(Profile::Ok);
    let mut client = module.connect();
    let opened = client.ask("POST", OPEN, OPEN_BODY);
    assert_eq!((opened.http, opened.status()), (200, 1));
    assert_eq!(opened.json()["key_stream_id"], CHOSEN);
    for (method, path) in [("GET", GET_KEY), ("PUT", CLOSE)] {
        let answer = client.ask(method, path, &stream_body());
        assert_eq!((answer.http, answer.json()), (200, json!({"status": 0})), "{path}");
    }
}

#[test]
fn get_key_and_close_are_taken_as_post_too() {
    let module = Module::willing(Profile::OpenApi);
    let mut client = module.connect();
    assert_eq!(client.ask("POST", GET_KEY, &stream_body()).http, 205);
    assert_eq!(client.ask("POST", CLOSE, &stream_body()).http, 204);
    let stream = chosen();
    let expected =
        [Call::GetKey(GetKey { kms: None, stream, index: None }), Call::Close(Close { kms: None, stream })];
    assert_eq!(module.calls(), expected);
}

#[test]
fn every_member_reaches_the_key_agreement() {
    let module = Module::willing(Profile::OpenApi);
    let mut client = module.connect();
    // The local KMS may be the destination, the ID may be predefined and in upper case, members may be unknown.
    let body = json!({
        "source": "kms://b2", "destination": "kms://a2", "key_stream_id": CHOSEN.to_uppercase(), "extra": [1, {}],
        "qos": {"key_chunk_size": 1024, "max_bps": 4_294_967_295_u32, "min_bps": 1, "jitter": 2, "priority": 3,
                "timeout": 4, "ttl": 5, "metadata_mimetype": "text/plain", "more": null}
    });
    let opened = client.ask("POST", OPEN, &body.to_string());
    assert_eq!((opened.http, opened.json()["key_stream_id"].as_str()), (201, Some(CHOSEN)));
    let get_key =
        json!({"key_stream_id": CHOSEN, "index": 4_294_967_295_u32, "metadata": {"size": 57, "buffer": ""}});
    assert_eq!(client.ask("GET", GET_KEY, &get_key.to_string()).http, 205);

    let expected = [
        Call::Open(Open {
            kms: "kms://a2".to_owned(),
            source: "kms://b2".to_owned(),
            destination: "kms://a2".to_owned(),
            stream: Some(chosen()),
            qos: QosRequest {
                key_chunk_size: Some(1024),
                max_bps: Some(u32::MAX),
                min_bps: Some(1),
                jitter: Some(2),
                priority: Some(3),
                timeout: Some(4),
                ttl: Some(5),
                metadata_mimetype: None,
            },
        }),
        Call::GetKey(GetKey { kms: None, stream: chosen(), index: Some(u32::MAX) }),
    ];
    assert_eq!(module.calls(), expected);
}

#[test]
fn null_says_the_same_as_absence() {
    let module = Module::willing(Profile::OpenApi);
    let mut client = module.connect();
    let body = json!({
        "source": "kms://a", "destination": "kms://b", "key_stream_id": null,
        "qos": {"key_chunk_size": null, "max_bps": null, "min_bps": null, "jitter": null, "priority": null,
                "timeout": null, "ttl": null, "metadata_mimetype": null}
    });
    assert_eq!(client.ask("POST", OPEN, &body.to_string()).http, 201);
    assert_eq!(client.ask("POST", OPEN, OPEN_BODY).http, 201);
    let body = json!({"key_stream_id": CHOSEN, "index": null, "metadata": null});
    assert_eq!(client.ask("GET", GET_KEY, &body.to_string()).http, 205);
    let calls = module.calls();
    assert_eq!(calls[0], calls[1]);
    assert_eq!(calls[2], Call::GetKey(GetKey { kms: None, stream: chosen(), index: None }));
}

#[test]
fn peer_that_is_connected_is_told_with_status_0() {
    let module = Module::start(settings(), |call| match call {
        Call::Open(open) => Reaction::Answer(Answer::Opened {
            stream: chosen(),
            source: open.source.clone(),
            destination: open.destination.clone(),
            qos: qos(),
            status: Status::Successful,
        }),
        other => yes(other),
    });
    let opened = module.connect().ask("POST", OPEN, OPEN_BODY);
    assert_eq!((opened.http, opened.status()), (201, 0));
}

#[test]
fn failures_have_the_http_status_of_the_status_table() {
    for profile in [Profile::OpenApi, Profile::Ok] {
        for (status, http) in [
            (Status::InsufficientKey, 500),
            (Status::PeerApplicationNotConnected, 400),
            (Status::NoQkdConnection, 500),
            (Status::KeyStreamIdInUse, 400),
            (Status::Timeout, 500),
            (Status::QosNotMet, 500),
            (Status::MetadataTooSmall, 400),
        ] {
            let mut settings = settings();
            settings.api.profile = profile;
            let module = Module::start(settings, move |_| {
                let detail = "said \"so\"".to_owned();
                Reaction::Answer(Answer::Refused { status, detail, counter_proposal: Some(qos()) })
            });
            let mut client = module.connect();
            for (method, path, body) in
                [("POST", OPEN, OPEN_BODY), ("GET", GET_KEY, &stream_body()), ("PUT", CLOSE, &stream_body())]
            {
                let answer = client.ask(method, path, body);
                assert_eq!(answer.http, http, "{status:?} at {path}");
                let mut expected = json!({"status": u32::from(status), "detail": "said \"so\""});
                if status == Status::QosNotMet {
                    expected["qos"] = serde_json::to_value(qos()).unwrap();
                }
                assert_eq!(answer.json(), expected, "{path}");
            }
        }
    }
}

#[test]
fn metadata_without_room_gets_the_size_needed_and_loses_no_key() {
    let module = Module::willing(Profile::OpenApi);
    let mut client = module.connect();
    for size in [1, 56] {
        let body = json!({"key_stream_id": CHOSEN, "metadata": {"size": size, "buffer": "x"}});
        let answer = client.ask("GET", GET_KEY, &body.to_string());
        assert_eq!((answer.http, answer.status()), (400, 8), "{size}");
        assert_eq!(answer.json()["metadata"], json!({"size": 57, "buffer": ""}));
        assert!(answer.detail().contains("57"));
    }
    assert_eq!(module.calls(), []);
    for metadata in [json!({}), json!({"size": 0}), json!({"size": 57}), json!({"size": 4_294_967_295_u32})] {
        let body = json!({"key_stream_id": CHOSEN, "metadata": metadata});
        assert_eq!(client.ask("GET", GET_KEY, &body.to_string()).http, 205, "{metadata}");
    }
}

#[test]
fn key_agreement_that_contradicts_itself_is_no_success() {
    for (reaction, method, path, body) in [
        (Answer::Done, "POST", OPEN, OPEN_BODY.to_owned()),
        (opened(Status::QosNotMet), "POST", OPEN, OPEN_BODY.to_owned()),
        (opened(Status::Successful), "GET", GET_KEY, stream_body()),
        (opened(Status::Successful), "PUT", CLOSE, stream_body()),
        (refused(Status::Successful), "PUT", CLOSE, stream_body()),
        (refused(Status::PeerNotConnected), "POST", OPEN, OPEN_BODY.to_owned()),
    ] {
        let module = Module::start(settings(), move |_| Reaction::Answer(reaction.clone()));
        let answer = module.connect().ask(method, path, &body);
        assert_eq!((answer.http, answer.status()), (500, 4), "{path}");
    }
}

fn opened(status: Status) -> Answer {
    Answer::Opened {
        stream: chosen(),
        source: "kms://a".to_owned(),
        destination: "kms://b".to_owned(),
        qos: qos(),
        status,
    }
}

fn refused(status: Status) -> Answer {
    Answer::Refused { status, detail: "no".to_owned(), counter_proposal: None }
}

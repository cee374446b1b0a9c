//! HTTP itself: paths, methods, media types, framing, keep-alive.

use qkd_daemon::api::openapi::{Document, json};
use qkd_daemon::config::Profile;

use crate::calls::{OPEN_BODY, stream_body};
use crate::client::{CLOSE, GET_KEY, OPEN, request};
use crate::module::Module;

#[test]
fn unknown_paths_get_404_with_status_4() {
    let module = Module::willing(Profile::OpenApi);
    for path in [
        "/",
        "/api/v1/kms/etsi004",
        "/api/v1/kms/etsi004/open-connect/",
        "/api/v1/kms/etsi004//open-connect",
        "//api/v1/kms/etsi004/open-connect",
        "/api/v1/kms/etsi004/./open-connect",
        "/api/v1/kms/etsi004/x/../open-connect",
        "/api/v1/kms/etsi004/open%2Dconnect",
        "/%61pi/v1/kms/etsi004/open-connect",
        "/api/v1/kms/etsi004/open-connect%00",
        "/API/v1/kms/etsi004/open-connect",
        "/api/v1/qkd/etsi004/key-material",
        "/api/v1/kms/etsi004/open-connect;x=1",
    ] {
        let answer = module.connect().ask("POST", path, OPEN_BODY);
        assert_eq!((answer.http, answer.status()), (404, 4), "{path}");
    }
    assert_eq!(module.calls(), []);
    let mut client = module.connect();
    assert_eq!(client.ask("POST", &format!("{OPEN}?x=1"), OPEN_BODY).http, 201, "a query changes no path");
    let absolute = format!("http://module{OPEN}");
    assert_eq!(client.ask("POST", &absolute, OPEN_BODY).http, 201, "a proxy's form of the same path");
}

#[test]
fn undeclared_methods_get_405_with_what_is_allowed() {
    let module = Module::willing(Profile::OpenApi);
    for (path, allow, status, wrong) in [
        (OPEN, "POST", 5, &["GET", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "post", "BREW"][..]),
        (GET_KEY, "GET, POST", 3, &["PUT", "DELETE", "OPTIONS", "PATCH"]),
        (CLOSE, "PUT, POST", 5, &["GET", "DELETE", "OPTIONS", "PATCH"]),
    ] {
        for method in wrong {
            let answer = module.connect().ask(method, path, "{}");
            assert_eq!((answer.http, answer.status()), (405, status), "{method} {path}");
            assert_eq!(answer.header("allow"), Some(allow));
            assert!(answer.detail().contains(allow));
        }
        let mut client = module.connect();
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: module\r\n\r\n"));
        assert_eq!(client.answer_with_body(false).http, 405);
        client.send("GET / HTTP/1.1\r\nHost: module\r\n\r\n");
        assert_eq!(client.answer().http, 404, "a body after HEAD would stand here");
    }
    assert_eq!(module.calls(), []);
}

#[test]
fn other_media_types_get_415() {
    let module = Module::willing(Profile::OpenApi);
    let plain = request("GET", GET_KEY, &stream_body());
    let with = |header: &str| plain.replace("Content-Type: application/json\r\n", header);
    for wrong in [
        "",
        "Content-Type: text/plain\r\n",
        "Content-Type: application/x-www-form-urlencoded\r\n",
        "Content-Type: application/json; charset=utf-16\r\n",
        "Content-Type: \u{e9}\r\n",
        "Content-Type: application/json\r\nContent-Type: text/plain\r\n",
        "Content-Type: application/json\r\nContent-Encoding: gzip\r\n",
    ] {
        let mut client = module.connect();
        client.send(with(wrong));
        let answer = client.answer();
        assert_eq!((answer.http, answer.status()), (415, 3), "{wrong}");
    }
    for right in ["Content-Type: application/json; charset=utf-8\r\n", "content-type:APPLICATION/JSON\r\n"] {
        let mut client = module.connect();
        client.send(with(right));
        assert_eq!(client.answer().http, 205, "{right}");
    }
}

#[test]
fn bodies_that_are_too_large_get_413_however_they_are_sent() {
    let module = Module::willing(Profile::OpenApi);
    let padded = |length: usize| format!("{}{}", " ".repeat(length - OPEN_BODY.len()), OPEN_BODY);
    assert_eq!(module.connect().ask("POST", OPEN, &padded(65_536)).http, 201);
    let mut client = module.connect();
    client.send_what_is_taken(request("POST", OPEN, &padded(65_537)));
    let answer = client.answer();
    assert_eq!((answer.http, answer.status()), (413, 5));
    // Said to be endless: refused before a body is read.
    let mut client = module.connect();
    let head = format!("POST {OPEN} HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\n");
    client.send(format!("{head}Content-Length: 18446744073709551615\r\n\r\n"));
    assert_eq!(client.answer().http, 413);
    // In chunks that do not say how much will come.
    let mut client = module.connect();
    client.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n"));
    client.send_what_is_taken(format!("4000\r\n{}\r\n", " ".repeat(0x4000)).repeat(20));
    assert_eq!(client.answer().http, 413);
    assert_eq!(module.calls().len(), 1);
}

#[test]
fn chunked_bodies_and_expect_continue_work() {
    let module = Module::willing(Profile::OpenApi);
    let mut client = module.connect();
    let (front, back) = OPEN_BODY.split_at(10);
    let head = format!("POST {OPEN} HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\n");
    client.send(format!(
        "{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{front}\r\n{:X}\r\n{back}\r\n0\r\n\r\n",
        front.len(),
        back.len()
    ));
    assert_eq!(client.answer().http, 201);
    client.send(format!("{head}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n", OPEN_BODY.len()));
    assert_eq!(client.answer().http, 100);
    client.send(OPEN_BODY);
    assert_eq!(client.answer().http, 201);
}

#[test]
fn bodies_cut_short_get_400() {
    let module = Module::willing(Profile::OpenApi);
    let whole = request("GET", GET_KEY, &stream_body());
    let mut client = module.connect();
    client.send(&whole[..whole.len() - 1]);
    client.end_sending();
    let answer = client.answer();
    assert_eq!((answer.http, answer.status()), (400, 3));
    assert!(answer.detail().contains("cut short"));
    assert_eq!(module.calls(), []);
}

#[test]
fn a_get_without_a_body_is_told_what_to_do() {
    let module = Module::willing(Profile::OpenApi);
    let mut client = module.connect();
    client.send(format!("GET {GET_KEY} HTTP/1.1\r\nHost: module\r\n\r\n"));
    let answer = client.answer();
    assert_eq!((answer.http, answer.status()), (400, 3));
    assert!(answer.detail().contains("POST"));
}

#[test]
fn keep_alive_clients_never_lose_their_place() {
    for profile in [Profile::OpenApi, Profile::Ok] {
        let module = Module::willing(profile);
        let mut client = module.connect();
        for _ in 0..3 {
            client.ask("POST", OPEN, OPEN_BODY);
            client.ask("GET", GET_KEY, &stream_body());
            client.ask("PUT", CLOSE, &stream_body());
            client.ask("PUT", CLOSE, "{}");
            client.ask("GET", GET_KEY, &stream_body());
            assert_eq!(client.left_over(), b"");
        }
        assert_eq!(module.calls().len(), 12);
    }
}

#[test]
fn requests_in_one_segment_are_answered_in_order() {
    let module = Module::willing(Profile::OpenApi);
    let mut client = module.connect();
    let all = [
        request("PUT", CLOSE, &stream_body()),
        request("GET", GET_KEY, &stream_body()),
        request("PUT", CLOSE, "{}"),
        request("POST", OPEN, OPEN_BODY),
        request("GET", GET_KEY, &stream_body()),
    ];
    client.send(all.concat());
    let answers: Vec<u16> = all.iter().map(|_| client.answer().http).collect();
    assert_eq!(answers, [204, 205, 400, 201, 205]);
}

#[test]
fn octets_that_come_one_by_one_make_a_request_too() {
    let module = Module::willing(Profile::OpenApi);
    let mut client = module.connect();
    for octet in request("GET", GET_KEY, &stream_body()).as_bytes() {
        client.send([*octet]);
    }
    assert_eq!(client.answer().http, 205);
}

#[test]
fn http_1_0_is_answered_and_closed() {
    let module = Module::willing(Profile::OpenApi);
    let mut client = module.connect();
    client.send(request("POST", OPEN, OPEN_BODY).replace("HTTP/1.1", "HTTP/1.0"));
    assert_eq!(client.answer().http, 201);
    assert!(client.is_closed());
}

#[test]
fn what_is_no_http_or_smuggles_a_second_request_is_refused_and_closed() {
    let module = Module::willing(Profile::OpenApi);
    let body = stream_body();
    let length = body.len();
    let head = format!("PUT {CLOSE} HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\n");
    for wrong in [
        "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03\r\n\r\n".to_owned(),
        format!("{head}Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n{body}"),
        format!("{head}Content-Length: {length}\r\nContent-Length: 0\r\n\r\n{body}"),
        format!("{head}Content-Length: -1\r\n\r\n{body}"),
        format!("{head}Content-Length: +{length}\r\n\r\n{body}"),
        format!("{head}Content-Length: {length}x\r\n\r\n{body}"),
        format!("{head}Transfer-Encoding: gzip, chunked\r\n\r\n{body}"),
        format!("{head}Transfer-Encoding: chunked\r\n\r\nzz\r\n{body}"),
        format!("{head}Content-Length : {length}\r\n\r\n{body}"),
        format!(
            "PUT {CLOSE} HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        ),
        format!("PUT {CLOSE} HTTP/9.9\r\nHost: m\r\n\r\n"),
    ] {
        let mut client = module.connect();
        client.send_what_is_taken(&wrong);
        assert_eq!(client.answer().http, 400, "{wrong:?}");
        assert!(client.is_closed());
    }
    assert_eq!(module.calls(), []);
}

#[test]
fn a_document_that_is_not_of_the_configured_profile_is_found() {
    const PATH: &str = "/api/v1/kms/etsi004/openapi.json";
    for profile in [Profile::OpenApi, Profile::Ok] {
        let module = Module::willing(profile);
        let answer = module.connect().ask("GET", PATH, "");
        assert_eq!((answer.http, answer.header("content-type")), (200, Some("application/json")));
        let wanted: serde_json::Value = serde_json::from_str(&json(Document::of(profile))).unwrap();
        assert_eq!(answer.json(), wanted);
        let answer = module.connect().ask("POST", PATH, "{}");
        assert_eq!((answer.http, answer.header("allow"), answer.status()), (405, Some("GET"), 4));
        let answer = module.connect().ask("GET", "/openapi.json", "");
        assert_eq!((answer.http, answer.status()), (404, 4));
        assert!(module.calls().is_empty());
    }
}

//! Clients that are slow, silent, greedy or too many; a key agreement that is busy, late or gone.

use std::time::{Duration, Instant};

use qkd_daemon::calls::Call;
use qkd_daemon::config::Profile;

use crate::calls::{OPEN_BODY, stream_body};
use crate::client::{CLOSE, DEADLINE, GET_KEY, OPEN, request};
use crate::module::{Module, Reaction, settings, yes};

/// A module that waits for clients only so long that a test may wait for it.
fn impatient() -> Module {
    let mut settings = settings();
    settings.api.head_deadline_ms = 2_000;
    settings.api.body_deadline_ms = 1_000;
    settings.api.keep_alive_ms = 1_000;
    Module::start(settings, yes)
}

#[test]
fn a_head_that_never_ends_ends_the_connection() {
    let module = impatient();
    let mut client = module.connect();
    client.send(format!("POST {OPEN} HTTP/1.1\r\nHost: m\r\nX-Slow: "));
    assert!(client.is_closed());
    let said = String::from_utf8_lossy(client.left_over()).into_owned();
    assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
}

#[test]
fn a_second_head_that_never_ends_ends_the_connection_too() {
    let module = impatient();
    let mut client = module.connect();
    assert_eq!(client.ask("POST", OPEN, OPEN_BODY).http, 201);
    client.send(format!("GET {GET_KEY} HTTP/1.1\r\nHost: m\r\nX-Slow: "));
    assert!(client.is_closed());
}

#[test]
fn a_connection_without_a_request_is_closed() {
    let module = impatient();
    assert!(module.connect().is_closed());
    let mut client = module.connect();
    assert_eq!(client.ask("POST", OPEN, OPEN_BODY).http, 201);
    assert!(client.is_closed());
    assert_eq!(client.left_over(), b"");
}

#[test]
fn a_body_that_never_comes_is_answered_with_408() {
    let module = impatient();
    for part in ["Content-Length: 100\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n5\r\n{"] {
        let mut client = module.connect();
        client.send(format!("PUT {CLOSE} HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\n{part}"));
        let answer = client.answer();
        assert_eq!((answer.http, answer.status()), (408, 5), "{part}");
        assert!(client.is_closed());
    }
}

#[test]
fn a_call_that_takes_longer_than_a_silent_client_may_is_still_answered() {
    let mut settings = settings();
    settings.api.head_deadline_ms = 1_000;
    settings.api.keep_alive_ms = 10;
    // Answered with status 6 after many times the silence that ends a connection.
    settings.call_deadline = Duration::from_millis(500);
    let module = Module::start(settings, |_| Reaction::Keep);
    let answer = module.connect().ask("POST", OPEN, OPEN_BODY);
    assert_eq!((answer.http, answer.status()), (500, 6));
}

#[test]
fn a_client_that_reads_no_answers_is_let_go() {
    let module = impatient();
    let mut client = module.connect();
    // Far more answers than the sockets' buffers hold; the module stops taking requests and then hangs up.
    let many = request("POST", OPEN, OPEN_BODY).repeat(1_000);
    for _ in 0..200 {
        client.send_what_is_taken(&many);
    }
    assert!(client.is_closed());
    assert_eq!(module.connect().ask("POST", OPEN, OPEN_BODY).http, 201);
}

#[test]
fn a_flood_of_headers_is_refused() {
    let module = Module::willing(Profile::OpenApi);
    for (flood, http) in [
        ("X: y\r\n".repeat(1_000), 431),
        (format!("X: {}\r\n", "y ".repeat(500_000)), 431),
        // The HTTP parser panics on a name beyond 65 535 octets.
        (format!("{}: y\r\n", "X".repeat(65_536)), 400),
        (format!("{}: y\r\n", "X".repeat(100_000)), 400),
    ] {
        let mut client = module.connect();
        client.send_what_is_taken(format!("POST {OPEN} HTTP/1.1\r\nHost: m\r\n{flood}\r\n"));
        assert_eq!(client.answer().http, http, "{}", flood.len());
        assert!(client.is_closed());
    }
    let mut client = module.connect();
    client.send_what_is_taken(format!("POST /{} HTTP/1.1\r\nHost: m\r\n\r\n", "a".repeat(100_000)));
    let http = client.answer().http;
    assert!([400, 414, 431].contains(&http), "{http}");
    assert_eq!(module.connect().ask("POST", OPEN, OPEN_BODY).http, 201);
}

#[test]
fn silent_connections_do_not_delay_a_good_one() {
    let module = Module::willing(Profile::OpenApi);
    let mut silent: Vec<_> = (0..100).map(|_| module.connect()).collect();
    for client in silent.iter_mut().step_by(2) {
        client.send(format!("GET {GET_KEY} HTTP/1.1\r\nHost: m\r\nContent-Length: 9"));
    }
    let mut client = module.connect();
    for _ in 0..10 {
        assert_eq!(client.ask("GET", GET_KEY, &stream_body()).http, 205);
    }
    // All of them are still there: the good one did not wait for their end.
    for mut client in silent.into_iter().skip(1).step_by(2) {
        assert_eq!(client.ask("GET", GET_KEY, &stream_body()).http, 205);
    }
}

#[test]
fn connections_beyond_the_limit_are_served_when_others_end() {
    let mut settings = settings();
    settings.api.most_connections = 2;
    settings.api.head_deadline_ms = 2_000;
    let module = Module::start(settings, yes);
    let _silent: Vec<_> = (0..4).map(|_| module.connect()).collect();
    assert_eq!(module.connect().ask("POST", OPEN, OPEN_BODY).http, 201);
}

#[test]
fn an_address_at_its_limit_is_told_and_others_are_served() {
    let mut settings = settings();
    settings.api.most_connections = 8;
    settings.api.most_connections_per_address = 3;
    let module = Module::start(settings, yes);
    // Below and at the limit.
    let mut own: Vec<_> = (0..3).map(|_| module.connect()).collect();
    for client in &mut own {
        assert_eq!(client.ask("POST", OPEN, OPEN_BODY).http, 201);
    }
    // Above it, again and again: each is told at once and closed, and takes no place.
    for _ in 0..50 {
        let mut beyond = module.connect();
        let answer = beyond.answer();
        assert_eq!((answer.http, answer.status(), answer.header("retry-after")), (503, 4, Some("1")));
        assert!(answer.detail().contains("too many connections"));
        assert!(beyond.is_closed());
    }
    // Another address, meanwhile.
    let mut other = module.connect_from("127.0.0.2");
    assert_eq!(other.ask("POST", OPEN, OPEN_BODY).http, 201);
    // A place comes free as soon as the module has seen the end of a connection.
    drop(own.pop());
    let end = std::time::Instant::now() + DEADLINE;
    while module.connect().ask("POST", OPEN, OPEN_BODY).http != 201 {
        assert!(std::time::Instant::now() < end, "no place came free");
    }
    for client in &mut own {
        assert_eq!(client.ask("POST", OPEN, OPEN_BODY).http, 201);
    }
}

#[test]
fn a_key_agreement_that_is_busy_is_told_with_503() {
    let mut settings = settings();
    settings.api.most_waiting_calls = 1;
    let module = Module::start(settings, |_| Reaction::Stall);
    // The first is taken and stalls the key agreement, the second waits in the queue, one more is too many.
    let mut waiting = Vec::new();
    let busy = loop {
        let mut client = module.connect();
        client.send(request("GET", GET_KEY, &stream_body()));
        waiting.push(client);
        assert!(waiting.len() < 100, "the queue has no end");
        let until = Instant::now() + Duration::from_secs(30);
        while module.calls().is_empty() {
            assert!(Instant::now() < until, "the key agreement takes nothing");
            std::thread::yield_now();
        }
        let mut probe = module.connect();
        probe.send("GET / HTTP/1.1\r\nHost: m\r\n\r\n");
        assert_eq!(probe.answer().http, 404, "a busy key agreement stalls the API");
        if waiting.len() >= 3 {
            break waiting.pop().unwrap().answer();
        }
    };
    assert_eq!((busy.http, busy.status(), busy.header("retry-after")), (503, 4, Some("1")));
    assert!(busy.detail().contains("try again"));
}

#[test]
fn a_key_agreement_that_stops_is_told_with_503() {
    let module = Module::start(settings(), |_| Reaction::LetGo);
    let answer = module.connect().ask("POST", OPEN, OPEN_BODY);
    assert_eq!((answer.http, answer.status(), answer.header("retry-after")), (503, 4, Some("1")));
}

#[test]
fn a_key_agreement_that_is_late_is_told_with_status_6() {
    let mut settings = settings();
    settings.call_deadline = Duration::from_secs(1);
    let module = Module::start(settings, |call| match call {
        Call::Open(_) => Reaction::Keep,
        other => yes(other),
    });
    let mut client = module.connect();
    let answer = client.ask("POST", OPEN, OPEN_BODY);
    assert_eq!((answer.http, answer.status()), (500, 6));
    assert_eq!(client.ask("GET", GET_KEY, &stream_body()).http, 205);
}

//! A KMS that fails, refuses, hangs or breaks the connection.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use qkd_daemon::push::{Failure, Report};
use tokio::net::TcpListener;

use crate::kms::{Reaction, ScriptedKms, answer, silent_port};
use crate::stream::{Stream, settings};

const CHUNKS: u32 = 600;

/// Pushes to a KMS that does something else now and then. Every chunk must be accepted in the end, and the checks of
/// [`Stream::check`] hold. Gives the KMS and how often a chunk was sent in vain.
async fn gets_over(what: &str, odd: Reaction, answer_deadline_ms: u32) -> (ScriptedKms, usize) {
    let usual = Reaction::Answer(answer(201));
    let kms = ScriptedKms::start(move |number, _| {
        // Alone, in a small window and in a wide one.
        if matches!(number, 0 | 4 | 5 | 40 | 300 | 450) { odd.clone() } else { usual.clone() }
    })
    .await;
    let mut stream = Stream::start("127.0.0.1", kms.port, 32, 0, push(answer_deadline_ms));
    stream.deliver(CHUNKS);
    stream.until_accepted(u64::from(CHUNKS)).await;
    let positions = stream.check(&kms.seen());
    for position in 0..u64::from(CHUNKS) {
        assert!(positions.contains(&position), "position {position} never came: {what}");
    }
    assert_eq!(stream.vault.used(), 0, "key stays in the vault: {what}");
    let in_vain = positions.len() - CHUNKS as usize;
    (kms, in_vain)
}

fn push(answer_deadline_ms: u32) -> qkd_daemon::config::Push {
    qkd_daemon::config::Push { answer_deadline_ms, ..settings() }
}

#[tokio::test]
async fn a_kms_that_fails_for_a_while_gets_the_same_chunk_again() {
    for status in [408, 425, 429, 500, 501, 502, 503, 504, 507, 599] {
        let (kms, in_vain) = gets_over(&status.to_string(), Reaction::Answer(answer(status)), 60_000).await;
        assert_eq!(kms.connections(), 1, "{status} is no reason to connect anew");
        assert_eq!(in_vain, 6, "only what was not accepted is sent again: {status}");
    }
}

#[tokio::test]
async fn nothing_new_is_sent_before_the_failed_chunk_is_taken() {
    const FAILURES: usize = 5;
    let failed = AtomicUsize::new(0);
    let kms = ScriptedKms::start(move |_, seen| {
        let fails = seen.index == 50 && failed.fetch_add(1, Ordering::Relaxed) < FAILURES;
        Reaction::Answer(answer(if fails { 503 } else { 201 }))
    })
    .await;
    let mut stream = Stream::to(&kms);
    stream.deliver(500);
    let failing = stream.until(|report| matches!(report, Report::Failing { .. })).await;
    assert!(matches!(failing, Report::Failing { why: Failure::Status(503), .. }));
    stream.until(|report| matches!(report, Report::Recovered { .. })).await;
    stream.until_accepted(500).await;
    let positions = stream.check(&kms.seen());
    let attempts: Vec<usize> =
        positions.iter().enumerate().filter(|(_, position)| **position == 50).map(|(at, _)| at).collect();
    assert_eq!(attempts.len(), FAILURES + 1);
    // What was on its way with the first attempt is settled; from the second on it is tried alone.
    for pair in attempts[1..].windows(2) {
        assert_eq!(pair[1] - pair[0], 1, "something was sent between two attempts");
    }
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let refusal = "HTTP/1.1 503 X\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n".to_owned();
    let kms = ScriptedKms::start(move |number, _| {
        Reaction::Answer(if number == 0 { refusal.clone() } else { answer(201) })
    })
    .await;
    let mut stream = Stream::to(&kms);
    stream.deliver(2);
    stream.until_accepted(2).await;
    let seen = kms.seen();
    assert_eq!(stream.check(&seen), [0, 0, 1]);
    assert!(seen[1].at - seen[0].at >= Duration::from_secs(1), "came back too early");
}

#[tokio::test]
async fn a_kms_that_closes_without_an_answer_gets_the_same_chunk_again() {
    gets_over("close", Reaction::Close, 60_000).await;
    gets_over("close in a head", Reaction::AnswerAndClose("HTTP/1.1 201 Crea".to_owned()), 60_000).await;
}

#[tokio::test]
async fn a_chunk_whose_answer_lost_only_its_body_is_not_sent_again() {
    let cut = "HTTP/1.1 201 Created\r\nContent-Length: 13\r\n\r\n{\"sta".to_owned();
    let kms = ScriptedKms::start(move |number, _| {
        if number == 0 { Reaction::AnswerAndClose(cut.clone()) } else { Reaction::Answer(answer(201)) }
    })
    .await;
    let mut stream = Stream::to(&kms);
    stream.deliver(5);
    stream.until_accepted(5).await;
    assert_eq!(stream.check(&kms.seen()), [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn a_kms_that_hangs_is_left_at_the_deadline() {
    let (kms, _) = gets_over("hang", Reaction::Hang, 50).await;
    assert!(kms.connections() > 3);
}

#[tokio::test]
async fn an_answer_that_never_ends_does_not_hold_the_stream() {
    let endless = "HTTP/1.1 503 X\r\nContent-Length: 100\r\n\r\nabc".to_owned();
    gets_over("endless body", Reaction::Answer(endless), 50).await;
    gets_over("endless head", Reaction::Answer("HTTP/1.1 201 X\r\nX: ".to_owned()), 50).await;
}

#[tokio::test]
async fn answers_that_cannot_be_read_cost_the_connection_and_no_chunk() {
    let huge_head = format!("HTTP/1.1 201 C\r\nX: {}\r\n\r\n", "y".repeat(1 << 20));
    let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(1000);
    for text in [
        huge_head,
        interim,
        "SSH-2.0-OpenSSH_9.2\r\n".to_owned(),
        "HTTP/1.1 101 X\r\n\r\n".to_owned(),
        "HTTP/1.1 201 C\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_owned(),
    ] {
        gets_over(&text, Reaction::Answer(text.clone()), 60_000).await;
    }
}

#[tokio::test]
async fn a_body_beyond_all_bounds_costs_the_connection_only() {
    let huge_body = format!("HTTP/1.1 201 C\r\nContent-Length: 1048576\r\n\r\n{}", "z".repeat(1 << 20));
    gets_over("huge body", Reaction::Answer(huge_body), 60_000).await;
}

#[tokio::test]
async fn unasked_answers_accept_nothing() {
    let kms = ScriptedKms::start(|number, _| {
        Reaction::Answer(answer(201).repeat(if number == 0 { 300 } else { 1 }))
    });
    let kms = kms.await;
    let mut stream = Stream::to(&kms);
    stream.deliver(100);
    stream.until_accepted(100).await;
    assert_eq!(stream.check(&kms.seen()), (0..100).collect::<Vec<_>>());
    assert_eq!(kms.connections(), 2);
}

#[tokio::test]
async fn a_kms_that_refuses_pipelining_by_closing_gets_one_request_at_a_time() {
    let closing = "HTTP/1.1 201 C\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_owned();
    for told in [closing, answer(201)] {
        let kms = ScriptedKms::start(move |_, seen| {
            // Answers the first and closes when it sees that there are more.
            if seen.waiting == 1 && seen.octets == seen.waiting_octets {
                Reaction::Answer(told.clone())
            } else {
                Reaction::Close
            }
        })
        .await;
        let mut stream = Stream::to(&kms);
        stream.deliver(300);
        stream.until_accepted(300).await;
        stream.check(&kms.seen());
        let counters = stream.handle().counters();
        assert!(counters.chunks_sent_again < 10, "{counters:?}");
    }
}

#[tokio::test]
async fn a_kms_that_closes_after_every_answer_gets_every_chunk_once() {
    let kms = ScriptedKms::start(|_, _| Reaction::AnswerAndClose(answer(201))).await;
    let mut stream = Stream::to(&kms);
    stream.deliver(50);
    stream.until_accepted(50).await;
    stream.check(&kms.seen());
}

#[tokio::test]
async fn a_refusal_suspends_until_resumed_and_goes_on_from_the_same_chunk() {
    for status in [300, 303, 304, 307, 400, 401, 403, 404, 409, 413, 415, 422, 600] {
        let refusal = answer(status);
        let kms = ScriptedKms::start(move |number, _| {
            Reaction::Answer(if matches!(number, 0 | 20) { refusal.clone() } else { answer(201) })
        })
        .await;
        let mut stream = Stream::to(&kms);
        stream.deliver(100);
        for _ in 0..2 {
            let report = stream.until(|report| matches!(report, Report::Suspended { .. })).await;
            assert!(matches!(report, Report::Suspended { status: told, .. } if told == status));
            let sent = stream.handle().counters().chunks_sent;
            // More key does not wake it.
            stream.deliver(1);
            tokio::task::yield_now().await;
            assert_eq!(stream.handle().counters().chunks_sent, sent);
            stream.handle().resume().unwrap();
        }
        stream.until_accepted(102).await;
        let positions = stream.check(&kms.seen());
        assert_eq!(positions[..2], [0, 0], "{status}");
        assert_eq!(stream.handle().counters().suspensions, 2);
    }
}

#[tokio::test]
async fn a_redirect_is_never_followed() {
    let elsewhere = ScriptedKms::start(|_, _| Reaction::Answer(answer(201))).await;
    for status in [301, 302, 307, 308] {
        let port = elsewhere.port;
        let redirect = format!(
            "HTTP/1.1 {status} X\r\nLocation: http://127.0.0.1:{port}/api/v1/qkd/etsi004/key-material\r\n\
             Content-Length: 0\r\n\r\n"
        );
        let kms = ScriptedKms::start(move |number, _| {
            Reaction::Answer(if number == 0 { redirect.clone() } else { answer(201) })
        })
        .await;
        let mut stream = Stream::to(&kms);
        stream.deliver(3);
        stream.until(|report| matches!(report, Report::Suspended { .. })).await;
        stream.handle().resume().unwrap();
        stream.until_accepted(3).await;
        assert_eq!(stream.check(&kms.seen()), [0, 0, 1, 2]);
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn a_key_that_the_kms_quotes_does_not_reach_the_report() {
    let kms = ScriptedKms::start(|_, seen| {
        let key = base64_turbo::STANDARD.encode(&seen.key);
        let body = format!("{{\"detail\": [{{\"msg\": \"Field refused\", \"input\": \"{key}\"}}]}}");
        Reaction::Answer(format!("HTTP/1.1 422 X\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
    })
    .await;
    let mut stream = Stream::to(&kms);
    stream.deliver(1);
    let report = stream.until(|report| matches!(report, Report::Suspended { .. })).await;
    let Report::Suspended { excerpt, .. } = report else { unreachable!() };
    assert_eq!(excerpt, "detail msg Field refused input");
}

#[tokio::test]
async fn a_kms_that_comes_late_gets_everything() {
    let (socket, port) = silent_port();
    let mut stream = Stream::start("127.0.0.1", port, 32, 0, settings());
    stream.deliver(10);
    let failing = stream.until(|report| matches!(report, Report::Failing { .. })).await;
    let Report::Failing { why, since, .. } = failing else { unreachable!() };
    assert!(matches!(why, Failure::Unconnected(_)), "{why}");
    assert!(since <= Instant::now());
    let listener = socket.listen(16).unwrap();
    let kms = ScriptedKms::serve(listener, |_, _| Reaction::Answer(answer(201)));
    stream.until(|report| matches!(report, Report::Recovered { .. })).await;
    let handle = stream.handle.as_ref().unwrap();
    Stream::wait_for("every chunk", || handle.counters().chunks_accepted == 10).await;
    assert_eq!(stream.check(&kms.seen()), (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn keys_do_not_leave_the_machine_in_plain_text() {
    // An address for documentation: were it tried, the answer would be another one.
    let mut stream = Stream::start("192.0.2.1", 80, 32, 0, settings());
    stream.deliver(1);
    let report = stream.until(|report| matches!(report, Report::Failing { .. })).await;
    assert!(matches!(report, Report::Failing { why: Failure::BeyondLoopback, .. }), "{report:?}");
}

#[tokio::test]
async fn an_early_refusal_of_a_large_chunk_is_understood() {
    // Answers before it has read the body, as servers with a limit do.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 100];
        stream.read_exact(&mut head).await.unwrap();
        let text = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        stream.write_all(text.as_bytes()).await.unwrap();
        // Reads the rest, so that the answer is not lost in a reset.
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    });
    let mut stream = Stream::start("127.0.0.1", port, 1 << 20, 0, settings());
    stream.deliver(1);
    let report = stream.until(|report| matches!(report, Report::Suspended { .. })).await;
    assert!(matches!(report, Report::Suspended { status: 413, .. }), "{report:?}");
    server.await.unwrap();
}

//! A KMS that takes every chunk, in every way there is to say so.

use crate::kms::{Reaction, ScriptedKms, answer};
use crate::stream::{Stream, settings};

/// Pushes chunks to a KMS that always answers the same; nothing may be sent twice.
async fn takes_every_chunk(reaction: Reaction) {
    let told = format!("{reaction:?}");
    let kms = ScriptedKms::start(move |_, _| reaction.clone()).await;
    let mut stream = Stream::to(&kms);
    stream.deliver(40);
    stream.deliver(30);
    stream.until_accepted(70).await;
    let positions = stream.check(&kms.seen());
    assert_eq!(positions, (0..70).collect::<Vec<_>>(), "{told}");
    assert_eq!(kms.connections(), 1, "{told}");
    assert_eq!(stream.vault.used(), 0, "key stays in the vault: {told}");
}

#[tokio::test]
async fn every_2xx_accepts() {
    for status in [200, 201, 202, 205, 226, 299] {
        takes_every_chunk(Reaction::Answer(answer(status))).await;
    }
    takes_every_chunk(Reaction::Answer("HTTP/1.1 204 No Content\r\n\r\n".to_owned())).await;
}

#[tokio::test]
async fn a_garbage_body_accepts_all_the_same() {
    for body in ["{\"status\": 5}", "<html>", "\0\0\r\n\r\nHTTP/1.1 500 X\r\n\r\n", "{{{{{{{{{{"] {
        let text = format!("HTTP/1.1 201 Created\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        takes_every_chunk(Reaction::Answer(text)).await;
    }
}

#[tokio::test]
async fn a_chunked_body_is_passed_over() {
    let text = "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n6;a=b\r\n{\"stat\r\n7\r\nus\": 0}\r\n0\r\nX: y\r\n\r\n";
    takes_every_chunk(Reaction::Answer(text.to_owned())).await;
    takes_every_chunk(Reaction::Trickle(text.to_owned())).await;
}

#[tokio::test]
async fn interim_answers_are_passed_over() {
    let text =
        format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n{}", answer(201));
    takes_every_chunk(Reaction::Answer(text)).await;
}

#[tokio::test]
async fn answers_octet_by_octet_are_put_together() {
    takes_every_chunk(Reaction::Trickle(answer(201))).await;
}

#[tokio::test]
async fn a_large_head_and_a_large_body_are_read() {
    let head = format!("X: {}\r\n", "y".repeat(15_000));
    let body = "z".repeat(65_000);
    takes_every_chunk(Reaction::Answer(format!("HTTP/1.1 201 C\r\n{head}Content-Length: 0\r\n\r\n"))).await;
    takes_every_chunk(Reaction::Answer(format!("HTTP/1.1 201 C\r\nContent-Length: 65000\r\n\r\n{body}")))
        .await;
}

#[tokio::test]
async fn the_window_opens_one_by_one_and_stays_within_its_bounds() {
    for (chunk_size, chunks) in [(32, 5000), (1024, 1500), (30_000, 200), (65_536, 60)] {
        let kms = ScriptedKms::start(|_, _| Reaction::Answer(answer(201))).await;
        let mut stream = Stream::start("127.0.0.1", kms.port, chunk_size, 0, settings());
        // In rounds, so that the vault has room for them.
        for _ in 0..10 {
            stream.deliver(chunks / 10);
            let up_to = stream.handle().next_position();
            stream.until_accepted(up_to).await;
        }
        let seen = kms.seen();
        assert_eq!(stream.check(&seen), (0..u64::from(chunks)).collect::<Vec<_>>());
        assert_eq!(seen[0].waiting, 1, "the first chunk travels alone");
        for request in &seen {
            assert!(request.waiting <= 256, "{} requests on their way", request.waiting);
            assert!(
                request.waiting == 1 || request.waiting_octets < 96 * 1024,
                "{} octets on their way",
                request.waiting_octets
            );
        }
        let widest = seen.iter().map(|request| request.waiting).max().unwrap();
        match chunk_size {
            32 => assert!(widest > 64, "no more than {widest} requests shared the connection"),
            65_536 => assert_eq!(widest, 1),
            _ => assert!(widest > 1),
        }
    }
}

#[tokio::test]
async fn every_chunk_size_arrives_whole() {
    for chunk_size in [1, 2, 3, 31, 33, 4096, 50_001, 262_144, 1 << 20] {
        let kms = ScriptedKms::start(|_, _| Reaction::Answer(answer(201))).await;
        let mut stream = Stream::start("127.0.0.1", kms.port, chunk_size, 7, settings());
        stream.deliver(5);
        stream.until_accepted(12).await;
        assert_eq!(stream.check(&kms.seen()), [7, 8, 9, 10, 11], "chunk size {chunk_size}");
    }
}

#[tokio::test]
async fn the_index_wraps_and_the_position_does_not() {
    let kms = ScriptedKms::start(|_, _| Reaction::Answer(answer(201))).await;
    let first = (5 << 32) - 3;
    let mut stream = Stream::start("127.0.0.1", kms.port, 32, first, settings());
    stream.deliver(6);
    stream.until_accepted(first + 6).await;
    let seen = kms.seen();
    stream.check(&seen);
    let indices: Vec<u32> = seen.iter().map(|request| request.index).collect();
    assert_eq!(indices, [u32::MAX - 2, u32::MAX - 1, u32::MAX, 0, 1, 2]);
}

#[tokio::test]
async fn a_skip_leaves_a_gap_and_nothing_else() {
    let kms = ScriptedKms::start(|_, _| Reaction::Answer(answer(201))).await;
    let mut stream = Stream::to(&kms);
    stream.deliver(3);
    let later = stream.delivery(10, 3);
    stream.handle().deliver(later).unwrap();
    stream.until_accepted(13).await;
    let indices: Vec<u32> = kms.seen().iter().map(|request| request.index).collect();
    assert_eq!(indices, [0, 1, 2, 10, 11, 12]);
}

#[tokio::test]
async fn a_name_is_resolved() {
    let kms = ScriptedKms::start(|_, _| Reaction::Answer(answer(201))).await;
    let mut stream = Stream::start("localhost", kms.port, 32, 0, settings());
    stream.deliver(3);
    stream.until_accepted(3).await;
    assert_eq!(stream.check(&kms.seen()), [0, 1, 2]);
}

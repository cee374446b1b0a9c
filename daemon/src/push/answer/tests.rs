//! What is feared of answers: one taken for another, one without end, and one that costs memory.

use std::time::Duration;

use proptest::prelude::*;

use super::{Answer, AnswerError, AnswerReader, LONGEST_BODY, LONGEST_HEAD, LastHead};

fn answer(status: u16) -> Answer {
    Answer { status, close: false, retry_after: None, excerpt: String::new() }
}

fn closing(status: u16) -> Answer {
    Answer { close: true, ..answer(status) }
}

/// Reads `octets` as they come in segments of the given lengths, the way the task does.
fn read_in(octets: &[u8], segments: impl Iterator<Item = usize>) -> Result<Vec<Answer>, AnswerError> {
    read_with(octets, segments, true)
}

/// As [`read_in`]; without `remembers` every head is parsed.
fn read_with(
    octets: &[u8],
    mut segments: impl Iterator<Item = usize>,
    remembers: bool,
) -> Result<Vec<Answer>, AnswerError> {
    let mut last = LastHead::on_its_own();
    let mut reader = AnswerReader::new(true);
    let (mut answers, mut start, mut end) = (Vec::new(), 0, 0);
    while end < octets.len() {
        end = octets.len().min(end + segments.next().unwrap_or(usize::MAX).min(octets.len()).max(1));
        loop {
            let (done, answer) = reader.advance(&octets[start..end], &mut last)?;
            if !remembers {
                last.forget();
            }
            start += done;
            match answer {
                Some(answer) => {
                    answers.push(answer);
                    // The task gives the connection up then.
                    if answers.last().is_some_and(|answer| answer.close) {
                        return Ok(answers);
                    }
                }
                None => break,
            }
        }
        assert!(end - start <= LONGEST_HEAD, "the reader lets {} octets pile up", end - start);
    }
    answers.extend(reader.cut_short());
    Ok(answers)
}

fn read(text: &str) -> Result<Vec<Answer>, AnswerError> {
    let whole = read_in(text.as_bytes(), std::iter::empty());
    let by_octet = read_in(text.as_bytes(), std::iter::repeat(1));
    assert_eq!(whole, by_octet, "segments must make no difference");
    whole
}

#[test]
fn answers_in_one_segment_are_told_apart() {
    let text = "HTTP/1.1 201 Created\r\nContent-Length: 12\r\n\r\n{\"status\":0}\
                HTTP/1.1 204 No Content\r\n\r\n\
                HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nTrailer: t\r\n\r\n\
                HTTP/1.1 201 Created\r\ncontent-length:0\r\n\r\n\
                HTTP/1.1 202\r\nContent-Length: 7, 7\r\n\r\ngarbage";
    assert_eq!(read(text), Ok(vec![answer(201), answer(204), answer(200), answer(201), answer(202)]));
}

#[test]
fn interim_answers_are_not_taken_for_the_final_one() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
    let text = format!("{interim}HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(read(&text), Ok(vec![answer(201)]));
    assert_eq!(read(&text.repeat(20)).map(|answers| answers.len()), Ok(20));
    assert_eq!(read(&interim.repeat(20)), Err(AnswerError::TooManyInterim));
    assert_eq!(read("HTTP/1.1 101 Switching Protocols\r\n\r\n"), Err(AnswerError::SwitchingProtocols));
}

#[test]
fn a_connection_that_will_close_is_noticed() {
    assert_eq!(
        read("HTTP/1.1 201 C\r\nConnection: foo, Close\r\nContent-Length: 0\r\n\r\n"),
        Ok(vec![closing(201)])
    );
    assert_eq!(read("HTTP/1.0 201 C\r\nContent-Length: 0\r\n\r\n"), Ok(vec![closing(201)]));
    let kept = "HTTP/1.0 201 C\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(read(kept), Ok(vec![answer(201)]));
}

#[test]
fn the_head_decides_whatever_becomes_of_the_body() {
    // Until the connection closes; longer than is read; cut short; chunks framed wrongly; two lengths at once.
    for body in [
        "\r\n\r\nhello".to_owned(),
        format!("\r\nContent-Length: {}\r\n\r\nhello", LONGEST_BODY + 1),
        "\r\nContent-Length: 99999999999999999999999999\r\n\r\n".to_owned(),
        "\r\nContent-Length: 10\r\n\r\nhello".to_owned(),
        "\r\nTransfer-Encoding: gzip\r\n\r\nhello".to_owned(),
        "\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_owned(),
        "\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX".to_owned(),
        "\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nh".to_owned(),
        "\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n".to_owned(),
    ] {
        assert_eq!(read(&format!("HTTP/1.1 201 Created{body}")), Ok(vec![closing(201)]), "{body}");
    }
    let endless = format!(
        "HTTP/1.1 201 C\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        "a\r\n0123456789\r\n".repeat(LONGEST_BODY / 10)
    );
    assert_eq!(read_in(endless.as_bytes(), std::iter::repeat(4096)).unwrap()[0], closing(201));
    let endless_line = format!("HTTP/1.1 201 C\r\nTransfer-Encoding: chunked\r\n\r\n5;{}", "x".repeat(5000));
    assert_eq!(read_in(endless_line.as_bytes(), std::iter::repeat(100)).unwrap()[0], closing(201));
}

#[test]
fn what_is_no_answer_is_refused() {
    for text in ["HELLO\r\n\r\n", "HTTP/2 201 C\r\n\r\n", "POST / HTTP/1.1\r\n\r\n", "\0\0\0\0\0\0\0\0\0\0"] {
        assert!(matches!(read(text), Err(AnswerError::Head(_))), "{text}");
    }
    assert_eq!(read("HTTP/1.1 099 X\r\n\r\n"), Err(AnswerError::Status(99)));
    for lengths in ["1\r\nContent-Length: 2", "-1", "1, 2", "0x10", "", "1 1"] {
        let text = format!("HTTP/1.1 201 C\r\nContent-Length: {lengths}\r\n\r\n");
        assert_eq!(read(&text), Err(AnswerError::ContentLength), "{lengths}");
    }
}

#[test]
fn a_head_without_end_is_given_up() {
    let long = format!("HTTP/1.1 201 C\r\nX: {}", "y".repeat(LONGEST_HEAD));
    assert_eq!(read_in(long.as_bytes(), std::iter::repeat(1000)), Err(AnswerError::HeadTooLong));
    let many = format!("HTTP/1.1 201 C\r\n{}\r\n", "a: b\r\n".repeat(1000));
    assert!(matches!(read(&many), Err(AnswerError::Head(httparse::Error::TooManyHeaders))));
}

#[test]
fn a_refusal_tells_why_and_when_to_come_back() {
    let body = "{\"status\": 2, \"detail\": \"Try later.\"}";
    let text = format!(
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let expected = Answer {
        retry_after: Some(Duration::from_secs(7)),
        excerpt: "status detail Try later".to_owned(),
        ..answer(503)
    };
    assert_eq!(read(&text), Ok(vec![expected]));
    let until_close = b"HTTP/1.1 400 Bad Request\r\n\r\nUnknown stream.";
    let until_close = read_in(until_close, std::iter::empty()).unwrap();
    assert_eq!(until_close[0].excerpt, "Unknown stream");
    assert!(until_close[0].close);
}

fn any_answer() -> impl Strategy<Value = (Answer, Vec<u8>)> {
    let status = prop_oneof![Just(200_u16), Just(201), Just(400), Just(503), Just(302)];
    let body = prop::collection::vec(any::<u8>(), 0..300);
    (status, body, prop::collection::vec(1usize..50, 0..10), 0u8..4).prop_map(
        |(status, body, chunks, form)| {
            let mut text = format!("HTTP/1.1 {status} Reason\r\nServer: x\r\n").into_bytes();
            let status = match form {
                0 => {
                    text = b"HTTP/1.1 204 No Content\r\n\r\n".to_vec();
                    204
                }
                1 => {
                    text.extend(b"Transfer-Encoding: chunked\r\n\r\n");
                    let mut rest = &body[..];
                    for size in chunks {
                        let (chunk, after) = rest.split_at(size.min(rest.len()));
                        if !chunk.is_empty() {
                            text.extend(format!("{:X}\r\n", chunk.len()).bytes());
                            text.extend(chunk);
                            text.extend(b"\r\n");
                        }
                        rest = after;
                    }
                    text.extend(b"0\r\n\r\n");
                    status
                }
                _ => {
                    text.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
                    text.extend(&body);
                    status
                }
            };
            (answer(status), text)
        },
    )
}

proptest! {
    #[test]
    fn segments_make_no_difference(answers in prop::collection::vec(any_answer(), 1..12), segments in prop::collection::vec(1usize..400, 0..60)) {
        let text: Vec<u8> = answers.iter().flat_map(|(_, text)| text.clone()).collect();
        let mut read = read_in(&text, segments.into_iter()).unwrap();
        for answer in &mut read { answer.excerpt.clear(); }
        let expected: Vec<Answer> = answers.into_iter().map(|(answer, _)| answer).collect();
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn no_octets_make_it_panic_or_stand_still(octets in prop::collection::vec(any::<u8>(), 0..2000), head in any::<bool>(), segments in prop::collection::vec(1usize..100, 0..30)) {
        let mut text = if head { b"HTTP/1.1 201 C\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec() } else { Vec::new() };
        text.extend(octets);
        let _ = read_in(&text, segments.into_iter());
    }
}

/// Answers that resemble each other and mean different things.
const ALIKE: [&str; 12] = [
    "HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}",
    "HTTP/1.1 201 Created\r\nContent-Length: 3\r\n\r\n{ }",
    "HTTP/1.1 200 Created\r\nContent-Length: 2\r\n\r\n{}",
    "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 204 Created\r\nContent-Length: 2\r\n\r\n",
    "HTTP/1.1 201 Created\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
    "HTTP/1.1 201 Created\r\nContent-Length: 2\r\nRetry-After: 7\r\n\r\n{}",
    "HTTP/1.0 201 Created\r\nContent-Length: 2\r\n\r\n{}",
    "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}",
    "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\nRetry-After: 7\r\n\r\n{}",
    "HTTP/1.1 201 Created\r\n\r\n",
];

proptest! {
    #[test]
    fn a_head_that_is_known_means_what_it_means_when_it_is_parsed(
        which in prop::collection::vec(prop_oneof![3 => Just(0_usize), 1 => 0..ALIKE.len()], 1..40),
        segments in prop::collection::vec(1usize..200, 0..60),
    ) {
        let text: String = which.into_iter().map(|which| ALIKE[which]).collect();
        let known = read_with(text.as_bytes(), segments.iter().copied(), true);
        prop_assert_eq!(known, read_with(text.as_bytes(), segments.into_iter(), false));
    }
}

#[test]
fn a_head_is_known_again_until_it_is_forgotten() {
    let (first, second) = (ALIKE[0].as_bytes(), ALIKE[1].as_bytes());
    let (mut reader, mut last) = (AnswerReader::new(true), LastHead::on_its_own());
    let _ = reader.advance(first, &mut last).unwrap();
    assert_eq!(last.begins(first).map(|known| (known.status, known.body)), Some((201, 2)));
    assert_eq!((last.begins(second), last.begins(&first[..10])), (None, None));
    last.forget();
    assert_eq!(last.begins(first), None);
    // One that is too long is parsed each time.
    let long = format!("HTTP/1.1 201 C\r\nX: {}\r\nContent-Length: 0\r\n\r\n", "x".repeat(LastHead::ROOM));
    let (_, answer) = reader.advance(long.as_bytes(), &mut last).unwrap();
    assert_eq!((answer.map(|answer| answer.status), last.begins(long.as_bytes())), (Some(201), None));
}

#[test]
fn a_head_that_ended_a_connection_or_asked_to_wait_does_so_each_time() {
    for text in ALIKE {
        let mut last = LastHead::on_its_own();
        let mut read = || {
            let mut reader = AnswerReader::new(true);
            let (mut octets, mut answers) = (text.as_bytes(), Vec::new());
            while let (done @ 1.., answer) = reader.advance(octets, &mut last).unwrap() {
                answers.extend(answer);
                octets = &octets[done..];
            }
            answers
        };
        let (first, second) = (read(), read());
        assert!(first.len() == 1 && first == second, "{text:?}: {first:?}, then {second:?}");
    }
}

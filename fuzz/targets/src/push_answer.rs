//! A KMS's answers to key-material: whether a chunk is accepted must not depend on how they were cut into segments.

use qkd_daemon::push::fuzzing::{Read, read};

use crate::Target;

pub(crate) const TARGET: Target =
    Target { name: "push_answer", run, seeds, bounded: 20_000, longest: 32_768 };

fn run(octets: &[u8]) {
    let Some((first, octets)) = octets.split_first() else { return };
    // First octet: how many octets at most each segment has.
    let whole = read([octets]);
    let cut = read(octets.chunks(usize::from(*first) + 1));
    agree(&whole, &cut);
}

fn agree(whole: &Read, cut: &Read) {
    for (status, _) in &whole.answers {
        assert!((200..1000).contains(status), "{status} is no final status");
    }
    // The end of a connection may show earlier where more is seen at once; what was answered before is the same.
    for (one, other) in whole.answers.iter().zip(&cut.answers) {
        assert_eq!(one.0, other.0, "{whole:?} in one piece, {cut:?} in many");
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n", "y".repeat(5_000));
    let texts = [
        "HTTP/1.1 201 Created\r\nContent-Length: 12\r\nContent-Type: application/json\r\n\r\n{\"status\":0}",
        "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nHTTP/1.1 503 Busy\r\nRetry-After: 3\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nTrailer: x\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 429 Slow\r\nRetry-After: Wed, 21 Oct 2099 07:28:00 GMT\r\nContent-Length: 3, 3\r\n\r\nabc",
        "HTTP/1.0 200 OK\r\n\r\nuntil the end",
        "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 400 Bad\r\nConnection: close\r\nContent-Length: 20\r\n\r\n{\"status\":3,\"a\":\"b\"}",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 301 Moved\r\nLocation: http://evil/\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        &long,
    ];
    [255, 0, 6].into_iter().flat_map(|cut| texts.map(|text| [&[cut], text.as_bytes()].concat())).collect()
}

//! The whole-system benchmark of the push: `./dev bench`. Cards, both daemons and a sink as processes of their own, so that each
//! one's time on processors is told apart, and wrk against the same sink in turn with them.

pub mod checker;
pub mod figures;
pub mod idle;
pub mod light;
pub mod long;
pub mod moments;
pub mod processors;
pub mod request;
pub mod sink;
pub mod stage;
pub mod wire;
pub mod wrk;

/// Where a KMS takes key material.
pub const PATH: &str = "/api/v1/qkd/etsi004/key-material";
/// What the sink answers to every request: what the interface asks of a KMS, and no more.
pub const ANSWER: &[u8] =
    b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{\"status\":0}";

/// A request as `qkdd` writes it, for a chunk of so many octets, which are no key.
#[must_use]
pub fn sample_request(host: &str, stream: &str, index: u32, chunk: usize) -> Vec<u8> {
    let octets: Vec<u8> = (0..chunk).map(|at| (at * 151 + at / 256 + 7).to_le_bytes()[0]).collect();
    let key = base64_turbo::STANDARD.encode(octets);
    let body = format!(
        "{{\"status\":0,\"index\":{index},\"key_buffer\":\"{key}\",\"metadata\":{{\"size\":57,\"buffer\":\
         {{\"key_stream_id\": \"{stream}\"}}}}}}"
    );
    format!(
        "POST {PATH} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nAccept: \
         application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

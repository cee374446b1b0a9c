//! One HTTP call, and no more than the tests need of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::DEADLINE;

/// Calls the module's API; answers status code and body.
///
/// # Panics
/// When no answer comes in time.
#[must_use]
pub fn call(api: SocketAddr, method: &str, call: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect_timeout(&api, DEADLINE).expect("the API takes connections");
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket has deadlines");
    let request = format!(
        "{method} /api/v1/kms/etsi004/{call} HTTP/1.1\r\nHost: {api}\r\nConnection: close\r\nContent-Type: \
         application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).expect("the API reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the API answers in time");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    (code.unwrap_or_else(|| panic!("no status: {head:?}")), body.to_owned())
}

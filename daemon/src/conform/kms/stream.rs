//! Key-material on a stream that the KMS has opened.

use std::time::{Duration, Instant};

use ring::digest::{SHA256, digest};
use uuid::Uuid;

use super::played::Opened;
use super::{Probe, material, refused};
use crate::conform::http::Reply;

/// Goes into every octet of key that the probe sends, so that nobody takes it for one.
const TEST_DATA: &[u8] = b"test data of qkdctl conform, which anybody can compute";
/// Requests under way at once.
const IN_FLIGHT: u32 = 16;
/// Chunks that are said to be lost.
const LOST: u32 = 3;
/// How long a connection must stay.
const STAYS: Duration = Duration::from_millis(200);

/// Test data of so many octets.
fn key(id: Uuid, index: u32, octets: u32) -> Vec<u8> {
    let octets = usize::try_from(octets).unwrap_or_default();
    let mut key = Vec::new();
    let mut part = 0_u32;
    while key.len() < octets {
        let parts = [TEST_DATA, id.as_bytes(), &index.to_le_bytes(), &part.to_le_bytes()].concat();
        key.extend_from_slice(digest(&SHA256, &parts).as_ref());
        part += 1;
    }
    key.truncate(octets);
    key
}

fn accepted(reply: &Reply) -> Result<(), String> {
    if reply.succeeded() { Ok(()) } else { Err(reply.shown()) }
}

impl Probe<'_> {
    pub(super) fn stream(&mut self, opened: Opened) {
        let Opened { id, chunk_size, index } = opened;
        let chunk = |index: u32| material(id, 0, index, &key(id, index, chunk_size));
        let first = self.send(&chunk(index));
        let taken = first.as_ref().is_ok_and(Reply::succeeded);
        self.book.judge("chunk.accepted", first.as_ref().map_err(Clone::clone).and_then(accepted));
        if !taken {
            return self.book.skip(super::clauses::STREAM, "a good chunk was not accepted (chunk.accepted)");
        }
        if let Ok(reply) = first {
            self.book.judge("chunk.201", if reply.status == 201 { Ok(()) } else { Err(reply.shown()) });
            let kept = if reply.status() == Some(0) { Ok(()) } else { Err(reply.shown()) };
            self.book.judge("chunk.status", kept);
        }
        let mut next = index.wrapping_add(1);
        self.spellings(id, chunk_size, &mut next);
        self.repeated(id, chunk_size, &mut next);
        self.wrong(id, chunk_size, next);
        self.in_flight(id, chunk_size, &mut next);
        self.notices(id, &chunk, &mut next);
    }

    /// The same message, written otherwise.
    fn spellings(&mut self, id: Uuid, chunk_size: u32, next: &mut u32) {
        let base64 = |index| base64_turbo::STANDARD.encode(key(id, index, chunk_size));
        let spelt = |index: u32, form: &str| {
            let key = base64(index);
            match form {
                "chunk.members" => format!(
                    "{{ \"metadata\" : {{ \"buffer\":{{\"key_stream_id\": \"{id}\"}}, \"size\": 57 }},\r\n \"x-conform\": [1, {{}}],\n\
                     \t\"key_buffer\": \"{key}\", \"index\": {index}, \"status\": 0 }}"
                ),
                "chunk.compact" => format!(
                    "{{\"status\":0,\"index\":{index},\"key_buffer\":\"{key}\",\"metadata\":{{\"size\":56,\"buffer\":\
                     {{\"key_stream_id\":\"{id}\"}}}}}}"
                ),
                _ => format!(
                    "{{\"status\":0,\"index\":{index},\"key_buffer\":\"{key}\",\"metadata\":{{\"size\":57,\"buffer\":\
                     \"{{\\\"key_stream_id\\\": \\\"{id}\\\"}}\"}}}}"
                ),
            }
        };
        for clause in ["chunk.members", "chunk.compact", "chunk.string"] {
            let reply = self.send(&spelt(*next, clause));
            if reply.as_ref().is_ok_and(Reply::succeeded) {
                *next = next.wrapping_add(1);
            }
            self.book.judge(clause, reply.and_then(|reply| accepted(&reply)));
        }
        let kept = self.in_pieces(&material(id, 0, *next, &key(id, *next, chunk_size)));
        if kept.is_ok() {
            *next = next.wrapping_add(1);
        }
        self.book.judge("chunk.split", kept);
    }

    fn in_pieces(&mut self, body: &str) -> Result<(), String> {
        let said = |why: std::io::Error| why.to_string();
        let client = &self.subject.client;
        let request = self.request(body);
        let until = Instant::now() + client.deadline;
        let mut connection = client.connect().map_err(said)?;
        for piece in request.chunks(request.len() / 5 + 1) {
            connection.send(piece, until).map_err(said)?;
            // Lets the pieces travel apart; whether they do is of no matter to a right answer.
            std::thread::sleep(Duration::from_millis(5));
        }
        let reply = connection.reply(until).map_err(said)?;
        self.inspect(&reply);
        let stays = connection.stays(STAYS);
        let kept = if stays { Ok(()) } else { Err("it was closed after an answer".to_owned()) };
        self.book.judge("chunk.keep-alive", kept);
        accepted(&reply)
    }

    fn repeated(&mut self, id: Uuid, chunk_size: u32, next: &mut u32) {
        let last = next.wrapping_sub(1);
        let again = material(id, 0, last, &key(id, last, chunk_size));
        let kept = self.send(&again).and_then(|reply| accepted(&reply));
        self.book.judge("chunk.again", kept);
        // The request is there in full, and nobody hears what it got.
        let body = material(id, 0, *next, &key(id, *next, chunk_size));
        let request = self.request(&body);
        let until = Instant::now() + self.subject.client.deadline;
        if let Ok(mut connection) = self.subject.client.connect() {
            let _ = connection.send(&request, until);
            connection.cut();
        }
        let kept = self.send(&body).and_then(|reply| accepted(&reply));
        self.book.judge("chunk.again-elsewhere", kept);
        let mut other = key(id, *next, chunk_size);
        if let Some(octet) = other.first_mut() {
            *octet ^= 1;
        }
        self.refused("chunk.changed", "the same index", &material(id, 0, *next, &other));
        *next = next.wrapping_add(1);
    }

    /// What is no chunk of this stream.
    fn wrong(&mut self, id: Uuid, chunk_size: u32, next: u32) {
        for octets in [chunk_size + 1, chunk_size - 1] {
            let what = format!("{octets} octets");
            let body = material(id, 0, next, &key(id, next, octets));
            // Without any octet it is something else.
            if octets > 0 {
                self.refused("chunk.length", &what, &body);
            }
        }
        let good = material(id, 0, next, &key(id, next, chunk_size));
        self.refused("chunk.base64", "a star", &good.replacen("\"key_buffer\":\"", "\"key_buffer\":\"*", 1));
        self.refused("chunk.empty", "status 0", &material(id, 0, next, b""));
        self.refused("chunk.with-status", "status 2", &material(id, 2, next, &key(id, next, chunk_size)));
    }

    /// Many requests at once, one of them for a stream that nobody has.
    fn in_flight(&mut self, id: Uuid, chunk_size: u32, next: &mut u32) {
        let stranger = IN_FLIGHT / 2;
        let mut all = Vec::new();
        for number in 0..IN_FLIGHT {
            let (id, index) = if number == stranger {
                (Uuid::new_v4(), 0)
            } else {
                let index = *next;
                *next = next.wrapping_add(1);
                (id, index)
            };
            all.extend_from_slice(&self.request(&material(id, 0, index, &key(id, index, chunk_size))));
        }
        let kept = self.answers(&all, stranger);
        self.book.judge("chunk.in-flight", kept);
        *next = next.wrapping_add(LOST);
        let reply = self.send(&material(id, 0, *next, &key(id, *next, chunk_size)));
        self.book.judge("chunk.after-loss", reply.and_then(|reply| accepted(&reply)));
        *next = next.wrapping_add(1);
    }

    fn answers(&mut self, all: &[u8], stranger: u32) -> Result<(), String> {
        let said = |why: std::io::Error| why.to_string();
        let until = Instant::now() + self.subject.client.deadline;
        let mut connection = self.subject.client.connect().map_err(said)?;
        connection.send(all, until).map_err(said)?;
        for number in 0..IN_FLIGHT {
            let reply = connection.reply(until).map_err(|why| format!("answer {}: {why}", number + 1))?;
            self.inspect(&reply);
            let kept = if number == stranger { refused(&reply) } else { accepted(&reply) };
            kept.map_err(|why| format!("answer {} of {IN_FLIGHT}: {why}", number + 1))?;
        }
        Ok(())
    }

    /// Messages without key, each followed by the chunk of its index.
    fn notices(&mut self, id: Uuid, chunk: &impl Fn(u32) -> String, next: &mut u32) {
        for (clause, status) in [("notice.insufficient", 2), ("notice.link-down", 4)] {
            let told = self.send(&material(id, status, *next, b"")).and_then(|reply| accepted(&reply));
            let goes_on = self.send(&chunk(*next)).and_then(|reply| accepted(&reply));
            *next = next.wrapping_add(1);
            let kept = told.and(goes_on.map_err(|why| format!("the chunk of its index: {why}")));
            self.book.judge(clause, kept);
        }
        let told = self.send(&material(id, 1, *next, b"")).and_then(|reply| accepted(&reply));
        self.book.judge("notice.closed", told);
    }
}

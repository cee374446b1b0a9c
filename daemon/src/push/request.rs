//! Writes a key-material request: fixed parts, two numbers, and base64 straight out of the vault.

use std::mem;

use crate::config::KmsEndpoint;
use crate::interface::{KeyStreamId, Status};
use crate::vault::wipe;
use base64_turbo::STANDARD;

/// The parts of a stream's requests that never change.
#[derive(Debug)]
pub(super) struct Template {
    /// Up to the value of Content-Length.
    head: Box<[u8]>,
    /// From the end of `key_buffer` on.
    tail: Box<[u8]>,
    chunk_size: usize,
    /// Characters of `key_buffer`.
    key_length: usize,
}

const BEFORE_STATUS: &[u8] = b"\r\n\r\n{\"status\":";
/// As `BEFORE_STATUS`, with the status of a chunk and what follows it.
const BEFORE_INDEX_OF_KEY: &[u8] = b"\r\n\r\n{\"status\":0,\"index\":";
const BEFORE_INDEX: &[u8] = b",\"index\":";
const BEFORE_KEY: &[u8] = b",\"key_buffer\":\"";
/// Octets between head and body.
const BLANK_LINE: usize = 4;

impl Template {
    pub(super) fn new(endpoint: &KmsEndpoint, stream: KeyStreamId, chunk_size: u32) -> Self {
        let (path, server) = (&endpoint.path, &endpoint.server);
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {server}\r\nContent-Type: application/json\r\nAccept: \
             application/json\r\nContent-Length: "
        );
        // With its one space the buffer has the 57 characters that its size says.
        let buffer = format!("{{\"key_stream_id\": \"{stream}\"}}");
        let tail = format!("\",\"metadata\":{{\"size\":{},\"buffer\":{buffer}}}}}", buffer.len());
        Self {
            head: head.into_bytes().into_boxed_slice(),
            tail: tail.into_bytes().into_boxed_slice(),
            chunk_size: chunk_size as usize,
            key_length: STANDARD.encoded_len(chunk_size as usize),
        }
    }

    /// Octets of the longest request, of key or notice.
    pub(super) fn longest(&self) -> usize {
        let numbers = 3 * Decimal::LONGEST;
        let fixed = BEFORE_STATUS.len() + BEFORE_INDEX.len() + BEFORE_KEY.len();
        self.head.len() + fixed + numbers + self.key_length + self.tail.len()
    }

    /// Writes the request for a chunk whose octets are `parts`, end to end. Gives its length; `None` when `out` is too
    /// short or the parts are not one chunk, and then `out` may hold a part of the key.
    pub(super) fn write_key<'k>(
        &self,
        out: &mut [u8],
        position: u64,
        parts: impl Iterator<Item = &'k [u8]>,
    ) -> Option<usize> {
        let index = Decimal::new(index(position));
        let body = BEFORE_INDEX_OF_KEY.len() - BLANK_LINE
            + index.text().len()
            + BEFORE_KEY.len()
            + self.key_length
            + self.tail.len();
        let mut out = Writer::new(out);
        out.put(&self.head)?;
        out.put(Decimal::new(u32::try_from(body).ok()?).text())?;
        out.put(BEFORE_INDEX_OF_KEY)?;
        out.put(index.text())?;
        out.put(BEFORE_KEY)?;
        let octets = out.put_base64(parts)?;
        out.put(&self.tail)?;
        if octets != self.chunk_size {
            return None;
        }
        Some(out.written)
    }

    /// Writes a notice. Gives its length; `None` when `out` is too short.
    pub(super) fn write_notice(&self, out: &mut [u8], status: Status, position: u64) -> Option<usize> {
        let (status, index) = (Decimal::new(status.into()), Decimal::new(index(position)));
        let body = BEFORE_STATUS.len() - BLANK_LINE
            + status.text().len()
            + BEFORE_INDEX.len()
            + index.text().len()
            + BEFORE_KEY.len()
            + self.tail.len();
        let mut out = Writer::new(out);
        out.put(&self.head)?;
        out.put(Decimal::new(u32::try_from(body).ok()?).text())?;
        for part in [BEFORE_STATUS, status.text(), BEFORE_INDEX, index.text(), BEFORE_KEY, &self.tail] {
            out.put(part)?;
        }
        Some(out.written)
    }
}

/// The index on the wire: the low 32 bits of the position.
fn index(position: u64) -> u32 {
    u32::try_from(position & u64::from(u32::MAX)).unwrap_or_default()
}

struct Writer<'a> {
    rest: &'a mut [u8],
    written: usize,
}

impl<'a> Writer<'a> {
    fn new(out: &'a mut [u8]) -> Self {
        Self { rest: out, written: 0 }
    }

    fn next(&mut self, length: usize) -> Option<&'a mut [u8]> {
        let (next, rest) = mem::take(&mut self.rest).split_at_mut_checked(length)?;
        self.rest = rest;
        self.written += length;
        Some(next)
    }

    fn put(&mut self, part: &[u8]) -> Option<()> {
        self.next(part.len())?.copy_from_slice(part);
        Some(())
    }

    /// Gives the number of octets that it wrote, each four characters for three.
    fn put_base64<'k>(&mut self, parts: impl Iterator<Item = &'k [u8]>) -> Option<usize> {
        let mut octets = 0;
        // Up to two octets that wait for a third from the next part.
        let mut group = Group::default();
        for part in parts {
            octets += part.len();
            let rest = group.fill(part);
            if let Some(whole) = group.whole() {
                self.encode(whole)?;
                group.clear();
            }
            let (whole, over) = rest.split_at(rest.len() - rest.len() % 3);
            self.encode(whole)?;
            group.fill(over);
        }
        self.encode(group.octets())?;
        Some(octets)
    }

    fn encode(&mut self, octets: &[u8]) -> Option<()> {
        let out = self.next(STANDARD.encoded_len(octets.len()))?;
        STANDARD.encode_slice(octets, out).is_ok().then_some(())
    }
}

/// Three octets of key that become four characters; wiped on drop.
#[derive(Default)]
struct Group {
    octets: [u8; 3],
    held: usize,
}

impl Group {
    /// Takes from `part` what is missing, and gives the rest of it. An empty group takes only what is too short to
    /// be encoded by itself.
    fn fill<'k>(&mut self, part: &'k [u8]) -> &'k [u8] {
        if self.held == 0 && part.len() >= 3 {
            return part;
        }
        let (taken, rest) = part.split_at((3 - self.held).min(part.len()));
        if let Some(free) = self.octets.get_mut(self.held..self.held + taken.len()) {
            free.copy_from_slice(taken);
            self.held += taken.len();
        }
        rest
    }

    fn octets(&self) -> &[u8] {
        self.octets.get(..self.held).unwrap_or_default()
    }

    fn whole(&self) -> Option<&[u8]> {
        (self.held == 3).then(|| self.octets())
    }

    fn clear(&mut self) {
        wipe(&mut self.octets);
        self.held = 0;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        wipe(&mut self.octets);
    }
}

/// A number in decimal digits.
struct Decimal {
    digits: [u8; Self::LONGEST],
    start: usize,
}

impl Decimal {
    const LONGEST: usize = 10;

    fn new(mut number: u32) -> Self {
        let mut digits = [b'0'; Self::LONGEST];
        let mut start = Self::LONGEST;
        for (at, digit) in digits.iter_mut().enumerate().rev() {
            *digit += u8::try_from(number % 10).unwrap_or_default();
            number /= 10;
            start = at;
            if number == 0 {
                break;
            }
        }
        Self { digits, start }
    }

    fn text(&self) -> &[u8] {
        self.digits.get(self.start..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::Template;
    use crate::config::{HostPort, KmsEndpoint};
    use crate::interface::Status;

    fn endpoint() -> KmsEndpoint {
        let server = HostPort { host: "::1".to_owned(), port: 9001 };
        KmsEndpoint {
            secure: false,
            server,
            path: "/api/v1/qkd/etsi004/key-material".to_owned(),
            through: None,
        }
    }

    /// The body, after the head was read by an HTTP parser and held against it.
    fn body(request: &[u8]) -> &[u8] {
        let mut fields = [httparse::EMPTY_HEADER; 8];
        let mut head = httparse::Request::new(&mut fields);
        let httparse::Status::Complete(length) = head.parse(request).unwrap() else {
            panic!("no whole head")
        };
        assert_eq!((head.method, head.path), (Some("POST"), Some("/api/v1/qkd/etsi004/key-material")));
        let field = |name: &str| {
            let field = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name)).unwrap();
            std::str::from_utf8(field.value).unwrap()
        };
        assert_eq!(field("host"), "[::1]:9001");
        assert_eq!(field("content-type"), "application/json");
        let body = &request[length..];
        assert_eq!(field("content-length").parse(), Ok(body.len()));
        body
    }

    proptest! {
        #[test]
        fn a_request_is_what_a_json_library_would_write(
            key in prop::collection::vec(any::<u8>(), 1..300),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
            position in any::<u64>(),
            id in any::<u128>(),
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(key.len() + 1)).collect();
            cuts.extend([0, key.len()]);
            cuts.sort_unstable();
            let parts = cuts.windows(2).map(|cut| &key[cut[0]..cut[1]]);
            let stream = Uuid::from_u128(id);
            let template = Template::new(&endpoint(), stream, u32::try_from(key.len()).unwrap());
            let mut out = vec![0xee; template.longest() + 1];
            let length = template.write_key(&mut out, position, parts.clone()).unwrap();
            prop_assert!(length <= template.longest());
            prop_assert_eq!(out[length], 0xee);
            let body: Value = serde_json::from_slice(body(&out[..length])).unwrap();
            let sent = base64_turbo::STANDARD.decode(body["key_buffer"].as_str().unwrap()).unwrap();
            prop_assert_eq!(&sent, &key);
            let index = u32::try_from(position & 0xffff_ffff).unwrap();
            prop_assert_eq!(&body, &json!({
                "status": 0, "index": index, "key_buffer": body["key_buffer"],
                "metadata": {"size": 57, "buffer": {"key_stream_id": stream.to_string()}},
            }));
            // One octet less does not fit, and is not written beyond.
            prop_assert_eq!(template.write_key(&mut out[..length - 1], position, parts), None);
        }

        #[test]
        fn parts_that_are_not_one_chunk_are_never_sent(size in 1u32..100, octets in 0usize..100) {
            let template = Template::new(&endpoint(), Uuid::nil(), size);
            let mut out = vec![0; template.longest() + 200];
            let key = vec![1; octets];
            let written = template.write_key(&mut out, 0, [&key[..]].into_iter());
            prop_assert_eq!(written.is_some(), octets == size as usize);
        }
    }

    /// RFC 4648, section 4, as it stands there.
    fn by_the_book(octets: &[u8]) -> String {
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let group = |three: &[u8]| {
            let bits = (0..3).fold(0, |bits, at| bits << 8 | three.get(at).copied().map_or(0, u32::from));
            let character = |at: usize| char::from(alphabet[(bits >> (18 - 6 * at)) as usize & 63]);
            std::array::from_fn::<_, 4, _>(|at| if at <= three.len() { character(at) } else { '=' })
        };
        octets.chunks(3).flat_map(group).collect()
    }

    #[test]
    fn key_of_any_length_is_encoded_as_the_standard_says_and_not_as_the_library_reads_it_back() {
        let mut seed = 1_u32;
        let key: Vec<u8> = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        })
        .take(65_536)
        .collect();
        for length in (1..=1_030).chain([4_095, 4_096, 4_097, 65_535, 65_536]) {
            // What is encoded at once differs by where it begins and ends.
            let key = &key[key.len() - length..];
            let template = Template::new(&endpoint(), Uuid::nil(), u32::try_from(length).unwrap());
            let mut out = vec![0; template.longest()];
            let written = template.write_key(&mut out, 0, [key].into_iter()).unwrap();
            let body: Value = serde_json::from_slice(body(&out[..written])).unwrap();
            assert!(body["key_buffer"] == by_the_book(key), "{length} octets");
        }
    }

    #[test]
    fn the_octets_are_those_of_the_specification() {
        let stream = Uuid::from_u128(0x550e8400_e29b_41d4_a716_446655440000);
        let template = Template::new(&endpoint(), stream, 3);
        let mut out = vec![0; template.longest()];
        let length = template.write_key(&mut out, (7 << 32) + 12, [&b"abc"[..]].into_iter()).unwrap();
        let expected = "{\"status\":0,\"index\":12,\"key_buffer\":\"YWJj\",\"metadata\":{\"size\":57,\"buffer\":\
                        {\"key_stream_id\": \"550e8400-e29b-41d4-a716-446655440000\"}}}";
        assert_eq!(std::str::from_utf8(body(&out[..length])), Ok(expected));
        let length = template.write_notice(&mut out, Status::InsufficientKey, 4_294_967_295).unwrap();
        let expected = expected
            .replace(":0,", ":2,")
            .replace("\"index\":12", "\"index\":4294967295")
            .replace("YWJj", "");
        assert_eq!(std::str::from_utf8(body(&out[..length])), Ok(&*expected));
    }
}

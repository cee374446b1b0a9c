//! Reads key-material requests as cheaply as they can be read, and every octet of them that means something.

use super::PATH;

/// Longest head that is taken.
const LONGEST_HEAD: usize = 4096;
/// Longest body that is taken: a chunk of 1 MiB, and more.
const LONGEST_BODY: usize = 2 << 20;
const LENGTH: &[u8] = b"Content-Length: ";
const END: &[u8] = b"\r\n\r\n";

/// Not a key-material request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The head is no POST to the path of key material with a length, or too long.
    #[error("the head of a request is not one of key material")]
    Head,
    /// The body is not the object of the interface, as `qkdd` writes it.
    #[error("a body is not key material")]
    Body,
    /// The key is no base64.
    #[error("a key is no base64")]
    Key,
}

/// Finds requests in what came over one connection.
#[derive(Debug, Default)]
pub struct Framing {
    /// The head of the last request, up to the value of its Content-Length: the next one has most likely the same.
    known: Vec<u8>,
}

impl Framing {
    /// The first whole request's body and its length with the head; `None` while more must come.
    ///
    /// # Errors
    /// [`Malformed::Head`].
    pub fn next<'a>(&mut self, octets: &'a [u8]) -> Result<Option<(&'a [u8], usize)>, Malformed> {
        let (start, length) = if !self.known.is_empty()
            && let Some(rest) = octets.strip_prefix(self.known.as_slice())
            && let Some((digits, length)) = number(rest)
            && rest[digits..].starts_with(END)
        {
            (self.known.len() + digits + END.len(), length)
        } else {
            let Some(head) = self.head(octets)? else { return Ok(None) };
            head
        };
        if length as usize > LONGEST_BODY {
            return Err(Malformed::Head);
        }
        let end = start + length as usize;
        Ok(octets.get(start..end).map(|body| (body, end)))
    }

    fn head(&mut self, octets: &[u8]) -> Result<Option<(usize, u32)>, Malformed> {
        let within = &octets[..octets.len().min(LONGEST_HEAD)];
        let Some(end) = find(within, END) else {
            return if octets.len() < LONGEST_HEAD { Ok(None) } else { Err(Malformed::Head) };
        };
        let head = &within[..end + 2];
        if !head.strip_prefix(b"POST ").is_some_and(|rest| rest.starts_with(PATH.as_bytes())) {
            return Err(Malformed::Head);
        }
        let value = find(head, LENGTH).ok_or(Malformed::Head)? + LENGTH.len();
        let (digits, length) = number(&head[value..]).ok_or(Malformed::Head)?;
        self.known.clear();
        if value + digits == end {
            self.known.extend_from_slice(&head[..value]);
        }
        Ok(Some((end + END.len(), length)))
    }
}

fn find(octets: &[u8], what: &[u8]) -> Option<usize> {
    octets.windows(what.len()).position(|window| window == what)
}

/// A decimal number at the beginning: how many digits, and its value.
fn number(octets: &[u8]) -> Option<(usize, u32)> {
    let digits = octets.iter().take_while(|octet| octet.is_ascii_digit()).count();
    if !(1..=10).contains(&digits) || (digits > 1 && octets[0] == b'0') {
        return None;
    }
    let value = octets[..digits].iter().fold(0_u64, |value, digit| value * 10 + u64::from(digit - b'0'));
    Some((digits, u32::try_from(value).ok()?))
}

/// What one request says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Material<'a> {
    /// Key stream.
    pub stream: &'a [u8; 36],
    /// 0: key; anything else is a notice.
    pub status: u32,
    /// Low 32 bits of the position.
    pub index: u32,
    /// The key, in base64.
    pub key: &'a [u8],
    /// Octets of key.
    pub octets: usize,
}

impl<'a> Material<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        Self::parts(body).ok_or(Malformed::Body)?
    }

    fn parts(body: &'a [u8]) -> Option<Result<Self, Malformed>> {
        let rest = body.strip_prefix(b"{\"status\":")?;
        let (digits, status) = number(rest)?;
        let rest = rest[digits..].strip_prefix(b",\"index\":")?;
        let (digits, index) = number(rest)?;
        let rest = rest[digits..].strip_prefix(b",\"key_buffer\":\"")?;
        // The rest of the object has one length, so that the key's end is known.
        let rest = rest.strip_suffix(b"\"}}}")?;
        let (rest, stream) = rest.split_last_chunk::<36>()?;
        let key = rest.strip_suffix(b"\",\"metadata\":{\"size\":57,\"buffer\":{\"key_stream_id\": \"")?;
        let octets = base64_turbo::STANDARD.decode(key).map_err(|_| Malformed::Key);
        Some(octets.map(|octets| Self { stream, status, index, key, octets: octets.len() }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample_request;
    use super::*;

    const STREAM: &str = "550e8400-e29b-41d4-a716-446655440000";

    #[test]
    fn requests_are_found_however_they_are_cut() {
        let one = sample_request("localhost:1", STREAM, 0, 32);
        let other = sample_request("localhost:1", STREAM, 4_294_967_295, 33);
        let octets = [one.as_slice(), &other, &one].concat();
        let mut framing = Framing::default();
        for cut in 0..one.len() {
            assert_eq!(framing.next(&octets[..cut]), Ok(None), "{cut}");
        }
        let mut at = 0;
        for (index, length) in [(0, 32), (4_294_967_295, 33), (0, 32)] {
            let (body, end) = framing.next(&octets[at..]).unwrap().unwrap();
            let material = Material::read(body).unwrap();
            assert_eq!((material.status, material.index, material.octets), (0, index, length));
            assert_eq!(material.stream, STREAM.as_bytes());
            at += end;
        }
        assert_eq!(framing.next(&octets[at..]), Ok(None));
    }

    #[test]
    fn what_is_no_request_of_key_material_is_refused() {
        let good = String::from_utf8(sample_request("h", STREAM, 7, 32)).unwrap();
        for (part, instead) in
            [("POST ", "PUT "), ("/key-material", "/key"), ("Content-Length: ", "Length: ")]
        {
            let bad = good.replace(part, instead);
            assert_ne!(bad, good);
            assert_eq!(Framing::default().next(bad.as_bytes()), Err(Malformed::Head), "{part}");
        }
    }

    #[test]
    fn a_body_with_anything_missing_or_wrong_is_malformed() {
        let good = sample_request("h", STREAM, 7, 32);
        let (body, _) = Framing::default().next(&good).unwrap().unwrap();
        assert!(Material::read(body).is_ok());
        for length in 0..body.len() {
            assert!(Material::read(&body[..length]).is_err(), "{length}");
        }
        let text = std::str::from_utf8(body).unwrap();
        for (part, instead) in [
            ("\"status\":0", "\"status\":x"),
            ("\"status\":0", "\"status\":00"),
            ("\"index\":7", "\"index\":4294967296"),
            ("\"index\":7", "\"index\":-7"),
            ("\"size\":57", "\"size\":56"),
            ("key_stream_id", "key_stream_no"),
        ] {
            let bad = text.replace(part, instead);
            assert_ne!(bad, text);
            assert_eq!(Material::read(bad.as_bytes()), Err(Malformed::Body), "{part}");
        }
        let mut bad = body.to_vec();
        let key = find(body, b"key_buffer\":\"").unwrap() + b"key_buffer\":\"".len();
        bad[key] = b'*';
        assert_eq!(Material::read(&bad), Err(Malformed::Key));
    }
}

//! Holds what comes in against what was promised: every chunk of a stream once, in order, without a gap, whole, and with the same
//! key at both ends.

use super::request::{Malformed, Material};

/// Chunks between two comparisons of the key at both ends.
const MARK_EVERY: u64 = 1024;
/// Key streams that are told apart.
const MOST_STREAMS: usize = 65_536;

/// A chunk that breaks a promise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It cannot be read.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// It has been here.
    #[error("key stream {stream}: index {index} came again, {expected} is next")]
    Repeated {
        /// Key stream.
        stream: String,
        /// Its index.
        index: u32,
        /// What should have come.
        expected: u32,
    },
    /// Others should have come before.
    #[error("key stream {stream}: index {index} came, {expected} is next")]
    Skipped {
        /// Key stream.
        stream: String,
        /// Its index.
        index: u32,
        /// What should have come.
        expected: u32,
    },
    /// It is no chunk of the size that was agreed.
    #[error("a chunk of {octets} octets came, instead of {expected}")]
    Length {
        /// Octets of key.
        octets: usize,
        /// Octets of a chunk.
        expected: usize,
    },
    /// The ID of the key stream is none, or there are too many.
    #[error("{0:?} is no key stream's ID, or one too many")]
    Stream(String),
    /// The ends got different key.
    #[error("key stream {stream}: the ends got different key before position {position}")]
    Disagreement {
        /// Key stream.
        stream: String,
        /// One past the last position that was compared.
        position: u64,
    },
}

#[derive(Debug, Default)]
struct End {
    /// Position of the chunk that is next.
    next: u64,
    /// CRC of all key so far, as it was written.
    crc: u32,
}

#[derive(Debug)]
struct Stream {
    id: [u8; 36],
    ends: [End; 2],
    /// CRCs at multiples of [`MARK_EVERY`], from the end that got there first.
    marks: Vec<u32>,
    /// How many of them the other end had, too.
    agreed: usize,
}

/// What a request was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// A chunk.
    Chunk,
    /// A message without key.
    Notice,
}

/// All key streams.
#[derive(Debug)]
pub struct Checker {
    chunk: usize,
    streams: Vec<Stream>,
}

impl Checker {
    /// For streams with chunks of so many octets.
    #[must_use]
    pub fn new(chunk: usize) -> Self {
        Self { chunk, streams: Vec::new() }
    }

    /// Takes a body that came to one end, 0 or 1. `hint` is the connection's own: which stream its last chunk was of.
    ///
    /// # Errors
    /// [`Fault`]; the stream's next chunk is then the same as before.
    pub fn take(&mut self, end: usize, hint: &mut usize, body: &[u8]) -> Result<Taken, Fault> {
        let material = Material::read(body)?;
        if material.status != 0 {
            return if material.octets == 0 { Ok(Taken::Notice) } else { Err(Malformed::Body.into()) };
        }
        self.length(&material)?;
        *hint = self.find(material.stream, *hint)?;
        let Stream { id, ends, marks, agreed } = &mut self.streams[*hint];
        let name = || String::from_utf8_lossy(id).into_owned();
        let state = &mut ends[end];
        let expected = u32::try_from(state.next & u64::from(u32::MAX)).expect("32 bits");
        let index = material.index;
        // Half of all indices lie behind, half before, as they wrap.
        match index.wrapping_sub(expected) {
            0 => {}
            1..0x8000_0000 => return Err(Fault::Skipped { stream: name(), index, expected }),
            _ => return Err(Fault::Repeated { stream: name(), index, expected }),
        }
        state.next += 1;
        state.crc = crc32c::crc32c_append(state.crc, material.key);
        if state.next.is_multiple_of(MARK_EVERY) {
            let number = usize::try_from(state.next / MARK_EVERY - 1).expect("it fits");
            match marks.get(number) {
                None => marks.push(state.crc),
                Some(mark) if *mark == state.crc => *agreed += 1,
                Some(_) => return Err(Fault::Disagreement { stream: name(), position: state.next }),
            }
        }
        Ok(Taken::Chunk)
    }

    /// Takes a body that repeats itself, as a load generator's does: order means nothing there.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn take_repeated(&self, body: &[u8]) -> Result<(), Fault> {
        let material = Material::read(body)?;
        if material.status != 0 {
            return Err(Malformed::Body.into());
        }
        self.length(&material)
    }

    /// Chunks whose key was the same at both ends.
    #[must_use]
    pub fn agreed(&self) -> u64 {
        self.streams.iter().map(|stream| stream.agreed as u64 * MARK_EVERY).sum()
    }

    /// Streams that key came for at both ends.
    #[must_use]
    pub fn flowing(&self) -> usize {
        self.streams.iter().filter(|stream| stream.ends.iter().all(|end| end.next > 0)).count()
    }

    fn length(&self, material: &Material<'_>) -> Result<(), Fault> {
        if material.octets == self.chunk {
            return Ok(());
        }
        Err(Fault::Length { octets: material.octets, expected: self.chunk })
    }

    fn find(&mut self, id: &[u8; 36], hint: usize) -> Result<usize, Fault> {
        if self.streams.get(hint).is_some_and(|stream| stream.id == *id) {
            return Ok(hint);
        }
        if let Some(found) = self.streams.iter().position(|stream| stream.id == *id) {
            return Ok(found);
        }
        let is_id = id.iter().enumerate().all(|(at, octet)| match at {
            8 | 13 | 18 | 23 => *octet == b'-',
            _ => octet.is_ascii_hexdigit(),
        });
        if !is_id || self.streams.len() >= MOST_STREAMS {
            return Err(Fault::Stream(String::from_utf8_lossy(id).into_owned()));
        }
        self.streams.push(Stream { id: *id, ends: <[End; 2]>::default(), marks: Vec::new(), agreed: 0 });
        Ok(self.streams.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::Framing;
    use super::super::sample_request;
    use super::*;

    const STREAM: &str = "550e8400-e29b-41d4-a716-446655440000";

    fn body(index: u32, chunk: usize) -> Vec<u8> {
        let request = sample_request("h", STREAM, index, chunk);
        Framing::default().next(&request).unwrap().unwrap().0.to_vec()
    }

    fn take(checker: &mut Checker, end: usize, body: &[u8]) -> Result<Taken, Fault> {
        checker.take(end, &mut 0, body)
    }

    #[test]
    fn a_repeated_a_skipped_and_a_malformed_chunk_are_refused_and_nothing_else() {
        let mut checker = Checker::new(32);
        for index in 0..3 {
            assert_eq!(take(&mut checker, 0, &body(index, 32)), Ok(Taken::Chunk));
        }
        let repeated = take(&mut checker, 0, &body(2, 32));
        assert!(matches!(repeated, Err(Fault::Repeated { index: 2, expected: 3, .. })), "{repeated:?}");
        let skipped = take(&mut checker, 0, &body(4, 32));
        assert!(matches!(skipped, Err(Fault::Skipped { index: 4, expected: 3, .. })), "{skipped:?}");
        let long = take(&mut checker, 0, &body(3, 33));
        assert_eq!(long, Err(Fault::Length { octets: 33, expected: 32 }));
        let mut broken = body(3, 32);
        let last = broken.pop();
        assert_eq!(take(&mut checker, 0, &broken), Err(Fault::Malformed(Malformed::Body)));
        broken.extend(last);
        assert_eq!(take(&mut checker, 0, &broken), Ok(Taken::Chunk), "it was next all the time");
        // The other end has an order of its own.
        assert!(matches!(take(&mut checker, 1, &body(1, 32)), Err(Fault::Skipped { .. })));
        assert_eq!(take(&mut checker, 1, &body(0, 32)), Ok(Taken::Chunk));
        assert_eq!(checker.flowing(), 1);
    }

    #[test]
    fn a_notice_uses_up_no_index_and_carries_no_key() {
        let mut checker = Checker::new(32);
        let notice = body(0, 0).strip_prefix(b"{\"status\":0").unwrap().to_vec();
        let notice = [b"{\"status\":2".as_slice(), &notice].concat();
        assert_eq!(take(&mut checker, 0, &notice), Ok(Taken::Notice));
        assert_eq!(take(&mut checker, 0, &body(0, 32)), Ok(Taken::Chunk));
        let mut with_key = body(1, 32);
        with_key[10] = b'2';
        assert!(take(&mut checker, 0, &with_key).is_err());
    }

    #[test]
    fn other_key_at_the_other_end_is_found() {
        let last = u32::try_from(MARK_EVERY).unwrap() - 1;
        for changed in [false, true] {
            let mut checker = Checker::new(32);
            for end in 0..2 {
                for index in 0..last {
                    assert_eq!(take(&mut checker, end, &body(index, 32)), Ok(Taken::Chunk));
                }
            }
            assert_eq!(take(&mut checker, 0, &body(last, 32)), Ok(Taken::Chunk));
            let mut other = body(last, 32);
            if changed {
                let at = other.windows(2).rposition(|pair| pair == b"=\"").unwrap() - 2;
                other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            }
            let taken = take(&mut checker, 1, &other);
            assert_eq!(matches!(taken, Err(Fault::Disagreement { .. })), changed, "{taken:?}");
            assert_eq!(checker.agreed(), if changed { 0 } else { MARK_EVERY });
        }
    }

    #[test]
    fn the_index_wraps_and_a_stranger_is_no_stream() {
        let mut checker = Checker::new(32);
        assert_eq!(take(&mut checker, 0, &body(0, 32)), Ok(Taken::Chunk));
        checker.streams[0].ends[0].next = u64::from(u32::MAX);
        assert_eq!(take(&mut checker, 0, &body(u32::MAX, 32)), Ok(Taken::Chunk));
        assert_eq!(take(&mut checker, 0, &body(0, 32)), Ok(Taken::Chunk));
        let text = String::from_utf8(body(0, 32)).unwrap().replace(STREAM, &"x".repeat(36));
        assert!(matches!(take(&mut checker, 0, text.as_bytes()), Err(Fault::Stream(_))));
    }
}

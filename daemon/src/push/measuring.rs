//! A way in for measuring: how a request is written, and how an answer is read.

use super::answer::{AnswerReader, LastHead};
use super::request::Template;
use crate::config::{HostPort, KmsEndpoint};
use crate::interface::KeyStreamId;

/// Writes the requests of one key stream.
#[derive(Debug)]
pub struct Requests {
    template: Template,
    out: Vec<u8>,
}

impl Requests {
    /// For chunks of `chunk_size` octets, to a KMS of this host.
    #[must_use]
    pub fn new(chunk_size: u32) -> Self {
        let endpoint = KmsEndpoint {
            secure: true,
            server: HostPort { host: "localhost".to_owned(), port: 9001 },
            path: "/api/v1/qkd/etsi004/key-material".to_owned(),
            through: None,
        };
        let template = Template::new(&endpoint, KeyStreamId::from_u128(1), chunk_size);
        let out = vec![0; template.longest()];
        Self { template, out }
    }

    /// Writes the request for the chunk at `position`; `None` when `key` is not one chunk.
    pub fn write(&mut self, position: u64, key: &[u8]) -> Option<&[u8]> {
        let octets = self.template.write_key(&mut self.out, position, [key].into_iter())?;
        self.out.get(..octets)
    }
}

/// Reads answers one after the other.
#[derive(Debug)]
pub struct Answers {
    reader: AnswerReader,
    last: LastHead,
}

impl Answers {
    /// Nothing is remembered yet.
    #[must_use]
    pub fn new() -> Self {
        Self { reader: AnswerReader::new(false), last: LastHead::on_its_own() }
    }

    /// Reads answers that are whole; how many accept a chunk. Without `remembers` each head is parsed.
    pub fn read(&mut self, mut octets: &[u8], remembers: bool) -> usize {
        let mut accepted = 0;
        while let Ok((done, Some(answer))) = self.reader.advance(octets, &mut self.last) {
            accepted += usize::from(answer.is_success());
            octets = octets.get(done..).unwrap_or_default();
            if !remembers {
                self.last.forget();
            }
        }
        accepted
    }
}

impl Default for Answers {
    fn default() -> Self {
        Self::new()
    }
}

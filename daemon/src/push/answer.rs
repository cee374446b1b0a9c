//! Reads the KMS's answers, many from one buffer, however they are cut into segments.
//!
//! The head of an answer decides whether the chunk was accepted. A body only has to end; one that is too long, has no
//! end of its own or is framed wrongly costs the connection, not the decision.

use std::mem::MaybeUninit;
use std::time::{Duration, SystemTime};

use super::backoff::retry_after;
use super::excerpt::Excerpt;
use last_head::Known;
pub(super) use last_head::LastHead;

mod last_head;

/// Longest head of an answer, in octets.
pub(super) const LONGEST_HEAD: usize = 16 * 1024;
/// Longest body that is read for the sake of the connection, its framing included, in octets.
const LONGEST_BODY: usize = 64 * 1024;
/// Longest line between the chunks of a chunked body.
const LONGEST_LINE: usize = 1024;
const MOST_FIELDS: usize = 64;
/// Most 1xx answers before the final one.
const MOST_INTERIM: u8 = 16;

/// An answer that is no HTTP, or goes beyond what is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// Not the head of an HTTP/1.x answer.
    #[error("not an HTTP/1.x answer: {0}")]
    Head(httparse::Error),
    /// The head does not end.
    #[error("its head is longer than {LONGEST_HEAD} octets")]
    HeadTooLong,
    /// No status from 100 on.
    #[error("{0} is no HTTP status")]
    Status(u16),
    /// It changes to another protocol, which nobody asked for.
    #[error("it switches protocols")]
    SwitchingProtocols,
    /// Only interim answers.
    #[error("more than {MOST_INTERIM} interim answers came before the final one")]
    TooManyInterim,
    /// The length of the body is contradictory or no number.
    #[error("its Content-Length is contradictory or no number")]
    ContentLength,
    /// There is nothing that it answers.
    #[error("it answers no request")]
    Unasked,
}

/// A final answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The connection cannot be used any more.
    pub(super) close: bool,
    pub(super) retry_after: Option<Duration>,
    /// Empty when the status is 2xx.
    pub(super) excerpt: String,
}

impl Answer {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Where in an answer the next octet belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Head,
    Body { left: usize },
    ChunkSize,
    Chunk { left: usize },
    ChunkEnd,
    Trailer,
}

/// Reads one answer after the other.
#[derive(Debug)]
pub(super) struct AnswerReader {
    place: Place,
    /// The answer whose body is being read.
    answer: Option<Answer>,
    excerpt: Option<Excerpt>,
    excerpts: bool,
    body: usize,
    interim: u8,
}

impl AnswerReader {
    /// `excerpts`: whether answers other than 2xx get one.
    pub(super) fn new(excerpts: bool) -> Self {
        Self { place: Place::Head, answer: None, excerpt: None, excerpts, body: 0, interim: 0 }
    }

    /// Reads on in `octets`, which begin where the last call stopped. Gives how many octets are done with, and an
    /// answer when one is complete. Neither: more octets are needed behind these.
    ///
    /// # Errors
    /// See [`AnswerError`]; the connection is of no use then.
    pub(super) fn advance(
        &mut self,
        octets: &[u8],
        last: &mut LastHead,
    ) -> Result<(usize, Option<Answer>), AnswerError> {
        let mut done = 0;
        loop {
            let rest = octets.get(done..).unwrap_or_default();
            if rest.is_empty() {
                return Ok((done, None));
            }
            let step = match self.place {
                Place::Head => match last.begins(rest) {
                    Some(known) => self.read_known_head(known),
                    None => self.read_head(rest, last)?,
                },
                _ => self.read_body(rest),
            };
            match step {
                Step::More => return Ok((done, None)),
                Step::On(length) => done += length,
                Step::End(length) => return Ok((done + length, self.finish(false))),
                // Nothing of what follows can be told apart any more.
                Step::Lost => return Ok((octets.len(), self.finish(true))),
            }
        }
    }

    /// The answer whose head was read but whose body will never end.
    pub(super) fn cut_short(&mut self) -> Option<Answer> {
        self.finish(true)
    }

    fn finish(&mut self, lost: bool) -> Option<Answer> {
        self.place = Place::Head;
        self.interim = 0;
        self.body = 0;
        let excerpt = self.excerpt.take();
        let mut answer = self.answer.take()?;
        answer.close |= lost;
        if let Some(excerpt) = excerpt {
            answer.excerpt = excerpt.finish();
        }
        Some(answer)
    }

    fn read_known_head(&mut self, known: Known) -> Step {
        self.excerpt = None;
        let status = known.status;
        self.answer = Some(Answer { status, close: false, retry_after: None, excerpt: String::new() });
        self.begin_body(known)
    }

    /// A head has ended whose body has a length that is taken.
    fn begin_body(&mut self, Known { length, body, .. }: Known) -> Step {
        if body == 0 {
            return Step::End(length);
        }
        self.place = Place::Body { left: body };
        Step::On(length)
    }

    fn read_head(&mut self, octets: &[u8], last: &mut LastHead) -> Result<Step, AnswerError> {
        let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
        let mut head = httparse::Response::new(&mut []);
        let within = octets.get(..LONGEST_HEAD).unwrap_or(octets);
        let parsed = httparse::ParserConfig::default()
            .parse_response_with_uninit_headers(&mut head, within, &mut fields)
            .map_err(AnswerError::Head)?;
        let httparse::Status::Complete(head_length) = parsed else {
            return if octets.len() >= LONGEST_HEAD { Err(AnswerError::HeadTooLong) } else { Ok(Step::More) };
        };
        let status = head.code.unwrap_or_default();
        match status {
            101 => return Err(AnswerError::SwitchingProtocols),
            100..200 => {
                self.interim += 1;
                return if self.interim > MOST_INTERIM {
                    Err(AnswerError::TooManyInterim)
                } else {
                    Ok(Step::On(head_length))
                };
            }
            0..100 => return Err(AnswerError::Status(status)),
            _ => {}
        }
        let fields = Fields::read(head.headers)?;
        let old = head.version == Some(0);
        let answer = Answer {
            status,
            close: fields.close || (old && !fields.keep_alive),
            retry_after: fields.retry_after,
            excerpt: String::new(),
        };
        self.excerpt = (self.excerpts && !answer.is_success()).then(Excerpt::default);
        let answer = self.answer.insert(answer);
        // RFC 9112, 6.3.
        let body = match (status, fields.coding, fields.content_length) {
            (204 | 304, _, _) => 0,
            (_, Coding::None, Some(body)) if body <= LONGEST_BODY => body,
            (_, Coding::Chunked, length) => {
                answer.close |= length.is_some() || old;
                self.place = Place::ChunkSize;
                return Ok(Step::On(head_length));
            }
            // Too long, or until the connection closes: what came along is looked at, and the rest not waited for.
            _ => {
                self.place = Place::Body { left: usize::MAX };
                self.collect(octets.get(head_length..).unwrap_or_default());
                return Ok(Step::Lost);
            }
        };
        let known = Known { length: head_length, status, body };
        if answer.is_success()
            && !answer.close
            && answer.retry_after.is_none()
            && let Some(head) = octets.get(..head_length)
        {
            last.remember(head, known);
        }
        Ok(self.begin_body(known))
    }

    fn read_body(&mut self, octets: &[u8]) -> Step {
        let step = match self.place {
            Place::Head => Step::Lost,
            Place::Body { left } => {
                let here = self.collect_up_to(octets, left);
                self.place = Place::Body { left: left - here };
                if here == left { Step::End(here) } else { Step::On(here) }
            }
            Place::ChunkSize => match httparse::parse_chunk_size(octets) {
                Ok(httparse::Status::Complete((length, size))) => {
                    let size = usize::try_from(size).unwrap_or(usize::MAX);
                    self.place = if size == 0 { Place::Trailer } else { Place::Chunk { left: size } };
                    Step::On(length)
                }
                Ok(httparse::Status::Partial) if octets.len() < LONGEST_LINE => Step::More,
                _ => Step::Lost,
            },
            Place::Chunk { left } => {
                let here = self.collect_up_to(octets, left);
                self.place = if here == left { Place::ChunkEnd } else { Place::Chunk { left: left - here } };
                Step::On(here)
            }
            Place::ChunkEnd => match octets {
                [b'\r', b'\n', ..] => {
                    self.place = Place::ChunkSize;
                    Step::On(2)
                }
                [b'\r'] => Step::More,
                _ => Step::Lost,
            },
            Place::Trailer => match octets.iter().position(|octet| *octet == b'\n') {
                Some(end @ 0..=1) => Step::End(end + 1),
                Some(end) => Step::On(end + 1),
                None if octets.len() < LONGEST_LINE => Step::More,
                None => Step::Lost,
            },
        };
        if let Step::On(length) | Step::End(length) = step {
            self.body = self.body.saturating_add(length);
            if self.body > LONGEST_BODY {
                return Step::Lost;
            }
        }
        step
    }

    /// Takes up to `most` octets of content; gives how many.
    fn collect_up_to(&mut self, octets: &[u8], most: usize) -> usize {
        let content = octets.get(..most).unwrap_or(octets);
        self.collect(content);
        content.len()
    }

    fn collect(&mut self, octets: &[u8]) {
        if let Some(excerpt) = &mut self.excerpt {
            excerpt.take(octets);
        }
    }
}

enum Step {
    /// More octets are needed.
    More,
    /// So many octets are done with.
    On(usize),
    /// So many octets are done with, and the answer is complete.
    End(usize),
    /// The answer's end cannot be found.
    Lost,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Coding {
    None,
    Chunked,
    /// Ends with the connection.
    Other,
}

/// The fields of a head that matter.
struct Fields {
    content_length: Option<usize>,
    coding: Coding,
    close: bool,
    keep_alive: bool,
    retry_after: Option<Duration>,
}

impl Fields {
    fn read(fields: &[httparse::Header<'_>]) -> Result<Self, AnswerError> {
        let mut read = Self {
            content_length: None,
            coding: Coding::None,
            close: false,
            keep_alive: false,
            retry_after: None,
        };
        for field in fields {
            let is = |name: &str| field.name.eq_ignore_ascii_case(name);
            // Most fields are of no interest, and their length tells.
            match field.name.len() {
                14 if is("content-length") => {
                    let length = content_length(field.value)?;
                    if read.content_length.replace(length).is_some_and(|old| old != length) {
                        return Err(AnswerError::ContentLength);
                    }
                }
                17 if is("transfer-encoding") => {
                    let last = tokens(field.value).last().unwrap_or_default();
                    let chunked = last.eq_ignore_ascii_case(b"chunked");
                    read.coding = if chunked { Coding::Chunked } else { Coding::Other };
                }
                10 if is("connection") => {
                    for token in tokens(field.value) {
                        read.close |= token.eq_ignore_ascii_case(b"close");
                        read.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                    }
                }
                11 if is("retry-after") => read.retry_after = retry_after(field.value, SystemTime::now()),
                _ => {}
            }
        }
        Ok(read)
    }
}

fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|octet| *octet == b',').map(<[u8]>::trim_ascii)
}

/// Reads Content-Length, also as a list of equal numbers (RFC 9112, 6.3).
fn content_length(value: &[u8]) -> Result<usize, AnswerError> {
    let mut length = None;
    for token in tokens(value) {
        if token.is_empty() || !token.iter().all(u8::is_ascii_digit) {
            return Err(AnswerError::ContentLength);
        }
        let number = token.iter().fold(0_usize, |number, digit| {
            number.saturating_mul(10).saturating_add(usize::from(digit - b'0'))
        });
        if length.replace(number).is_some_and(|old| old != number) {
            return Err(AnswerError::ContentLength);
        }
    }
    length.ok_or(AnswerError::ContentLength)
}

#[cfg(test)]
mod tests;

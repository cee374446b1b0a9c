//! A way in for fuzzing: a KMS's answers, in any segments.

use super::answer::{AnswerReader, LONGEST_HEAD, LastHead};

/// What was read of a KMS's octets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Status of each answer, and whether the connection is of no use after it; none follows one that says so.
    pub answers: Vec<(u16, bool)>,
    /// The connection ended with an error.
    pub error: Option<String>,
}

/// Reads what comes in `segments` as a connection's task does.
///
/// # Panics
/// When the reader breaks its word: it passes over octets that are not there, or asks for more and more.
#[must_use]
pub fn read<'a>(segments: impl IntoIterator<Item = &'a [u8]>) -> Read {
    let (mut reader, mut last) = (AnswerReader::new(true), LastHead::on_its_own());
    let (mut kept, mut all): (Vec<u8>, _) = (Vec::new(), Read::default());
    for segment in segments {
        kept.extend_from_slice(segment);
        loop {
            match reader.advance(&kept, &mut last) {
                Ok((done, answer)) => {
                    assert!(done <= kept.len(), "{done} of {} octets are done with", kept.len());
                    kept.drain(..done);
                    let Some(answer) = answer else { break };
                    assert!(answer.excerpt.len() <= 1024, "an excerpt of {} octets", answer.excerpt.len());
                    all.answers.push((answer.status, answer.close));
                    if answer.close {
                        return all;
                    }
                }
                Err(error) => {
                    all.error = Some(error.to_string());
                    return all;
                }
            }
        }
        assert!(kept.len() < LONGEST_HEAD, "{} octets are kept and more are wanted", kept.len());
    }
    all
}

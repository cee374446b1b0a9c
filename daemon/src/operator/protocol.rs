//! What an operator's program and the daemon say to each other: one line of JSON each way, then the connection ends.
//!
//! ```text
//! {"version":1,"request":"status"}
//! {"version":1,"answer":"status","module":"A",...}
//! ```
//!
//! The version counts changes that an older end would misunderstand. New requests and new members of answers are none: whoever
//! does not know a request refuses it in words, and members that are not known are passed over.

use serde::{Deserialize, Serialize};

/// Version of the protocol.
pub const VERSION: u32 = 1;
/// Longest line either way, in octets, with its end.
pub const LONGEST_LINE: usize = 4096;

/// What an operator wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// How the module stands.
    Status,
    /// Destroy every key in the daemon's memory and in the card. All key streams end at both ends.
    Zeroize,
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Status),
    /// To [`Request::Zeroize`], only when all of it is proven.
    Zeroized(Zeroized),
    /// The request was not carried out, or not all of it is proven.
    Refused {
        /// Why, and what to do.
        reason: String,
    },
}

/// How the module stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Name of the module.
    pub module: String,
    /// "leader" or "follower".
    pub role: String,
    /// Epoch of the key agreement; 0 for none yet.
    pub epoch: u64,
    /// State of the QKD link.
    pub link: String,
    /// Whether the two modules are in step.
    pub in_step: bool,
    /// Key streams that live.
    pub streams: u64,
    /// Octets of key in the vault, in whole pages.
    pub vault_bytes_used: u64,
}

/// Every key is destroyed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zeroized {
    /// Key streams that were ended.
    pub streams: u64,
    /// Blocks of key that were wiped in the vault. The vault is empty.
    pub blocks: u64,
    /// Zeroizes that the card has counted since power-on, this one included. It retains nothing.
    pub card_count: u32,
}

/// A message with the version of the protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versioned<T> {
    /// [`VERSION`] of whoever wrote it.
    pub version: u32,
    /// The message.
    #[serde(flatten)]
    pub message: T,
}

/// A line that is not understood.
#[derive(Debug, thiserror::Error)]
pub enum BadLine {
    /// It is no message of this protocol.
    #[error("this is no message that is known here: {0}")]
    Unknown(serde_json::Error),
    /// It is of another version.
    #[error(
        "it is of version {found} of the operator's protocol, and version {VERSION} is spoken here: install the same version of qkdd and qkdctl"
    )]
    Version {
        /// Version that it has.
        found: u32,
    },
}

/// Writes a message as a line.
///
/// # Errors
/// When it cannot be written as JSON, which none of these messages brings about.
pub fn line<T: Serialize>(message: T) -> Result<String, serde_json::Error> {
    let mut text = serde_json::to_string(&Versioned { version: VERSION, message })?;
    text.push('\n');
    Ok(text)
}

/// Reads a line.
///
/// # Errors
/// See [`BadLine`].
pub fn parse<'de, T: Deserialize<'de>>(line: &'de [u8]) -> Result<T, BadLine> {
    #[derive(Deserialize)]
    struct OnlyVersion {
        version: u32,
    }
    let OnlyVersion { version } = serde_json::from_slice(line).map_err(BadLine::Unknown)?;
    if version != VERSION {
        return Err(BadLine::Version { found: version });
    }
    serde_json::from_slice::<Versioned<T>>(line).map(|read| read.message).map_err(BadLine::Unknown)
}

#[cfg(test)]
mod tests {
    use super::{Answer, BadLine, Request, Zeroized, line, parse};

    #[test]
    fn lines_are_read_back_and_those_of_another_version_or_kind_are_refused_in_words() {
        assert_eq!(line(Request::Zeroize).unwrap(), "{\"version\":1,\"request\":\"zeroize\"}\n");
        let answer = Answer::Zeroized(Zeroized { streams: 2, blocks: 7, card_count: 1 });
        assert_eq!(parse::<Answer>(line(answer.clone()).unwrap().as_bytes()).unwrap(), answer);
        let later = b"{\"version\":1,\"request\":\"status\",\"detail\":true}";
        assert_eq!(parse::<Request>(later).unwrap(), Request::Status);
        assert!(matches!(
            parse::<Request>(b"{\"version\":2,\"request\":\"anything\"}"),
            Err(BadLine::Version { found: 2 })
        ));
        for bad in ["", "{}", "{\"version\":1}", "{\"version\":1,\"request\":\"reboot\"}", "[1]", "\u{0}"] {
            assert!(matches!(parse::<Request>(bad.as_bytes()), Err(BadLine::Unknown(_))), "{bad}");
        }
    }
}

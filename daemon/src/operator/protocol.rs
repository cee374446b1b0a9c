//! What an operator's program and the daemon say to each other: one line of JSON each way, then the connection ends.
//!
//! ```text
//! {"version":2,"request":"status"}
//! {"version":2,"answer":"status","module":{"name":"A",...},...}
//! ```
//!
//! The version counts changes that an older end would misunderstand. New requests and new members of answers are none: whoever
//! does not know a request refuses it in words, and members that are not known are passed over.

use serde::{Deserialize, Serialize};

use crate::picture::{Event, Picture, Stream};

/// Version of the protocol.
pub const VERSION: u32 = 2;
/// Longest request, in octets, with its end.
pub const LONGEST_REQUEST: usize = 4096;
/// Longest answer, in octets, with its end: as many key streams as there may be, and more.
pub const LONGEST_ANSWER: usize = 128 << 20;

/// What an operator wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// How the module stands.
    Status,
    /// How each key stream stands.
    Streams,
    /// What happened last.
    Events,
    /// When the card's self-test last passed. It cannot be run now: the card takes the command while it is stopped, and no
    /// sooner (CMD-9 of the card contract).
    SelfTest,
    /// Read certificates again, as SIGHUP has it done.
    Reload,
    /// Destroy every key in the daemon's memory and in the card. All key streams end at both ends.
    Zeroize,
}

impl Request {
    /// Whether anything is not as before when it is carried out.
    #[must_use]
    pub fn changes_something(&self) -> bool {
        match self {
            Self::Status | Self::Streams | Self::Events | Self::SelfTest => false,
            Self::Reload | Self::Zeroize => true,
        }
    }
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Box<Picture>),
    /// To [`Request::Streams`].
    Streams(Streams),
    /// To [`Request::Events`].
    Events(Events),
    /// To [`Request::SelfTest`].
    SelfTest(SelfTest),
    /// To [`Request::Reload`].
    Reloaded(Reloaded),
    /// To [`Request::Zeroize`], only when all of it is proven.
    Zeroized(Zeroized),
    /// The request was not carried out, or not all of it is proven.
    Refused {
        /// Why, and what to do.
        reason: String,
    },
}

/// How each key stream stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Streams {
    /// In the order of their IDs.
    pub streams: Vec<Stream>,
}

/// What happened last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Events {
    /// The oldest first.
    pub events: Vec<Event>,
}

/// The card's self-test: a pattern by DMA, and both interrupts. It is run whenever the card is opened or reset, and a card
/// that fails it is not used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SelfTest {
    /// The card's serial number, hexadecimal.
    pub card: String,
    /// When it last passed, in milliseconds since 1970.
    pub passed_unix_ms: u64,
    /// How often it has passed since the daemon started.
    pub passed_times: u64,
}

/// A reload is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Reloaded {
    /// Certificates were read again; false: there is no `[tls]`, so that nothing is read again.
    pub certificates: bool,
}

/// Every key is destroyed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
        assert_eq!(line(Request::Zeroize).unwrap(), "{\"version\":2,\"request\":\"zeroize\"}\n");
        let answer = Answer::Zeroized(Zeroized { streams: 2, blocks: 7, card_count: 1 });
        assert_eq!(parse::<Answer>(line(answer.clone()).unwrap().as_bytes()).unwrap(), answer);
        let later = b"{\"version\":2,\"request\":\"status\",\"detail\":true}";
        assert_eq!(parse::<Request>(later).unwrap(), Request::Status);
        assert!(matches!(
            parse::<Request>(b"{\"version\":3,\"request\":\"anything\"}"),
            Err(BadLine::Version { found: 3 })
        ));
        for bad in ["", "{}", "{\"version\":2}", "{\"version\":2,\"request\":\"reboot\"}", "[2]", "\u{0}"] {
            assert!(matches!(parse::<Request>(bad.as_bytes()), Err(BadLine::Unknown(_))), "{bad}");
        }
    }
}

//! Trouble that a KMS makes on purpose, to show that its module lives with it.

use std::str::FromStr;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

/// How the KMS answers while it makes trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 503 without Retry-After.
    Unavailable,
    /// 429 with `Retry-After: 1`.
    TooMany,
    /// 400, which suspends the stream; afterwards the KMS sends get-key again.
    Refuse,
    /// No answer until the trouble is over.
    Hang,
    /// Half an answer, then the connection is closed.
    CloseMidAnswer,
    /// 201 with a body that is no JSON.
    Garbage,
    /// 201, but 20 ms late each time.
    Slow,
    /// 201, but so late that a module with a short answer deadline has sent the chunk again.
    Late,
    /// 500, although the chunk is safe with the KMS.
    AcceptedThen500,
}

const KINDS: [(&str, Kind); 9] = [
    ("503", Kind::Unavailable),
    ("429", Kind::TooMany),
    ("400", Kind::Refuse),
    ("hang", Kind::Hang),
    ("close-mid-answer", Kind::CloseMidAnswer),
    ("garbage-201", Kind::Garbage),
    ("slow", Kind::Slow),
    ("late", Kind::Late),
    ("accepted-then-500", Kind::AcceptedThen500),
];

impl Kind {
    /// Name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self).map_or("?", |(name, _)| name)
    }

    /// HTTP status that the module gets; 0 where it gets none.
    #[must_use]
    pub const fn http(self) -> u16 {
        match self {
            Self::Unavailable => 503,
            Self::TooMany => 429,
            Self::Refuse => 400,
            Self::Hang | Self::CloseMidAnswer => 0,
            Self::Garbage | Self::Slow | Self::Late => 201,
            Self::AcceptedThen500 => 500,
        }
    }
}

/// One trouble: from `at` after the first chunk on, for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Time from the first chunk.
    pub at: Duration,
    /// How long.
    pub lasts: Duration,
    /// What.
    pub kind: Kind,
}

impl FromStr for Trouble {
    type Err = String;

    /// Reads `at=5s kind=503 for=2s`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (mut at, mut lasts, mut kind) = (None, None, None);
        for part in text.split_whitespace() {
            let (name, value) = part.split_once('=').ok_or_else(|| format!("`{part}` must be name=value"))?;
            match name {
                "at" => at = Some(duration(value)?),
                "for" => lasts = Some(duration(value)?),
                "kind" => {
                    let known = KINDS.iter().find(|(name, _)| *name == value);
                    kind = Some(known.map(|(_, kind)| *kind).ok_or_else(|| {
                        let names: Vec<_> = KINDS.iter().map(|(name, _)| *name).collect();
                        format!("kind `{value}` is none of {}", names.join(", "))
                    })?);
                }
                _ => return Err(format!("`{name}` is none of at, kind, for")),
            }
        }
        let missing = |what: &str| format!("{what}=… is missing: at=5s kind=503 for=2s");
        Ok(Self {
            at: at.ok_or_else(|| missing("at"))?,
            lasts: lasts.ok_or_else(|| missing("for"))?,
            kind: kind.ok_or_else(|| missing("kind"))?,
        })
    }
}

/// Reads `250ms`, `5s`, `2.5s` or `10m`.
///
/// # Errors
/// A sentence that says what it must be.
pub fn duration(text: &str) -> Result<Duration, String> {
    crate::plan::duration(text).map(Duration::from_micros).map_err(|_| {
        format!("`{text}` is no duration: write a number and ms, s, m or h, such as 250ms or 5s")
    })
}

/// The troubles of a run.
#[derive(Debug, Default)]
pub(super) struct Plan(RwLock<Vec<Trouble>>);

impl Plan {
    pub(super) fn new(troubles: Vec<Trouble>) -> Self {
        Self(RwLock::new(troubles))
    }

    /// Adds one.
    pub(super) fn add(&self, trouble: Trouble) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(trouble);
    }

    /// The trouble that is on at `since` after the first chunk: the one planned first if there are several.
    pub(super) fn at(&self, since: Duration) -> Option<Trouble> {
        let troubles = self.0.read().unwrap_or_else(PoisonError::into_inner);
        troubles.iter().copied().find(|trouble| since >= trouble.at && since < trouble.at + trouble.lasts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_out_of_its_time_is_caught() {
        let plan = Plan::new(vec!["at=5s kind=503 for=1500ms".parse().expect("reads")]);
        let at = |ms| plan.at(Duration::from_millis(ms)).map(|trouble| trouble.kind);
        assert_eq!(
            [at(0), at(4999), at(5000), at(6499), at(6500)],
            [None, None, Some(Kind::Unavailable), Some(Kind::Unavailable), None]
        );
    }

    #[test]
    fn wrong_troubles_are_refused_in_words() {
        for wrong in [
            "",
            "at=5s kind=503",
            "at=5 kind=503 for=2s",
            "at=-5s kind=503 for=2s",
            "at=5s kind=777 for=2s",
            "x",
        ] {
            assert!(wrong.parse::<Trouble>().is_err(), "{wrong}");
        }
        for wrong in ["nan s", "NaNs", "infs", "1e300m", "s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        let why = "at=5s kind=777 for=2s".parse::<Trouble>().expect_err("refused");
        assert!(why.contains("close-mid-answer"), "{why}");
    }

    #[test]
    fn every_kind_is_read_back_from_its_name() {
        for (name, kind) in KINDS {
            assert_eq!(format!("at=0s kind={name} for=1s").parse::<Trouble>().expect("reads").kind, kind);
            assert_eq!(kind.name(), name);
        }
    }
}

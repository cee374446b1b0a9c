//! Faults as text: `at=3s end=b kind=lose-block count=1 for=2s`, or a TOML file of `[[fault]]` tables.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::ValueEnum;
use serde::{Deserialize, Deserializer};

use super::{FAULTS_MAX, Fault, Kind, Where};

/// A fault that cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum BadFault {
    /// A word is not `name=value`.
    #[error("fault: {0:?} is not name=value; write for example \"at=3s end=b kind=lose-block count=1\"")]
    NotAPair(String),
    /// A name or a value is unknown.
    #[error("fault: {0:?} is unknown; the names are at, end, kind, count and for, the kinds stand in --help")]
    Unknown(String),
    /// `at` or `kind` is missing.
    #[error("fault: {0} is missing; write for example \"at=3s end=b kind=lose-block count=1\"")]
    Missing(&'static str),
    /// A duration is not a number with a unit.
    #[error("fault: {0:?} is no duration; write a number and us, ms, s, m or h, for example 3s")]
    Duration(String),
    /// The plan file cannot be read.
    #[error("plan {path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: String,
    },
}

/// A fault as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultText {
    /// When, since the pair began.
    #[serde(deserialize_with = "duration_field")]
    at: u64,
    #[serde(default = "both")]
    end: Where,
    kind: Kind,
    #[serde(default = "once")]
    count: u32,
    #[serde(default = "one_second", rename = "for", deserialize_with = "duration_field")]
    lasts: u64,
}

const fn both() -> Where {
    Where::Both
}

const fn once() -> u32 {
    1
}

const fn one_second() -> u64 {
    1_000_000
}

impl From<FaultText> for Fault {
    fn from(text: FaultText) -> Self {
        Self { at: text.at, end: text.end, deed: text.kind.deed(text.count, text.lasts) }
    }
}

impl FromStr for FaultText {
    type Err = BadFault;

    fn from_str(text: &str) -> Result<Self, BadFault> {
        Self::read(text, None)
    }
}

impl FaultText {
    /// Reads a fault whose `at` counts from now on and may be left out.
    ///
    /// # Errors
    /// [`BadFault`] with the word that is wrong.
    pub(crate) fn from_now(text: &str) -> Result<Self, BadFault> {
        Self::read(text, Some(0))
    }

    fn read(text: &str, mut at: Option<u64>) -> Result<Self, BadFault> {
        let mut kind = None;
        let (mut end, mut count, mut lasts) = (both(), once(), one_second());
        for word in text.split_whitespace() {
            let (name, value) = word.split_once('=').ok_or_else(|| BadFault::NotAPair(word.into()))?;
            let unknown = || BadFault::Unknown(word.into());
            match name {
                "at" => at = Some(duration(value)?),
                "for" => lasts = duration(value)?,
                "end" => end = Where::from_str(value, false).map_err(|_| unknown())?,
                "kind" => kind = Some(Kind::from_str(value, false).map_err(|_| unknown())?),
                "count" => count = value.parse().map_err(|_| unknown())?,
                _ => return Err(unknown()),
            }
        }
        let at = at.ok_or(BadFault::Missing("at"))?;
        let kind = kind.ok_or(BadFault::Missing("kind"))?;
        Ok(Self { at, end, kind, count, lasts })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanFile {
    #[serde(default)]
    fault: Vec<FaultText>,
}

/// Reads the faults of a plan file.
///
/// # Errors
/// [`BadFault::File`] with the line that is wrong, or why the file cannot be read.
pub fn read_plan(path: &Path) -> Result<Vec<Fault>, BadFault> {
    let failed = |error: String| BadFault::File { path: path.into(), error };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let plan: PlanFile = toml::from_str(&text).map_err(|error| failed(error.to_string()))?;
    if plan.fault.len() > FAULTS_MAX {
        return Err(failed(format!("{} faults; at most {FAULTS_MAX}", plan.fault.len())));
    }
    Ok(plan.fault.into_iter().map(Fault::from).collect())
}

/// A duration in microseconds: a whole or decimal number with a unit.
pub(crate) fn duration(text: &str) -> Result<u64, BadFault> {
    let bad = || BadFault::Duration(text.into());
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(bad)?;
    let (number, unit) = text.split_at(unit_at);
    let unit_us = match unit {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" => 60e6,
        "h" => 3600e6,
        _ => return Err(bad()),
    };
    let micros = number.parse::<f64>().map_err(|_| bad())? * unit_us;
    if !(0.0..=1e15).contains(&micros) {
        return Err(bad());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 0 to 1e15")]
    Ok(micros as u64)
}

fn duration_field<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    duration(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

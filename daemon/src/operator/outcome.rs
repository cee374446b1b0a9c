//! What came of a command of `qkdctl`: the daemon's answer, or what the program found out itself. With `-o json` it is printed
//! in the form that docs/schema/qkdctl.json describes, one line each.

use serde::{Deserialize, Serialize};

use super::protocol::Answer;
use crate::picture::State;

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Outcome {
    /// The daemon has answered.
    Daemon(Answer),
    /// The program itself knows.
    Own(Own),
}

/// What needs no daemon, or told that there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Own {
    /// The daemon cannot be asked.
    NotRunning {
        /// Why.
        reason: String,
    },
    /// The audit record is whole.
    AuditWhole {
        /// Number of its first line.
        first: u64,
        /// Number of its last line.
        last: u64,
        /// Number and hash of its last line.
        head: String,
        /// The end was held against the record's own head, so that no line is missing there.
        to_the_end: bool,
    },
    /// The audit record was changed, or cannot be read.
    AuditBroken {
        /// What is wrong, and where.
        reason: String,
    },
    /// A card was given to vfio-pci, or taken from it.
    Slot {
        /// Address of its slot.
        address: String,
        /// It is with vfio-pci now.
        bound: bool,
        /// What was done.
        text: String,
    },
    /// A card was left where it is.
    SlotRefused {
        /// Address of its slot.
        address: String,
        /// Why, and what to do.
        reason: String,
    },
}

impl Outcome {
    /// 0 as asked, and delivering or ready; 1 refused, wrong or not proven; 3 the daemon cannot be asked; 4 degraded.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Daemon(Answer::Status(picture)) => match picture.health.state {
                State::Delivering | State::Ready => 0,
                State::Degraded => 4,
            },
            Self::Daemon(
                Answer::Streams(_)
                | Answer::Events(_)
                | Answer::SelfTest(_)
                | Answer::Reloaded(_)
                | Answer::Zeroized(_),
            )
            | Self::Own(Own::AuditWhole { .. } | Own::Slot { .. }) => 0,
            Self::Daemon(Answer::Refused { .. })
            | Self::Own(Own::AuditBroken { .. } | Own::SlotRefused { .. }) => 1,
            Self::Own(Own::NotRunning { .. }) => 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Outcome, Own};
    use crate::operator::protocol::{Answer, Events, Reloaded, SelfTest, Streams, Versioned, Zeroized};
    use crate::picture::{Health, State, example};

    /// The schema is generated from the types: `QKD_UPDATE_SCHEMA=1 cargo test -p qkd-daemon --lib schema` writes it.
    #[test]
    fn the_published_schema_is_that_of_the_types() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema/qkdctl.json");
        let generated = schemars::schema_for!(Versioned<Outcome>);
        let text = serde_json::to_string_pretty(&generated).unwrap() + "\n";
        if std::env::var_os("QKD_UPDATE_SCHEMA").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(committed, text, "docs/schema/qkdctl.json is old: run this test with QKD_UPDATE_SCHEMA=1");
    }

    #[test]
    fn exit_codes_are_those_that_the_manual_promises() {
        let status = |state| {
            let health = Health { state, reasons: Vec::new() };
            Outcome::Daemon(Answer::Status(Box::new(crate::picture::Picture { health, ..example() })))
                .exit_code()
        };
        assert_eq!(
            [State::Delivering, State::Ready, State::Degraded].map(status),
            [0, 0, 4],
            "delivering, ready, degraded"
        );
        let none = || "x".to_owned();
        for good in [
            Answer::Streams(Streams { streams: Vec::new() }),
            Answer::Events(Events { events: Vec::new() }),
            Answer::SelfTest(SelfTest { card: none(), passed_unix_ms: 0, passed_times: 1 }),
            Answer::Reloaded(Reloaded { certificates: false }),
            Answer::Zeroized(Zeroized::default()),
        ] {
            assert_eq!(Outcome::Daemon(good.clone()).exit_code(), 0, "{good:?}");
        }
        assert_eq!(Outcome::Daemon(Answer::Refused { reason: none() }).exit_code(), 1);
        for (own, code) in [
            (Own::NotRunning { reason: none() }, 3),
            (Own::AuditWhole { first: 1, last: 1, head: none(), to_the_end: true }, 0),
            (Own::AuditBroken { reason: none() }, 1),
            (Own::Slot { address: none(), bound: true, text: none() }, 0),
            (Own::SlotRefused { address: none(), reason: none() }, 1),
        ] {
            assert_eq!(Outcome::Own(own.clone()).exit_code(), code, "{own:?}");
        }
    }
}

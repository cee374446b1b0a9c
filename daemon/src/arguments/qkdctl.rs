//! The command line of `qkdctl`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

/// Asks a QKD module how it stands, and steers it.
///
/// Exit codes: 0 done, and for status: delivering, or ready with no key stream open; 1 refused, wrong or not proven; 2 command
/// line; 3 the daemon is not running or cannot be reached; 4 degraded, with the reasons in words.
#[derive(Debug, Parser)]
#[command(name = "qkdctl", version, verbatim_doc_comment)]
pub struct Args {
    /// The daemon's socket: operator.socket of its configuration, or /run/qkd/INSTANCE/qkdd.ctl under systemd. Without it, the
    /// one daemon of this host is meant.
    #[arg(long, value_name = "PATH", global = true)]
    pub socket: Option<PathBuf>,
    /// Form of what is printed; that of json is described by docs/schema/qkdctl.json, one line for each answer.
    #[arg(short, long, value_enum, default_value = "text", global = true)]
    pub output: Form,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Form of what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Whether key flows, and why not. It is delivering when the QKD link distils, the other module is in step, and the KMS of
    /// every open key stream takes key; with no stream open it is ready, which is as good.
    Status,
    /// How each key stream stands.
    Streams,
    /// What happened last; docs/messages.md tells what each message means.
    Events,
    /// Shows rate, QBER, pool and lag as they change; on a terminal with a line of their course, otherwise one line each time.
    Watch {
        /// Ends after so many looks; for ever without it.
        #[arg(long, value_name = "N")]
        count: Option<u64>,
        /// Ends after one look.
        #[arg(long, conflicts_with = "count")]
        once: bool,
        /// Seconds between two looks.
        #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
        every: Duration,
    },
    /// Has certificates read again, as SIGHUP does, and says whether they were taken.
    Reload,
    /// When the card's self-test last passed. The card takes it only while it is stopped, so that it is run whenever the daemon
    /// starts or resets the card, and not by this command.
    SelfTest,
    /// Gives a QKD card to vfio-pci, unless udev's rules for QKD cards would not.
    Bind {
        /// Address of the card's slot, such as 0000:01:00.0.
        address: String,
    },
    /// Takes a QKD card that nobody uses from vfio-pci.
    Unbind {
        /// Address of the card's slot, such as 0000:01:00.0.
        address: String,
    },
    /// Destroys every key in the daemon's memory and in the card, and says so only when both have proven it. All key streams end
    /// at both ends.
    Zeroize,
    /// The audit record.
    #[command(subcommand)]
    Audit(Audit),
    /// Finds out whether a KMS or a QKD module speaks the interface: one line for each clause.
    Conform(Box<crate::conform::Args>),
    /// Looks at all that a module needs on this host, and says what is wrong and how to mend it.
    Doctor(Box<crate::doctor::Args>),
}

/// What to do with an audit record.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Verifies a record: that no line was changed, removed, inserted or moved, and that its end was not cut off.
    Verify {
        /// Directory of the record, or one file of it, of which only the lines can be held against each other.
        path: PathBuf,
    },
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "it is no number of seconds".to_owned())?;
    if (0.05..=86_400.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("it is not from 0.05 to 86400 seconds".to_owned())
    }
}

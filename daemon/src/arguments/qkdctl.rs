//! The command line of `qkdctl`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Operates a QKD module.
///
/// Exit codes: 0 done and proven, 1 not done or not proven, 2 command line, 3 the daemon cannot be reached.
#[derive(Debug, Parser)]
#[command(name = "qkdctl", version, verbatim_doc_comment)]
pub struct Args {
    /// The daemon's socket: operator.socket of its configuration, or /run/qkd/INSTANCE/qkdd.ctl under systemd.
    #[arg(long, value_name = "PATH", global = true)]
    pub socket: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// How the module stands.
    Status,
    /// Destroys every key in the daemon's memory and in the card, and says so only when both have proven it. All key streams end
    /// at both ends.
    Zeroize,
    /// The audit record.
    #[command(subcommand)]
    Audit(Audit),
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

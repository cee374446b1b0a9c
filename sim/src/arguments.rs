//! The command line of `qkd-sim`. It stands in the library so that man pages and shell completions are made from it.

use clap::{Parser, Subcommand};

use crate::{check, demo, endurance, kms, lab, pair};

/// QKD cards, their link and a reference KMS in software.
#[derive(Debug, Parser)]
#[command(name = "qkd-sim", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve two simulated QKD cards, the two ends of one link, on two vfio-user sockets.
    Pair(pair::Args),
    /// Be a reference KMS: open or join a key stream, receive its key and record a history.
    Kms(Box<kms::Args>),
    /// Judge the histories of two KMSs against each other.
    Check(check::Args),
    /// Make certificates for a laboratory: an authority, both modules and both KMSs.
    LabCertificates(lab::Args),
    /// Show the whole system on this machine: pair, two daemons, two KMSs.
    Demo(demo::Args),
    /// Kill, stop, cut and slow the whole system at random, and judge what its KMSs got.
    Endurance(endurance::Args),
}

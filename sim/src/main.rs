//! `qkd-sim`: simulated QKD cards, a reference KMS, the checker and the demonstration.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use qkd_sim::{check, demo, endurance, kms, lab, pair};

#[derive(Debug, Parser)]
#[command(name = "qkd-sim", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
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

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info,actix_server=warn"))
        .init();
    match Cli::parse().command {
        Command::Pair(args) => pair::run(args),
        Command::Kms(args) => kms::run(*args),
        Command::Check(args) => check::run(args),
        Command::LabCertificates(args) => lab::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Endurance(args) => endurance::run(args),
    }
}

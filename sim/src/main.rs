//! `qkd-sim`: simulated QKD cards, a reference KMS, the checker and the demonstration.

use std::process::ExitCode;

use clap::Parser;
use qkd_sim::arguments::{Cli, Command};
use qkd_sim::{check, demo, endurance, kms, lab, pair};

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

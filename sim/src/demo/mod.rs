//! The whole system on one machine.

use std::process::ExitCode;

/// Arguments of the subcommand.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the subcommand.
pub fn run(_: Args) -> ExitCode {
    ExitCode::FAILURE
}

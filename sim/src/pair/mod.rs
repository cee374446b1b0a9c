//! `qkd-sim pair`: two cards, the ends of one link, on two vfio-user sockets.

mod faults_from;
mod options;
mod printer;
mod run;
mod state_file;
mod status;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

pub use options::{Args, KeyKind};

/// Runs the subcommand until SIGTERM or SIGINT.
pub fn run(args: Args) -> ExitCode {
    match run::serve(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The explanation of faults in `qkd-sim pair --help`.
#[cfg(test)]
pub(crate) const fn fault_help() -> &'static str {
    options::FAULT_HELP
}

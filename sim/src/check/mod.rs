//! The judge of two histories: do two KMSs have the same keys, each used once, in order, and with consent?

mod course;
mod inputs;
mod judge;
mod matching;
mod reuse;
mod verdict;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::process::ExitCode;

pub use inputs::{CheckError, CountedLosses, judge, read_counted};
pub use verdict::{Finding, Outcome, Row, Verdict};

const EXIT_CODES: &str = "\
Exit codes: 0 the histories agree, 1 an invariant is broken, 2 command line, 3 nothing is broken but too little is there
to judge (an empty history, nothing in common, lines lost), 4 a history cannot be read, or the two do not belong together.";

/// Arguments of the subcommand.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub struct Args {
    /// History of one KMS.
    a: PathBuf,
    /// History of the other KMS, on the same host or with its clock in step to the millisecond.
    b: PathBuf,
    /// Losses that the modules have counted: lines of {"stream": UUID, "first": N, "count": N}. Gaps within them are
    /// excused, as are gaps that a notice told of.
    #[arg(long, value_name = "FILE")]
    counted: Option<PathBuf>,
    /// Say it as one line of JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
pub fn run(args: Args) -> ExitCode {
    let counted = args.counted.as_deref().map_or_else(|| Ok(CountedLosses::default()), read_counted);
    match counted.and_then(|counted| judge(&args.a, &args.b, counted)) {
        Ok(verdict) => {
            if args.json {
                match serde_json::to_string(&verdict) {
                    Ok(line) => println!("{line}"),
                    Err(error) => log::error!("cannot say the verdict as JSON: {error}"),
                }
            } else {
                print!("{}", verdict.text());
            }
            ExitCode::from(code(verdict.outcome))
        }
        // A history without a line is no fault of the file's: nothing came.
        Err(CheckError::Read(error @ crate::history::read::ReadError::Empty { .. })) => {
            log::error!("{error}");
            ExitCode::from(code(Outcome::NotProven))
        }
        Err(error) => {
            log::error!("{error}");
            ExitCode::from(4)
        }
    }
}

const fn code(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Agree => 0,
        Outcome::Violated => 1,
        Outcome::NotProven => 3,
    }
}

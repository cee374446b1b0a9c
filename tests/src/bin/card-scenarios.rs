//! Plays the card scenarios on one card: `PASS name` and `FAIL name: why` on standard output, and the count at the end.
//!
//! A fault is asked for by a line `HOST fault …` on standard output and answered by a line on standard input.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use qkd_driver::CardOptions;
use qkd_driver::backing::vfio::{PciAddress, Vfio};
use qkd_driver::backing::vfio_user::VfioUser;
use qkd_driver::backing::{Backing, BackingError};
use qkd_tests::scenarios::{Faults, NAMES, Stage, all};

/// Longest answer of a card's server, and so the wait of a second owner.
const ANSWER: Duration = Duration::from_secs(3);

/// Plays the card scenarios on a simulated card that delivers positional test key.
#[derive(Debug, Parser)]
struct Args {
    /// Only print the names, one on each line.
    #[arg(long)]
    list: bool,
    /// The card in this PCI slot, through the kernel's VFIO.
    #[arg(long, value_name = "ADDRESS", required_unless_present_any = ["list", "socket"])]
    pci: Option<PciAddress>,
    /// The card behind this vfio-user socket.
    #[arg(long, value_name = "PATH", conflicts_with = "pci")]
    socket: Option<PathBuf>,
    /// Plays only scenarios whose name has this in it.
    #[arg(long, value_name = "PART", default_value = "")]
    only: String,
}

/// Asks whoever reads standard output.
struct Host;

impl Faults for Host {
    fn strike(&mut self, words: &str) -> Result<(), String> {
        say(&format!("HOST fault {words}"))?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer).map_err(|error| error.to_string())?;
        if answer.starts_with("HOST done") {
            Ok(())
        } else {
            Err(format!("the fault {words:?} was not struck: {:?}", answer.trim_end()))
        }
    }
}

fn say(line: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    let args = Args::parse();
    env_logger::init();
    if args.list {
        return match NAMES.iter().try_for_each(|name| say(name)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    let played = match (&args.pci, &args.socket) {
        (Some(address), _) => play(&|| Vfio::open(*address, CardOptions::default().pci), &args.only),
        (None, Some(socket)) => play(&|| VfioUser::connect(socket, ANSWER), &args.only),
        (None, None) => Err("neither --pci nor --socket was given".to_owned()),
    };
    match played {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("card-scenarios: {error}");
            ExitCode::from(2)
        }
    }
}

/// Plays the scenarios and tells how many failed; none played is an error.
fn play<B: Backing>(reach: &dyn Fn() -> Result<B, BackingError>, only: &str) -> Result<usize, String> {
    let (mut passed, mut failed) = (0, 0);
    for scenario in all::<B>().iter().filter(|scenario| scenario.name.contains(only)) {
        let outcome = (scenario.play)(&mut Stage { reach, faults: &mut Host });
        match outcome {
            Ok(()) => {
                passed += 1;
                say(&format!("PASS {}", scenario.name))?;
            }
            Err(why) => {
                failed += 1;
                say(&format!("FAIL {}: {}", scenario.name, why.replace('\n', " ")))?;
            }
        }
    }
    say(&format!("{passed} passed, {failed} failed"))?;
    if passed + failed == 0 { Err(format!("no scenario has {only:?} in its name")) } else { Ok(failed) }
}

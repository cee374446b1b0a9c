//! `qkdctl`: the operator's tool of a QKD module.

mod ask;
mod record;
mod show;
mod slot;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use qkd_daemon::operator::outcome::Outcome;
use qkd_daemon::operator::protocol::Request;

use self::ask::Daemon;

/// Asks a QKD module how it stands, and steers it.
///
/// Exit codes: 0 done, and for status: delivering, or ready with no key stream open; 1 refused, wrong or not proven; 2 command
/// line; 3 the daemon is not running or cannot be reached; 4 degraded, with the reasons in words.
#[derive(Debug, Parser)]
#[command(version, verbatim_doc_comment)]
struct Args {
    /// The daemon's socket: operator.socket of its configuration, or /run/qkd/INSTANCE/qkdd.ctl under systemd. Without it, the
    /// one daemon of this host is meant.
    #[arg(long, value_name = "PATH", global = true)]
    socket: Option<PathBuf>,
    /// Form of what is printed; that of json is described by docs/schema/qkdctl.json, one line for each answer.
    #[arg(short, long, value_enum, default_value = "text", global = true)]
    output: Form,
    #[command(subcommand)]
    command: Command,
}

/// Form of what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people.
    Text,
    /// For programs.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
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
    Conform(Box<qkd_daemon::conform::Args>),
    /// Looks at all that a module needs on this host, and says what is wrong and how to mend it.
    Doctor(Box<qkd_daemon::doctor::Args>),
}

#[derive(Debug, Subcommand)]
enum Audit {
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

fn main() -> ExitCode {
    let Args { socket, output, command } = Args::parse();
    let json = output == Form::Json;
    let request = match command {
        Command::Conform(args) => return qkd_daemon::conform::run(&args, json),
        Command::Doctor(args) => return qkd_daemon::doctor::run(&args, json),
        Command::Audit(Audit::Verify { path }) => return tell(&record::verify(&path), output),
        Command::Bind { address } => return tell(&slot::bind(&address), output),
        Command::Unbind { address } => return tell(&slot::unbind(&address), output),
        Command::Watch { count, once, every } => {
            let daemon = match Daemon::of(socket) {
                Ok(daemon) => daemon,
                Err(code) => return code,
            };
            return watch::watch(&daemon, output, if once { Some(1) } else { count }, every);
        }
        Command::Status => Request::Status,
        Command::Streams => Request::Streams,
        Command::Events => Request::Events,
        Command::Reload => Request::Reload,
        Command::SelfTest => Request::SelfTest,
        Command::Zeroize => Request::Zeroize,
    };
    match Daemon::of(socket) {
        Ok(daemon) => tell(&daemon.ask(&request), output),
        Err(code) => code,
    }
}

/// Prints what came of a command.
fn tell(outcome: &Outcome, form: Form) -> ExitCode {
    match form {
        Form::Json => show::json(outcome),
        Form::Text => show::text(outcome),
    }
    ExitCode::from(outcome.exit_code())
}

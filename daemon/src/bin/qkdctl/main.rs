//! `qkdctl`: the operator's tool of a QKD module.

mod ask;
mod record;
mod show;
mod slot;
mod watch;

use std::process::ExitCode;

use clap::Parser;
use qkd_daemon::arguments::qkdctl::{Args, Audit, Command, Form};
use qkd_daemon::operator::outcome::Outcome;
use qkd_daemon::operator::protocol::Request;

use self::ask::Daemon;

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

//! `qkdd`: the daemon of one QKD module.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, setrlimit};
use qkd_daemon::config::Config;
use qkd_daemon::engine::{Addresses, Failure, run};
use qkd_daemon::logging;
use qkd_daemon::tls::Tls;
use tokio::signal::unix::{SignalKind, signal};

/// Serves ETSI GS QKD 004 push mode for one QKD card.
///
/// Exit codes: 0 stopped as asked, 1 internal, 2 configuration or command line, 3 card cannot be used, 4 card gone,
/// 5 card out of order, 6 an address cannot be had, 7 no memory for keys, 8 ledger.
#[derive(Debug, Parser)]
#[command(version, verbatim_doc_comment)]
struct Args {
    /// Configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Only read the configuration and the certificates that it names, say whether they are right, and end.
    #[arg(long)]
    check_config: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(e) => return fail(&e.into()),
    };
    if args.check_config {
        if let Err(e) = Tls::load(&config) {
            return fail(&e.into());
        }
        println!("{}: right", args.config.display());
        return ExitCode::SUCCESS;
    }
    if let Err(e) = logging::start(config.log.level) {
        eprintln!("qkdd: there is no log: {e}");
    }
    keep_memory_inside();
    match actix_web::rt::System::new().block_on(serve(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

async fn serve(config: Config) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => log::info!(id = "daemon.terminated"; "SIGTERM: stopping"),
            _ = interrupt.recv() => log::info!(id = "daemon.terminated"; "SIGINT: stopping"),
        }
    };
    run(config, stop, say_ready).await
}

/// One line that a supervisor or a test can wait for.
fn say_ready(addresses: Addresses) {
    let peer = addresses.peer.map(|address| format!(" peer={address}")).unwrap_or_default();
    let mut out = std::io::stdout().lock();
    // Whoever closed standard output does not want to know.
    let _ = writeln!(out, "ready api={}{peer}", addresses.api);
    let _ = out.flush();
}

/// No core dump and no debugger of the same user sees key.
fn keep_memory_inside() {
    if let Err(e) = set_dumpable(false) {
        log::warn!(id = "daemon.dumpable"; "the process could not be made undumpable: {e}");
    }
    if let Err(e) = setrlimit(Resource::RLIMIT_CORE, 0, 0) {
        log::warn!(id = "daemon.core_dumps"; "core dumps could not be switched off: {e}");
    }
}

fn fail(failure: &Failure) -> ExitCode {
    eprintln!("qkdd: {failure}");
    failure.exit_code()
}

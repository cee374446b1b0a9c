//! `qkdd`: the daemon of one QKD module.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, setrlimit};
use qkd_daemon::api::openapi;
use qkd_daemon::arguments::qkdd::Args;
use qkd_daemon::config::Config;
use qkd_daemon::engine::{Addresses, Failure, run};
use qkd_daemon::logging;
use qkd_daemon::tls::Tls;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(document) = args.openapi {
        // Whoever closed standard output does not want to know.
        let _ = std::io::stdout().write_all(openapi::json(document.into()).as_bytes());
        return ExitCode::SUCCESS;
    }
    // The command line is refused without it.
    let path = args.config.unwrap_or_default();
    let config = match Config::load(&path) {
        Ok(config) => config,
        Err(e) => return fail(&e.into()),
    };
    if args.check_config {
        if let Err(e) = Tls::load(&config) {
            return fail(&e.into());
        }
        println!("{}: right", path.display());
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

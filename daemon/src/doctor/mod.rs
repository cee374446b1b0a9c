//! `qkdctl doctor`: looks at everything that a module needs on its host, and says what is wrong and how to mend it.
//!
//! It reads the configuration with the daemon's own code, so that it never calls healthy what the daemon refuses.

mod card;
mod clock;
mod files;
mod finding;
mod host;
mod memory;
mod network;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

pub use self::finding::{Finding, Verdict};

use self::finding::Findings;
use self::host::{Account, Host};
use crate::config::Config;

/// Version of the JSON report; counts changes that whoever reads an older one would misunderstand.
const VERSION: u32 = 1;
/// Where the package's units look for configurations.
const CONFIGURATIONS: &str = "/etc/qkd";

const EXIT_CODES: &str = "\
Exit codes: 0 nothing is wrong (there may be warnings), 1 something is wrong, 2 command line, or nothing to look at.";

/// Arguments of the subcommand.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub struct Args {
    /// Configuration of a module (repeatable); without it, all in /etc/qkd.
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// User that the daemon runs as, by name or number: otherwise qkd where root asks, or whoever asks.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Longest wait for another host.
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    deadline: u32,
    /// Where the host's /sys, /dev and so on lie.
    #[arg(long, value_name = "FOLDER", hide = true, default_value = "/")]
    root: PathBuf,
}

/// What to look at.
#[derive(Clone, Debug)]
pub struct Options {
    /// Configurations.
    pub configs: Vec<PathBuf>,
    /// The daemon's user; see [`Args`].
    pub user: Option<String>,
    /// Longest wait for another host.
    pub deadline: Duration,
    /// Where the host's files lie.
    pub root: PathBuf,
}

/// Everything that was seen.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    version: u32,
    /// Nothing is a [`Verdict::Fail`].
    pub healthy: bool,
    /// In the order in which things were looked at.
    pub findings: Vec<Finding>,
}

impl Report {
    /// A line for each finding, and one for its mend.
    #[must_use]
    pub fn lines(&self) -> String {
        let plain = |text: &str| text.replace('\n', "\n     ");
        let mut text = String::new();
        let mut config = "";
        for finding in &self.findings {
            if finding.config != config {
                config = &finding.config;
                text.push_str(&format!("{config}\n"));
            }
            let word = match finding.verdict {
                Verdict::Pass => "PASS",
                Verdict::Warn => "WARN",
                Verdict::Fail => "FAIL",
                Verdict::Skip => "SKIP",
            };
            text.push_str(&format!("{word} {}: {}\n", finding.check, plain(&finding.detail)));
            if !finding.mend.is_empty() {
                text.push_str(&format!("     mend: {}\n", finding.mend));
            }
        }
        text
    }
}

/// Looks, and prints what was seen.
#[must_use]
pub fn run(args: &Args, json: bool) -> ExitCode {
    let configs = if args.config.is_empty() { installed(&args.root) } else { args.config.clone() };
    if configs.is_empty() {
        eprintln!("qkdctl: there is no configuration in {CONFIGURATIONS}: write one, or give --config FILE");
        return ExitCode::from(2);
    }
    let options = Options {
        configs,
        user: args.user.clone(),
        deadline: Duration::from_secs(args.deadline.into()),
        root: args.root.clone(),
    };
    let report = match examine(&options) {
        Ok(report) => report,
        Err(why) => {
            eprintln!("qkdctl: {why}");
            return ExitCode::from(2);
        }
    };
    if json {
        match serde_json::to_string_pretty(&report) {
            Ok(text) => println!("{text}"),
            Err(why) => {
                eprintln!("qkdctl: {why}");
                return ExitCode::from(2);
            }
        }
    } else {
        print!("{}", report.lines());
    }
    if report.healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Configurations that the package's units would use.
fn installed(root: &Path) -> Vec<PathBuf> {
    let folder = root.join(CONFIGURATIONS.trim_start_matches('/'));
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    found.sort_unstable();
    found
}

/// Looks at everything that the configurations need.
///
/// # Errors
/// In words, when there is no such user.
pub fn examine(options: &Options) -> Result<Report, String> {
    let host = Host::new(&options.root, Account::find(options.user.as_deref())?);
    let mut all = Vec::new();
    for path in &options.configs {
        let mut findings = Findings::about(path);
        look(path, &host, options.deadline, &mut findings);
        all.append(&mut findings.all);
    }
    let healthy = !all.is_empty() && !all.iter().any(|finding| finding.verdict == Verdict::Fail);
    Ok(Report { version: VERSION, healthy, findings: all })
}

fn look(path: &Path, host: &Host, deadline: Duration, findings: &mut Findings) {
    clock::look(host, findings);
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(why) => {
            findings.fail("config", why, "mend what is named; README's \"Configuration\" has every setting");
            return findings.skip("all that the configuration names", "it cannot be read");
        }
    };
    findings.pass("config", "the daemon takes it");
    if config.card.accept_test_key {
        let detail =
            "card.accept_test_key is set: a simulated card's key, which anyone can compute, is handed out";
        findings.warn("card.test_key", detail, "take it away where key must be secret");
    }
    if config.transport.plain_text_beyond_loopback_gives_keys_away {
        let detail = "transport.plain_text_beyond_loopback_gives_keys_away is set: who can read the network has the keys";
        findings.warn(
            "transport",
            detail,
            "give certificates under [tls] (docs/certificates.md), and take it away",
        );
    }
    let instance = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    card::look(&config, host, findings);
    memory::look(&config, &instance, host, findings);
    let tls = files::certificates(&config, host, findings);
    files::kept(&config, &instance, host, findings);
    network::look(&config, tls.as_ref(), deadline, findings);
}

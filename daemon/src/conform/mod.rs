//! `qkdctl conform`: finds out whether a KMS or a QKD module speaks ETSI GS QKD 004 push mode.
//!
//! The probe plays a KMS (or the KMSs of both ends) against a module, or a module against a KMS, and judges what comes back
//! clause by clause. It shares the address syntax and the cryptography with the daemon, and nothing of what is judged: its HTTP
//! is its own, because it must send what no proper client would.

mod book;
mod desk;
mod http;
mod kms;
mod module;
mod report;
mod server;
mod sources;
mod wire;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use uuid::Uuid;

pub use self::book::{Clause, Level, Outcome, Verdict};
pub use self::report::{Report, Totals};

use self::book::Book;
use self::http::Client;
use self::wire::{Files, Secure};
use crate::config::KEY_MATERIAL_PATH;

const EXIT_CODES: &str = "\
Exit codes: 0 nothing failed, 1 a clause is broken, 2 command line. A skipped check does not count as passed.";

/// Arguments of the subcommand.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub struct Args {
    /// `module` or `kms`, and the URL to probe; the URL alone: what answers there is found out.
    #[arg(value_name = "[PART] URL", num_args = 1..=2, required_unless_present = "list")]
    what: Vec<String>,
    /// Module: URI of the KMS that the probe plays there.
    #[arg(long, value_name = "URI", default_value = "kms://a")]
    source: String,
    /// Module: URI of the KMS at the other end.
    #[arg(long, value_name = "URI", default_value = "kms://b")]
    destination: String,
    /// Module: base URL of the module at the other end. With it and both addresses, key is made to flow.
    #[arg(long, value_name = "URL")]
    other: Option<String>,
    /// Module: where it pushes key for the probe. KMS: where it finds the module that the probe plays; port 0 takes a free one,
    /// printed on standard error.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Module: where the other module pushes key for its KMS.
    #[arg(long, value_name = "ADDRESS")]
    other_listen: Option<SocketAddr>,
    /// KMS: a key stream that it knows already, which has had no key yet.
    #[arg(long, value_name = "UUID", conflicts_with = "listen")]
    stream: Option<Uuid>,
    /// KMS: octets of a chunk of that stream.
    #[arg(long, value_name = "BYTES", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    chunk_size: u32,
    /// The probe's certificate in PEM form, for https.
    #[arg(long, value_name = "FILE", requires_all = ["certificate_key", "authorities"])]
    certificate: Option<PathBuf>,
    /// Its private key.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    certificate_key: Option<PathBuf>,
    /// Certificates of the authorities whose word is taken.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    authorities: Option<PathBuf>,
    /// Module: certificate of the KMS at the other end, where it is another.
    #[arg(long, value_name = "FILE", requires_all = ["other_certificate_key", "certificate"])]
    other_certificate: Option<PathBuf>,
    /// Its private key.
    #[arg(long, value_name = "FILE", requires = "other_certificate")]
    other_certificate_key: Option<PathBuf>,
    /// Longest wait for an answer, and for whatever else must come.
    #[arg(long, value_name = "S", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    deadline: u32,
    /// KMS: longest wait until it opens a key stream.
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    patience: u32,
    /// Longest wait until something takes connections at URL, for what is only just started.
    #[arg(long, value_name = "S", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=86_400))]
    wait: u32,
    /// Writes them into this file as JUnit tests, too.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Only print every clause that is checked.
    #[arg(long)]
    list: bool,
}

/// Which side of the interface is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Module,
    Kms,
}

/// The probe cannot begin.
#[derive(Debug, thiserror::Error)]
enum ConformError {
    #[error("{0}")]
    CommandLine(String),
    #[error("{0}")]
    Certificates(#[from] crate::tls::TlsError),
    #[error("{}: {source}", path.display())]
    Junit { path: PathBuf, source: std::io::Error },
    #[error("the report cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Probes, and prints what was found.
#[must_use]
pub fn run(args: &Args, json: bool) -> ExitCode {
    if args.list {
        print!("{}", reference_markdown());
        return ExitCode::SUCCESS;
    }
    let done = probe(args).and_then(|report| {
        if json {
            println!("{}", report.json()?);
        } else {
            print!("{}", report.lines());
        }
        if let Some(path) = &args.junit {
            let failed = |source| ConformError::Junit { path: path.clone(), source };
            std::fs::write(path, report.junit()).map_err(failed)?;
        }
        Ok(report.totals.fail == 0)
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("qkdctl: {why}");
            ExitCode::from(2)
        }
    }
}

fn probe(args: &Args) -> Result<Report, ConformError> {
    let (part, url) = part_and_url(&args.what)?;
    let secure = Secure::read(&Files {
        certificate: args.certificate.clone(),
        key: args.certificate_key.clone(),
        authorities: args.authorities.clone(),
    })?;
    let deadline = Duration::from_secs(args.deadline.into());
    let client = |url: &str, secure: Option<&Secure>| {
        Client::new(url, secure.map(|secure| secure.client.clone()), deadline)
            .map_err(ConformError::CommandLine)
    };
    let start = Duration::from_secs(args.wait.into());
    let probed = Client { start, ..client(url, secure.as_ref())? };
    let part = match part {
        Some(part) => part,
        None => recognise(&probed).ok_or_else(|| {
            ConformError::CommandLine(format!(
                "what answers at {url} is neither known as a module nor as a KMS: write `module` or `kms` before the URL"
            ))
        })?,
    };
    let (name, outcomes) = match part {
        Part::Module => ("module", probe_module(args, probed, secure, client)?),
        Part::Kms => ("kms", probe_kms(args, probed, secure)),
    };
    Ok(Report::new(name, url, outcomes))
}

fn probe_module(
    args: &Args,
    probed: Client,
    secure: Option<Secure>,
    client: impl Fn(&str, Option<&Secure>) -> Result<Client, ConformError>,
) -> Result<Vec<Outcome>, ConformError> {
    let own = Files {
        certificate: args.other_certificate.clone(),
        key: args.other_certificate_key.clone(),
        authorities: args.authorities.clone(),
    };
    let other_secure = Secure::read(&own)?.or_else(|| secure.clone());
    let other = match &args.other {
        None => None,
        Some(url) => Some(module::End {
            client: client(url, other_secure.as_ref())?,
            listen: args.other_listen,
            secure: other_secure,
        }),
    };
    let subject = module::Subject {
        deadline: probed.deadline,
        end: module::End { client: probed, listen: args.listen, secure },
        other,
        names: [args.source.clone(), args.destination.clone()],
    };
    let mut book = Book::new(module::CLAUSES);
    module::probe(&subject, &mut book);
    Ok(book.finish("the probe did not come so far"))
}

fn probe_kms(args: &Args, probed: Client, secure: Option<Secure>) -> Vec<Outcome> {
    let subject = kms::Subject {
        secure,
        listen: args.listen,
        stream: args.stream.map(|id| (id, args.chunk_size)),
        patience: Duration::from_secs(args.patience.into()),
        ..kms::Subject::new(probed)
    };
    let mut book = Book::new(kms::CLAUSES);
    kms::probe(&subject, &mut book, |address| tell(&format!("listening {address}")));
    book.finish("the probe did not come so far")
}

/// Tells the person who waits. Standard output is the report's.
fn tell(words: &str) {
    eprintln!("{words}");
}

fn part_and_url(what: &[String]) -> Result<(Option<Part>, &str), ConformError> {
    match what {
        [url] => Ok((None, url)),
        [part, url] if part == "module" => Ok((Some(Part::Module), url)),
        [part, url] if part == "kms" => Ok((Some(Part::Kms), url)),
        _ => Err(ConformError::CommandLine("write `module URL`, `kms URL`, or a URL alone".to_owned())),
    }
}

/// Who answers there: by the URL, or by the path that is known.
fn recognise(client: &Client) -> Option<Part> {
    if client.prefix.ends_with(KEY_MATERIAL_PATH) {
        return Some(Part::Kms);
    }
    client.come_up(tell);
    let knows =
        |request: &[u8]| client.exchange(request).is_ok_and(|reply| !matches!(reply.status, 404 | 405 | 501));
    if knows(&client.request("GET", &format!("{}get-key", module::CALLS), b"{}")) {
        return Some(Part::Module);
    }
    knows(&client.request("POST", KEY_MATERIAL_PATH, b"{}")).then_some(Part::Kms)
}

/// Every clause that is checked, for the documentation.
#[must_use]
pub fn reference_markdown() -> String {
    let mut text = String::new();
    for (title, clauses) in [("A QKD module", module::CLAUSES), ("A KMS", kms::CLAUSES)] {
        let _ = write!(text, "### {title}\n\n| check | broken | from | what it wants |\n|---|---|---|---|\n");
        for Clause { id, level, source, text: wants } in clauses {
            let broken = if *level == Level::Must { "FAIL" } else { "WARN" };
            let _ = writeln!(text, "| `{id}` | {broken} | {source} | {wants} |");
        }
        text.push('\n');
    }
    text
}

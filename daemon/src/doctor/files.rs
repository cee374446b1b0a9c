//! Certificates, ledger, audit record and the operator's socket.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nix::unistd::Uid;
use rustls::CertificateError;

use super::finding::Findings;
use super::host::{Host, knows_group};
use crate::audit::{Wrong, verify};
use crate::config::{self, Config};
use crate::ledger;
use crate::tls::{Certified, Tls};

/// An expiry so close is told.
const SOON: Duration = Duration::from_secs(30 * 86_400);

/// Looks at the certificates; gives them where they can be used.
pub(super) fn certificates(config: &Config, host: &Host, findings: &mut Findings) -> Option<Arc<Tls>> {
    let tls = match Tls::load(config) {
        Ok(Some(tls)) => tls,
        Ok(None) => {
            findings.skip("certificates", "the configuration has no TLS");
            return None;
        }
        Err(why) => {
            findings.fail(
                "certificates",
                why,
                "see docs/certificates.md for what each file must hold; then reload the daemon",
            );
            return None;
        }
    };
    findings.pass("certificates", "all files can be used together");
    for expiry in tls.expiries() {
        let mend =
            "have it renewed by whoever issued it, put it in its place, and systemctl reload the daemon";
        match expiry.left(SystemTime::now()) {
            None => findings.fail(
                "certificates.expiry",
                format!("{} has expired on {}", expiry.what, expiry.until),
                mend,
            ),
            Some(left) if left < SOON => {
                let days = left.as_secs() / 86_400;
                findings.warn("certificates.expiry", format!("{} expires in {days} days", expiry.what), mend);
            }
            Some(_) => findings
                .pass("certificates.expiry", format!("{} is good until {}", expiry.what, expiry.until)),
        }
    }
    chain(&tls, findings);
    if let Some(files) = &config.tls {
        readable(files, host, findings);
    }
    Some(Arc::new(tls))
}

/// Whether the own certificate is good for those who take the same authorities' word as this end.
fn chain(tls: &Tls, findings: &mut Findings) {
    const CHECK: &str = "certificates.chain";
    let again = "have a certificate issued that names this host (a subject alternative name of DNS or IP), by an authority whose \
                 word the other end takes";
    match tls.own_certificate() {
        Certified::Good => findings.pass(CHECK, "this module's certificate is good for who takes peer_authorities' word"),
        Certified::Nameless => {
            findings.fail(CHECK, "this module's certificate has no DNS name: neither KMSs nor the other module can know it", again);
        }
        Certified::Bad(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            findings.fail(CHECK, "this module's certificate is not good yet", "set the clock, or wait");
        }
        Certified::Bad(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            findings.fail(CHECK, "this module's certificate has expired", "have it renewed, then reload the daemon");
        }
        Certified::Bad(why) => findings.warn(
            CHECK,
            format!("this module's certificate is not good for who takes peer_authorities' word ({why})"),
            "put the certificates between it and its authority behind it into tls.certificate; where the other end takes another \
             authority's word, this does not matter",
        ),
    }
}

/// The doctor may read what the daemon's user may not.
fn readable(files: &config::Tls, host: &Host, findings: &mut Findings) {
    const CHECK: &str = "certificates.readable";
    let all = [
        Some(&files.certificate),
        Some(&files.key),
        Some(&files.client_authorities),
        Some(&files.kms_authorities),
        Some(&files.peer_authorities),
        files.revocation_lists.as_ref(),
    ];
    let closed = all.into_iter().flatten().find(|file| {
        fs::metadata(file).is_ok_and(|found| !host.user.may_read(found.mode(), found.uid(), found.gid()))
    });
    match closed {
        None => findings.pass(CHECK, format!("{} may read all files", host.user)),
        Some(file) => findings.fail(
            CHECK,
            format!("{} may not read {}", host.user, file.display()),
            "chown root:qkd and chmod 640 for the key, 644 for the others",
        ),
    }
}

/// Looks at the directories that the daemon keeps.
pub(super) fn kept(config: &Config, instance: &str, host: &Host, findings: &mut Findings) {
    let state = host.path("/var/lib/qkd").join(instance);
    if config.ledger.in_memory_forgets_everything {
        let detail =
            "the ledger is kept in memory: each restart ends all key streams and burns what the cards hold";
        findings.warn(
            "ledger",
            detail,
            "give ledger.directory, and take ledger.in_memory_forgets_everything away",
        );
    } else {
        let directory =
            config.ledger.directory.as_ref().map_or_else(|| state.clone(), |path| host.path(path));
        let by_systemd = config.ledger.directory.is_none();
        directory_of_its_own("ledger", &directory, by_systemd, host, findings);
    }
    audit(config, &state, host, findings);
    match &config.operator.group {
        Some(group) if !knows_group(group) => findings.fail(
            "operator.group",
            format!("operator.group names {group:?}, a group that this system does not know"),
            format!("groupadd --system {group}, or name another"),
        ),
        Some(group) => findings.pass("operator.group", format!("the system knows the group {group}")),
        None => {}
    }
}

fn directory_of_its_own(
    check: &'static str,
    path: &Path,
    by_systemd: bool,
    host: &Host,
    findings: &mut Findings,
) {
    let shown = path.display();
    match fs::metadata(path) {
        Ok(found) => match owned(&found, host) {
            Ok(()) => ledger_file(check, path, host, findings),
            Err(why) => findings.fail(
                check,
                format!("{shown}: {why}"),
                format!("chown {} {shown} && chmod 700 {shown}", host.user.uid),
            ),
        },
        Err(_) if by_systemd => findings.pass(check, format!("systemd will make {shown}")),
        Err(_) if path.parent().is_some_and(Path::is_dir) => {
            findings.pass(check, format!("the daemon will make {shown}"));
        }
        Err(why) => findings.fail(
            check,
            format!("{shown}: {why}"),
            format!("install -d -m 700 -o {} {shown}, or mount it", host.user.uid),
        ),
    }
}

/// The same that the daemon asks of it.
fn owned(found: &Metadata, host: &Host) -> Result<(), String> {
    ledger::may_be_used(found, Uid::from_raw(host.user.uid))
}

fn ledger_file(check: &'static str, directory: &Path, host: &Host, findings: &mut Findings) {
    let file = directory.join(ledger::FILE);
    let Ok(found) = fs::metadata(&file) else {
        return findings
            .pass(check, format!("{} is the daemon's own; a new ledger will be begun", directory.display()));
    };
    let shown = file.display();
    let mend = format!("chown {} {shown} && chmod 600 {shown}", host.user.uid);
    if !found.is_file() {
        findings.fail(
            check,
            format!("{shown} is no plain file"),
            "look who has put it there, and move it away",
        );
    } else if found.uid() != host.user.uid || found.mode() & 0o022 != 0 {
        findings.fail(
            check,
            format!("{shown} belongs to user {}, mode {:o}", found.uid(), found.mode() & 0o7777),
            mend,
        );
    } else if found.len() == 0 {
        let mend = "put the newest backup back, or move it away: both ends then begin anew";
        findings.fail(check, format!("{shown} is empty"), mend);
    } else {
        findings.pass(check, format!("{shown} is the daemon's own"));
    }
}

fn audit(config: &Config, state: &Path, host: &Host, findings: &mut Findings) {
    const CHECK: &str = "audit";
    let beside = config
        .ledger
        .directory
        .as_ref()
        .map_or_else(|| state.to_owned(), |path| host.path(path))
        .join("audit");
    let directory: PathBuf = config.audit.directory.as_ref().map_or(beside, |path| host.path(path));
    if !directory.exists() {
        return findings.pass(CHECK, format!("a new record will be begun in {}", directory.display()));
    }
    match verify(&directory) {
        Ok(verdict) => {
            findings.pass(CHECK, format!("the record is whole, up to line {}", verdict.last.number))
        }
        Err(Wrong::None(_)) => findings.pass(CHECK, format!("{} has no record yet", directory.display())),
        Err(why) => findings.fail(
            CHECK,
            why,
            format!(
                "look who changed it, and move {} away: the daemon does not go on with it",
                directory.display()
            ),
        ),
    }
}

//! Certificates for a laboratory: an authority, and who it vouches for at both ends of a QKD link.
//!
//! The authority's key lies beside the rest, so that whoever can read the directory can be anybody. Where keys must be
//! secret, an authority of one's own issues them: docs/certificates.md.

use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};

const DAY: Duration = Duration::from_secs(86_400);
/// Clocks of two hosts may differ.
const BEFORE: Duration = Duration::from_secs(3_600);
/// Names of this machine.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// Ends of the link, as they are called in file names.
const ENDS: [&str; 2] = ["a", "b"];

/// Arguments of the subcommand.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Directory for the files, which must not exist.
    directory: PathBuf,
    /// Host name or IP address of module and KMS at end A, beside this machine's own (repeatable).
    #[arg(long, value_name = "HOST")]
    host_a: Vec<String>,
    /// The same at end B (repeatable).
    #[arg(long, value_name = "HOST")]
    host_b: Vec<String>,
    /// URI of the KMS at end A.
    #[arg(long, value_name = "URI", default_value = "kms://a")]
    kms_a: String,
    /// URI of the KMS at end B.
    #[arg(long, value_name = "URI", default_value = "kms://b")]
    kms_b: String,
    /// Days that the certificates are good.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
}

/// Certificates cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A file or directory cannot be written. What exists is never replaced.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A name or key is not possible.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// What a certificate says of its owner.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Name for people.
    pub name: String,
    /// DNS names and IP addresses.
    pub hosts: Vec<String>,
    /// URIs.
    pub uris: Vec<String>,
    /// From when on it is good.
    pub from: SystemTime,
    /// Until when it is good.
    pub until: SystemTime,
    /// Number that no other certificate of the authority may have.
    pub serial: u64,
}

impl Subject {
    /// Somebody with these names, from now on for so many days.
    #[must_use]
    pub fn new(name: &str, hosts: &[&str], uris: &[&str], days: u32) -> Self {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let now = SystemTime::now();
        // Good enough for a laboratory: nobody makes two in one nanosecond.
        let serial = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        Self {
            name: name.to_owned(),
            hosts: owned(hosts),
            uris: owned(uris),
            from: now - BEFORE,
            until: now + DAY * days,
            serial: u64::try_from(serial & u128::from(u64::MAX >> 1)).unwrap_or(1),
        }
    }
}

/// A certificate and its key, in PEM form.
#[derive(Clone)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// An authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate and key.
    pub own: Issued,
}

impl Authority {
    /// Makes one that is good for so many days.
    ///
    /// # Errors
    /// [`LabError::Certificate`].
    pub fn new(name: &str, days: u32) -> Result<Self, LabError> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let now = SystemTime::now();
        params.not_before = (now - BEFORE).into();
        params.not_after = (now + DAY * days).into();
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        let own = Issued { certificate: certificate.pem(), key: key.serialize_pem() };
        Ok(Self { issuer: Issuer::new(params, key), own })
    }

    /// Vouches for somebody, as server and as client.
    ///
    /// # Errors
    /// [`LabError::Certificate`] when a name is not possible.
    pub fn issue(&self, subject: &Subject) -> Result<Issued, LabError> {
        let mut params = CertificateParams::new(subject.hosts.clone())?;
        for uri in &subject.uris {
            params.subject_alt_names.push(SanType::URI(Ia5String::try_from(uri.as_str())?));
        }
        params.distinguished_name.push(DnType::CommonName, &subject.name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(SerialNumber::from(subject.serial));
        params.not_before = subject.from.into();
        params.not_after = subject.until.into();
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// A list that revokes the certificates with these numbers, in PEM form, good for so many days.
    ///
    /// # Errors
    /// [`LabError::Certificate`].
    pub fn revocation_list(&self, serials: &[u64], days: u32) -> Result<String, LabError> {
        let now = SystemTime::now();
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: (now - BEFORE).into(),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: (now - BEFORE).into(),
            next_update: (now + DAY * days).into(),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(params.signed_by(&self.issuer)?.pem()?)
    }
}

/// Writes a file that only its owner can read, and that did not exist.
///
/// # Errors
/// [`LabError::Write`].
pub fn write(path: &Path, text: &str) -> Result<(), LabError> {
    let error = |source| LabError::Write { path: path.to_owned(), source };
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path).map_err(error)?;
    file.write_all(text.as_bytes()).map_err(error)
}

/// Both ends of a link.
#[derive(Clone, Debug)]
pub struct Lab {
    /// Hosts of module and KMS at each end, beside this machine's own names.
    pub hosts: [Vec<String>; 2],
    /// URI of the KMS at each end.
    pub kms: [String; 2],
    /// Days that the certificates are good.
    pub days: u32,
}

impl Lab {
    /// Name of the module at an end, 0 or 1.
    #[must_use]
    pub fn module_name(end: usize) -> String {
        format!("module-{}.qkd.test", ENDS.get(end).unwrap_or(&"x"))
    }

    /// Makes everything in a new directory: `authority`, and `module-a`, `kms-a` and so on with `.pem` and `.key`, and for
    /// each module the lines of its configuration.
    ///
    /// # Errors
    /// See [`LabError`].
    pub fn write(&self, directory: &Path) -> Result<Authority, LabError> {
        DirBuilder::new()
            .mode(0o700)
            .create(directory)
            .and_then(|()| directory.canonicalize())
            .map_err(|source| LabError::Write { path: directory.to_owned(), source })?;
        let directory = &std::path::absolute(directory)
            .map_err(|source| LabError::Write { path: directory.to_owned(), source })?;
        let authority = Authority::new("QKD laboratory authority", self.days)?;
        let put = |name: &str, issued: &Issued| {
            write(&directory.join(format!("{name}.pem")), &issued.certificate)?;
            write(&directory.join(format!("{name}.key")), &issued.key)
        };
        put("authority", &authority.own)?;
        for (end, letter) in ENDS.iter().enumerate() {
            let (Some(hosts), Some(kms)) = (self.hosts.get(end), self.kms.get(end)) else { continue };
            let module = Self::module_name(end);
            let of = |own: &str, uris: &[&str]| {
                let hosts: Vec<&str> =
                    [own].into_iter().chain(LOOPBACK).chain(hosts.iter().map(String::as_str)).collect();
                authority.issue(&Subject::new(own, &hosts, uris, self.days))
            };
            put(&format!("module-{letter}"), &of(&module, &[])?)?;
            put(&format!("kms-{letter}"), &of(&format!("kms-{letter}.qkd.test"), &[kms])?)?;
            write(&directory.join(format!("tls-{letter}.toml")), &self.toml(directory, end))?;
        }
        Ok(authority)
    }

    /// The section `[tls]` of the module at an end, and what belongs to other sections as comments.
    fn toml(&self, directory: &Path, end: usize) -> String {
        let letter = ENDS.get(end).unwrap_or(&"x");
        let quoted = |file: String| toml::Value::String(directory.join(file).to_string_lossy().into_owned());
        format!(
            "# For the configuration of module {letter}. Under [peer]:\n#   certificate_name = \"{}\"\n\
             # and under [[kms]], with an endpoint that begins with https:\n#   certificate_names = [\"URI:{}\"]\n\
             [tls]\ncertificate = {}\nkey = {}\nauthorities = {}\n",
            Self::module_name(1 - end.min(1)),
            self.kms.get(end).map_or("", String::as_str),
            quoted(format!("module-{letter}.pem")),
            quoted(format!("module-{letter}.key")),
            quoted("authority.pem".to_owned()),
        )
    }
}

/// Runs the subcommand.
pub fn run(args: Args) -> ExitCode {
    let Args { directory, host_a, host_b, kms_a, kms_b, days } = args;
    let lab = Lab { hosts: [host_a, host_b], kms: [kms_a, kms_b], days };
    match lab.write(&directory) {
        Ok(_) => {
            println!(
                "certificates for a laboratory are in {}; tls-a.toml and tls-b.toml use them",
                directory.display()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            log::error!("{error}");
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn lab() -> Lab {
        Lab { hosts: [vec![], vec!["192.0.2.7".into()]], kms: ["kms://a".into(), "kms://b".into()], days: 2 }
    }

    #[test]
    fn nobody_else_can_read_a_key_and_nothing_is_ever_replaced() {
        let folder = tempfile::tempdir().expect("folder");
        let directory = folder.path().join("lab");
        lab().write(&directory).expect("certificates");
        let mode = |path: &Path| std::fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
        assert_eq!(mode(&directory), 0o700);
        let mut keys = 0;
        for entry in std::fs::read_dir(&directory).expect("folder") {
            let path = entry.expect("entry").path();
            assert_eq!(mode(&path), 0o600, "{}", path.display());
            keys += usize::from(path.extension().is_some_and(|extension| extension == "key"));
        }
        assert_eq!(keys, 5, "authority, two modules, two KMSs");
        assert!(matches!(lab().write(&directory), Err(LabError::Write { .. })), "it was there already");
    }

    #[test]
    fn configuration_lines_are_toml_and_name_files_that_are_there() {
        let folder = tempfile::tempdir().expect("folder");
        let directory = folder.path().join("lab \"quoted\"");
        lab().write(&directory).expect("certificates");
        for letter in ENDS {
            let text = std::fs::read_to_string(directory.join(format!("tls-{letter}.toml"))).expect("text");
            let toml: toml::Value = toml::from_str(&text).expect("TOML");
            for setting in ["certificate", "key", "authorities"] {
                let file = toml["tls"][setting].as_str().expect("a path");
                assert!(Path::new(file).is_absolute() && Path::new(file).exists(), "{file}");
            }
        }
    }
}

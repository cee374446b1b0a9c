//! Certificates, keys, authorities and revocation lists as they lie in files, and until when they are good.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use x509_cert::Certificate;
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode;
use x509_cert::time::Time;
use zeroize::Zeroizing;

use super::TlsError;

/// Most octets of a file.
const LARGEST: u64 = 1 << 20;
/// Permissions that a private key must not give: others none, the group only to read.
const FORBIDDEN: u32 = 0o037;

/// Something that is good until a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// What it is, for the log.
    pub what: String,
    /// Until when it is good, in seconds since 1970.
    pub unix_seconds: u64,
    /// The same in words, UTC.
    pub until: String,
    /// It is this daemon's own certificate, the first of its chain.
    pub own: bool,
}

impl Expiry {
    fn new(what: String, until: Time, own: bool) -> Self {
        let unix_seconds = until.to_unix_duration().as_secs();
        Self { what, unix_seconds, until: until.to_date_time().to_string(), own }
    }

    /// Time that is left; `None`: it is over.
    #[must_use]
    pub fn left(&self, now: SystemTime) -> Option<Duration> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        Duration::from_secs(self.unix_seconds).checked_sub(now).filter(|left| !left.is_zero())
    }
}

/// A file that a setting names.
#[derive(Clone, Copy)]
pub(crate) struct Named<'a> {
    pub(crate) setting: &'static str,
    pub(crate) file: &'a Path,
}

impl Named<'_> {
    fn wrong(self, why: impl ToString) -> TlsError {
        TlsError::Wrong { setting: self.setting, file: self.file.to_owned(), why: why.to_string() }
    }

    fn unreadable(self, source: std::io::Error) -> TlsError {
        TlsError::Unreadable { setting: self.setting, file: self.file.to_owned(), source }
    }

    fn read(
        self,
        may_be_used: impl FnOnce(&File) -> Result<(), TlsError>,
    ) -> Result<Zeroizing<Vec<u8>>, TlsError> {
        let file = File::open(self.file).map_err(|e| self.unreadable(e))?;
        may_be_used(&file)?;
        let mut octets = Zeroizing::new(Vec::new());
        file.take(LARGEST + 1).read_to_end(&mut octets).map_err(|e| self.unreadable(e))?;
        if octets.len() as u64 > LARGEST {
            return Err(self.wrong(format!("it has more than {LARGEST} bytes")));
        }
        Ok(octets)
    }

    /// A chain of certificates, the owner's first.
    pub(crate) fn certificates(
        self,
        expiries: &mut Vec<Expiry>,
    ) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let octets = self.read(|_| Ok(()))?;
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&octets)
            .collect::<Result<_, _>>()
            .map_err(|e| self.wrong(format!("no certificates in PEM form: {e}")))?;
        if certificates.is_empty() {
            return Err(self.wrong("there is no certificate in PEM form in it"));
        }
        for (number, certificate) in certificates.iter().enumerate() {
            let read = Certificate::from_der(certificate.as_ref())
                .map_err(|e| self.wrong(format!("certificate {}: {e}", number + 1)))?;
            let subject: String = read.tbs_certificate().subject().to_string().chars().take(100).collect();
            let what = format!("{}: certificate {} ({subject})", self.file.display(), number + 1);
            let own = self.setting == "certificate" && number == 0;
            expiries.push(Expiry::new(what, read.tbs_certificate().validity().not_after, own));
        }
        Ok(certificates)
    }

    /// A private key that nobody else can read.
    pub(crate) fn key(self) -> Result<PrivateKeyDer<'static>, TlsError> {
        let octets = self.read(|file| {
            let mode = file.metadata().map_err(|e| self.unreadable(e))?.permissions().mode() & 0o7777;
            let open = mode & FORBIDDEN != 0;
            if open { Err(TlsError::KeyLiesOpen { file: self.file.to_owned(), mode }) } else { Ok(()) }
        })?;
        PrivateKeyDer::from_pem_slice(&octets)
            .map_err(|e| self.wrong(format!("no private key in PEM form without a password: {e}")))
    }

    /// Authorities whose word is taken.
    pub(crate) fn authorities(self, expiries: &mut Vec<Expiry>) -> Result<RootCertStore, TlsError> {
        let mut store = RootCertStore::empty();
        for certificate in self.certificates(expiries)? {
            store.add(certificate).map_err(|e| self.wrong(format!("an authority cannot be used: {e}")))?;
        }
        Ok(store)
    }

    /// Lists of revoked certificates.
    pub(crate) fn revocation_lists(
        self,
        expiries: &mut Vec<Expiry>,
    ) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
        let octets = self.read(|_| Ok(()))?;
        let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(&octets)
            .collect::<Result<_, _>>()
            .map_err(|e| self.wrong(format!("no revocation lists in PEM form: {e}")))?;
        if lists.is_empty() {
            return Err(self.wrong("there is no revocation list in PEM form in it"));
        }
        for (number, list) in lists.iter().enumerate() {
            let list: &[u8] = list.as_ref();
            let read = <CertificateList>::from_der(list)
                .map_err(|e| self.wrong(format!("list {}: {e}", number + 1)))?;
            if let Some(until) = read.tbs_cert_list.next_update {
                let what = format!("{}: revocation list {}", self.file.display(), number + 1);
                expiries.push(Expiry::new(what, until, false));
            }
        }
        Ok(lists)
    }
}

//! What both catalogues of clauses are written with: how a clause is made, and where it may be written.

use super::book::Clause;
use super::book::Level::{Must, Should};

pub(super) const OPEN: &str = "push mode, open-connect";
pub(super) const GET_KEY: &str = "push mode, get-key";
pub(super) const CLOSE: &str = "push mode, close";
pub(super) const STATUS: &str = "push mode, status table";
pub(super) const MATERIAL: &str = "push mode, key-material";
pub(super) const ETSI: &str = "ETSI GS QKD 004 V2.1.1";
/// Where the specification is silent.
pub(super) const SILENT: &str = "decision";
pub(super) const HTTP: &str = "RFC 9110, RFC 9112";
pub(super) const TLS: &str = "push mode, transport";

pub(super) const fn must(id: &'static str, source: &'static str, text: &'static str) -> Clause {
    Clause { id, level: Must, source, text }
}

pub(super) const fn should(id: &'static str, source: &'static str, text: &'static str) -> Clause {
    Clause { id, level: Should, source, text }
}

//! The command line of `qkdd`.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::api::openapi;

/// Serves ETSI GS QKD 004 push mode for one QKD card.
///
/// Exit codes: 0 stopped as asked, 1 internal, 2 configuration or command line, 3 card cannot be used, 4 card gone,
/// 5 card out of order, 6 an address cannot be had, 7 no memory for keys, 8 ledger.
#[derive(Debug, Parser)]
#[command(name = "qkdd", version, verbatim_doc_comment)]
pub struct Args {
    /// Configuration file.
    #[arg(long, value_name = "FILE", required_unless_present = "openapi")]
    pub config: Option<PathBuf>,
    /// Only read the configuration and the certificates that it names, say whether they are right, and end.
    #[arg(long)]
    pub check_config: bool,
    /// Only print an OpenAPI document, of the API that this daemon serves or of what it asks of a KMS, and end.
    #[arg(long, value_name = "WHICH", num_args = 0..=1, require_equals = true, default_missing_value = "module")]
    pub openapi: Option<Document>,
}

/// Which OpenAPI document.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Document {
    /// The QKD module's API.
    Module,
    /// The same with api.profile = "ok".
    ModuleOk,
    /// The first, with POST on get-key and close, which is an extension.
    ModuleExtended,
    /// What a KMS serves: key-material.
    Kms,
}

impl From<Document> for openapi::Document {
    fn from(document: Document) -> Self {
        match document {
            Document::Module => Self::Module,
            Document::ModuleOk => Self::ModuleOk,
            Document::ModuleExtended => Self::ModuleExtended,
            Document::Kms => Self::Kms,
        }
    }
}

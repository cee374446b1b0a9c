//! What can be wrong with certificates, keys and authorities.

use std::io;
use std::path::PathBuf;

/// TLS cannot be set up as configured.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("[tls] {setting}: {} cannot be read: {source}", file.display())]
    Unreadable {
        /// Which setting names it.
        setting: &'static str,
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file does not hold what it must.
    #[error("[tls] {setting}: {}: {why}", file.display())]
    Wrong {
        /// Which setting names it.
        setting: &'static str,
        /// The file.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Others can read or change the private key.
    #[error(
        "[tls] key: {} has mode {mode:o}: whoever can read it can be this QKD module; chmod 600, or 640 with the \
         daemon's own group", file.display()
    )]
    KeyLiesOpen {
        /// The file.
        file: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Key, certificate and authorities do not fit together.
    #[error("[tls] certificate, key and authorities cannot be used together: {0}")]
    Unusable(String),
    /// The policy demands what the processor cannot do.
    #[error(
        "[tls] key_exchange = \"hybrid-required\", but this processor lacks instructions that X25519MLKEM768 needs here \
         ({needs}); use another host, or \"hybrid-preferred\""
    )]
    NoHybrid {
        /// Instructions that are needed.
        needs: &'static str,
    },
}

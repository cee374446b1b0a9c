//! Settings that are one of a few words.

use super::rule::Named;

/// Which of the two ends decides what key goes to which key stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Decides.
    Leader,
    /// Follows what the other end decides.
    Follower,
}

impl Named for Role {
    const ALL: &'static [(&'static str, Self)] = &[("leader", Self::Leader), ("follower", Self::Follower)];
}

/// How the API says that a call succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// 201, 205 and 204, as the paths of the OpenAPI document say.
    OpenApi,
    /// 200 with a body for all three, as the status table says.
    Ok,
}

impl Named for Profile {
    const ALL: &'static [(&'static str, Self)] = &[("openapi", Self::OpenApi), ("ok", Self::Ok)];
}

/// What kind of memory holds key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyMemory {
    /// Secret memory where the kernel gives it, otherwise locked memory.
    Best,
    /// Secret memory only.
    Secret,
    /// Locked memory, whatever the kernel gives.
    Locked,
}

impl Named for KeyMemory {
    const ALL: &'static [(&'static str, Self)] =
        &[("best", Self::Best), ("secret", Self::Secret), ("locked", Self::Locked)];
}

/// Which key exchange a TLS connection must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyExchange {
    /// X25519MLKEM768 with whoever can do it, and X25519 or an elliptic curve of NIST with others.
    HybridPreferred,
    /// X25519MLKEM768 only.
    HybridRequired,
}

impl Named for KeyExchange {
    const ALL: &'static [(&'static str, Self)] =
        &[("hybrid-preferred", Self::HybridPreferred), ("hybrid-required", Self::HybridRequired)];
}

impl Named for log::LevelFilter {
    const ALL: &'static [(&'static str, Self)] = &[
        ("off", Self::Off),
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];
}

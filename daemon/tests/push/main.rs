//! Pushing against a KMS that behaves as it pleases: a scripted server on a raw socket.
//!
//! Whatever the KMS does, it must see the chunks for the first time in their order, and the same octets under the same
//! index every time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected has failed"
)]

mod control;
mod document;
mod kms;
mod stream;
mod success;
mod trouble;

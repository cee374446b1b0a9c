//! The API over real sockets: a client that can send wrong HTTP at one side, a scripted key agreement at the other.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected has failed"
)]

mod arbitrary;
mod bad_input;
mod calls;
mod client;
mod http;
mod limits;
mod module;

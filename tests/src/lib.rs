//! What the whole-system tests share: the project's programs as real processes on loopback.
//!
//! Nothing here sleeps to be right: every wait is for a line, a socket or an exit, with a generous deadline.

pub mod adversaries;
pub mod conform;
pub mod documentation;
pub mod ends;
pub mod holding_kms;
pub mod http;
pub mod key_search;
pub mod memory_scan;
pub mod model;
pub mod module;
pub mod operator;
pub mod ports;
pub mod process;
pub mod programs;
pub mod push_bench;
pub mod scenarios;
pub mod schema;
pub mod secure;
pub mod test_key;
pub mod witness;

use std::time::Duration;

/// Longest wait for anything that a test expects to happen.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until something is so.
///
/// # Panics
/// When it is not so in time.
pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let until = std::time::Instant::now() + DEADLINE;
    while !is_so() {
        assert!(std::time::Instant::now() < until, "no {what} in time");
        std::thread::sleep(Duration::from_millis(20));
    }
}

//! What is fuzzed. A [`Target`] takes any octets and panics when a promise is broken; libFuzzer drives it (`./dev fuzz`),
//! and so does a bounded, seeded test (`tests/bounded.rs`) wherever `cargo test` runs.

mod api_body;
mod card;
mod config;
mod contract;
mod input;
mod kms_body;
mod ledger_rows;
pub mod mutate;
mod peer_core;
mod peer_frame;
mod push_answer;
mod vfio_user_client;
mod vfio_user_server;

use std::sync::atomic::{AtomicU64, Ordering};

/// Deliveries of key that were held against the books: where there are none, nothing can be found.
pub static DELIVERED: AtomicU64 = AtomicU64::new(0);
/// Blocks that the driver took from a card.
pub static TAKEN: AtomicU64 = AtomicU64::new(0);

fn reach(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// One thing that reads what others wrote.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, also that of its libFuzzer program.
    pub name: &'static str,
    /// Reads any octets. Panics when a promise is broken.
    pub run: fn(&[u8]),
    /// Right inputs and near ones to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Inputs of the bounded test.
    pub bounded: u32,
    /// Longest input that is of use, in octets.
    pub longest: usize,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    api_body::TARGET,
    card::TARGET,
    config::TARGET,
    contract::TARGET,
    kms_body::TARGET,
    ledger_rows::TARGET,
    peer_core::TARGET,
    peer_frame::TARGET,
    push_answer::TARGET,
    vfio_user_client::TARGET,
    vfio_user_server::TARGET,
];

/// Runs the target of that name.
///
/// # Panics
/// When there is none, and when a promise is broken.
pub fn run(name: &str, octets: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target of this name");
    (target.run)(octets);
}

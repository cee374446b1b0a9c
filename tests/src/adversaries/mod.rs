//! Clients, KMSs and peers that say everything wrong that their protocol allows and forbids. They share no code with what they
//! attack. Hostile cards are in `tests/witness/scripted_card.py`, and in `fuzz/targets` as one that answers anything.

pub mod client;
pub mod good;
pub mod kms;
pub mod peer;

use std::fs;

use nix::unistd::Pid;

/// Memory of a process in KiB that is in RAM.
///
/// # Panics
/// When there is no such process.
#[must_use]
pub fn resident_kib(pid: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it has memory");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number of KiB")
}

/// Time of a process on processors, in hundredths of a second.
///
/// # Panics
/// When there is no such process.
#[must_use]
pub fn processor_time(pid: Pid) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    let (_, after_name) = stat.rsplit_once(')').expect("a name in brackets");
    after_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

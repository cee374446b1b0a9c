//! How much memory each process takes, and whether that grows.

use std::collections::BTreeMap;

use crate::stage::cast::PAIR;

/// Samples of one process.
#[derive(Debug, Default)]
struct Samples {
    kib: Vec<u64>,
}

/// Memory of all processes over the run.
#[derive(Debug, Default)]
pub(super) struct Memory {
    processes: BTreeMap<&'static str, Samples>,
}

/// Memory of one process, in KiB.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct Usage {
    pub(super) process: &'static str,
    /// Greatest resident set seen.
    pub(super) peak_kib: u64,
    /// Greatest in the first quarter of the run.
    pub(super) first_quarter_kib: u64,
    /// Greatest in the last quarter.
    pub(super) last_quarter_kib: u64,
}

impl Usage {
    /// True if the last quarter needs noticeably more than the first: an eighth, and 8 MiB. The pair may: what its cards
    /// retain while key cannot be delivered is its memory.
    pub(super) fn grew(&self) -> bool {
        self.process != PAIR
            && self.last_quarter_kib > self.first_quarter_kib + self.first_quarter_kib / 8 + (8 << 10)
    }
}

impl Memory {
    /// Looks at one process.
    pub(super) fn sample(&mut self, process: &'static str, id: u32) {
        if let Ok(text) = std::fs::read_to_string(format!("/proc/{id}/status"))
            && let Some(kib) = resident_kib(&text)
        {
            self.processes.entry(process).or_default().kib.push(kib);
        }
    }

    /// What was seen of each process.
    pub(super) fn usage(&self) -> Vec<Usage> {
        let all = self.processes.iter().map(|(process, samples)| {
            let kib = &samples.kib;
            let quarter = kib.len().div_ceil(4);
            let peak = |part: Option<&[u64]>| part.and_then(|part| part.iter().max().copied()).unwrap_or(0);
            Usage {
                process,
                peak_kib: peak(Some(kib)),
                first_quarter_kib: peak(kib.get(..quarter)),
                last_quarter_kib: peak(kib.get(kib.len() - quarter..)),
            }
        });
        all.collect()
    }
}

fn resident_kib(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    value.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_grows_is_told_from_memory_that_is_flat() {
        let usage = |kib: Vec<u64>| {
            let mut memory = Memory::default();
            memory.processes.insert("p", Samples { kib });
            memory.usage().remove(0)
        };
        assert!(usage((0..100).map(|i| 20_000 + i * 500).collect()).grew());
        assert!(!usage((0..100).map(|i| 20_000 + i % 7).collect()).grew());
        let short = usage(vec![5]);
        assert_eq!((short.peak_kib, short.first_quarter_kib, short.last_quarter_kib), (5, 5, 5));
    }

    #[test]
    fn this_process_is_seen() {
        let mut memory = Memory::default();
        memory.sample("self", std::process::id());
        assert!(memory.usage()[0].peak_kib > 100);
    }
}

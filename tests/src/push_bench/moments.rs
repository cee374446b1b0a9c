//! The moments that cards and daemons tell in their traces, and the latencies between them.

/// A latency's values, in microseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latency(Vec<f64>);

impl Latency {
    /// Of these values, in microseconds.
    #[must_use]
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    /// How many values there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The least value that so many hundredths of all are not above; not a number where there is none.
    ///
    /// # Panics
    /// When there is no such hundredth.
    #[must_use]
    pub fn percentile(&self, hundredths: usize) -> f64 {
        assert!((1..=100).contains(&hundredths), "percent");
        let at = (self.0.len() * hundredths).div_ceil(100);
        at.checked_sub(1).and_then(|at| self.0.get(at)).copied().unwrap_or(f64::NAN)
    }

    /// The median.
    #[must_use]
    pub fn median(&self) -> f64 {
        self.percentile(50)
    }
}

/// What one daemon's trace and its card's say.
#[derive(Debug)]
pub struct Latencies {
    /// From a block's entry in the card's ring to the daemon's thread that sees it.
    pub seen: Latency,
    /// From the same to key of that block being committed: it may be pushed.
    pub committed: Latency,
    /// From there to its first chunk being written to the KMS's socket.
    pub written: Latency,
    /// The ledger's synced writes.
    pub writes: Latency,
    /// The card's stores of the cell, each after a write, as the daemon sees them.
    pub cells: Latency,
}

/// A line of a trace: its moment in nanoseconds, and what happened.
fn moments(trace: &str) -> impl Iterator<Item = (u64, &str)> {
    trace.lines().filter_map(|line| {
        let (ns, what) = line.split_once("ns=")?.1.split_once(' ')?;
        Some((ns.parse().ok()?, what))
    })
}

#[allow(clippy::cast_precision_loss, reason = "nanoseconds of a run")]
fn micros(from: u64, to: u64) -> f64 {
    (to as f64 - from as f64) / 1e3
}

impl Latencies {
    /// `cards` is the trace of both cards, of which this daemon's has this serial number as `0x…`; `daemon` is the daemon's. What
    /// happened before `begun`, of the same clock, is left out.
    #[must_use]
    pub fn of(cards: &str, serial: &str, daemon: &str, begun: u64) -> Self {
        let prefix = format!("card {serial} block ");
        let announced: std::collections::HashMap<&str, u64> = moments(cards)
            .filter(|(ns, _)| *ns >= begun)
            .filter_map(|(ns, what)| Some((what.strip_prefix(&prefix)?.strip_suffix(" announced")?, ns)))
            .collect();
        let [mut seen, mut committed, mut written, mut writes, mut cells] = [const { Vec::new() }; 5];
        // The first key of a block that waits to be written: position and moment of its commitment.
        let mut waiting: Option<(u64, u64)> = None;
        for (ns, what) in moments(daemon).filter(|(ns, _)| *ns >= begun) {
            let words: Vec<&str> = what.split(' ').collect();
            match words[..] {
                ["block", block, "seen"] => {
                    seen.extend(announced.get(block).map(|at| micros(*at, ns)));
                }
                ["stream", _, "from", first, "block", block, "committed"] => {
                    if let (Some(at), Ok(first)) = (announced.get(block), first.parse()) {
                        committed.push(micros(*at, ns));
                        waiting.get_or_insert((first, ns));
                    }
                }
                ["stream", _, "below", up_to, "written"] => {
                    let up_to: u64 = up_to.parse().unwrap_or(0);
                    if let Some((_, at)) = waiting.take_if(|(first, _)| up_to > *first) {
                        written.push(micros(at, ns));
                    }
                }
                ["write", _, "took", took, "ns"] => {
                    writes.extend(took.parse().ok().map(|took| micros(0, took)));
                }
                ["cell", _, "took", took, "ns"] => {
                    cells.extend(took.parse().ok().map(|took| micros(0, took)));
                }
                _ => {}
            }
        }
        let [seen, committed, written, writes, cells] =
            [seen, committed, written, writes, cells].map(Latency::of);
        Self { seen, committed, written, writes, cells }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_came() {
        let latency = Latency::of((1..=200).rev().map(f64::from).collect());
        let close = |is: f64, wanted: f64| (is - wanted).abs() < f64::EPSILON;
        assert!(close(latency.median(), 100.0) && close(latency.percentile(99), 198.0));
        assert!(close(latency.percentile(100), 200.0) && close(latency.percentile(1), 2.0));
        assert!(Latency::default().median().is_nan());
    }

    #[test]
    fn moments_are_joined_by_block_and_position_and_not_by_their_order() {
        let cards = "[T] ns=900 card 0xa block 7/0 announced\nns=1000 card 0xa block 7/1 announced\n\
                     ns=1500 card 0xb block 7/1 announced\nns=21000 card 0xa block 7/2 announced";
        let daemon = "ns=950 block 7/0 seen\nns=3000 block 7/1 seen\nns=4000 write 5 took 1500 ns\nns=4500 cell 5 took 400 ns\n\
                      ns=5000 stream s from 10 block 7/1 committed\nns=5500 stream s below 10 written\n\
                      ns=7000 stream s below 12 written\nns=8000 stream s below 14 written\n\
                      ns=25000 stream s from 12 block 7/2 committed\nother words";
        let latencies = Latencies::of(cards, "0xa", daemon, 960);
        assert_eq!(latencies.seen, Latency::of(vec![2.0]));
        assert_eq!(latencies.committed, Latency::of(vec![4.0, 4.0]));
        assert_eq!(latencies.written, Latency::of(vec![2.0]));
        assert_eq!(latencies.writes, Latency::of(vec![1.5]));
        assert_eq!(latencies.cells, Latency::of(vec![0.4]));
    }
}

//! Which processor a process runs on: what is compared takes turns on one, and what serves both stays on another.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The two processors of a benchmark.
#[derive(Clone, Copy, Debug)]
pub struct Processors {
    /// For daemons, and for wrk in turn with them.
    measured: usize,
    /// For cards, sink and the benchmark itself.
    serving: usize,
}

impl Processors {
    /// The first and the last that this process may use. `None` where that is one and the same.
    ///
    /// # Panics
    /// When the kernel does not say which it may use.
    #[must_use]
    pub fn choose() -> Option<Self> {
        let allowed = sched_getaffinity(Pid::from_raw(0)).expect("the processors of this process");
        let mut usable = (0..CpuSet::count()).filter(|processor| allowed.is_set(*processor) == Ok(true));
        let measured = usable.next()?;
        usable.next_back().map(|serving| Self { measured, serving })
    }
}

/// Starts something that is measured; what it starts stays on its processor.
pub fn measured<T>(processors: Option<Processors>, start: impl FnOnce() -> T) -> T {
    on(processors.map(|processors| processors.measured));
    let started = start();
    serving(processors);
    started
}

/// The calling thread, and what it starts from now on, serves.
pub fn serving(processors: Option<Processors>) {
    on(processors.map(|processors| processors.serving));
}

/// The calling thread, and what it starts from now on, runs on this processor.
fn on(processor: Option<usize>) {
    let Some(processor) = processor else { return };
    let mut set = CpuSet::new();
    set.set(processor)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .expect("a processor that may be used");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_started_as_measured_runs_on_another_processor_than_the_rest() {
        let here = || sched_getaffinity(Pid::from_raw(0)).unwrap();
        let Some(processors) = Processors::choose() else { return };
        let there = measured(Some(processors), here);
        assert!(there.is_set(processors.measured).unwrap() && !there.is_set(processors.serving).unwrap());
        assert!(here().is_set(processors.serving).unwrap() && !here().is_set(processors.measured).unwrap());
    }
}

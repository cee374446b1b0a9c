//! Time on processors, and what is made of it.

use nix::unistd::Pid;

/// Time on processors, of all threads, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cpu {
    /// In the program.
    pub user: f64,
    /// In the kernel on the program's behalf.
    pub system: f64,
}

impl Cpu {
    /// Of a process that lives, since it began.
    ///
    /// # Panics
    /// When there is no such process.
    #[must_use]
    pub fn of(process: Pid) -> Self {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("the process lives");
        let (_, after_name) = stat.rsplit_once(')').expect("a name in brackets");
        // In hundredths of a second, on every Linux.
        let mut times = after_name.split_whitespace().skip(11).map(|ticks| ticks.parse::<f64>());
        let mut next = || times.next().and_then(Result::ok).expect("a number of ticks") / 100.0;
        Self { user: next(), system: next() }
    }

    /// Both.
    #[must_use]
    pub fn total(self) -> f64 {
        self.user + self.system
    }

    /// With another process's.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { user: self.user + other.user, system: self.system + other.system }
    }

    /// Since an earlier look.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self { user: self.user - earlier.user, system: self.system - earlier.system }
    }
}

/// What somebody did in some time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// Pushes.
    pub pushes: f64,
    /// Time on processors that they took.
    pub cpu: Cpu,
    /// Seconds that they took.
    pub seconds: f64,
}

impl Work {
    /// Pushes per second on a processor.
    #[must_use]
    pub fn per_cpu_second(self) -> f64 {
        self.pushes / self.cpu.total()
    }

    /// Microseconds on a processor for one push.
    #[must_use]
    pub fn micros(self) -> f64 {
        self.cpu.total() * 1e6 / self.pushes
    }

    /// Pushes per second.
    #[must_use]
    pub fn rate(self) -> f64 {
        self.pushes / self.seconds
    }

    /// Share of the time on processors that was the kernel's.
    #[must_use]
    pub fn system_share(self) -> f64 {
        self.cpu.system / self.cpu.total()
    }
}

/// The median.
#[must_use]
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        length if length.is_multiple_of(2) => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert!((median([3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median([4.0, 1.0, 2.0, 9.0]) - 3.0).abs() < f64::EPSILON);
        assert!(median([]).is_nan());
    }

    #[test]
    fn work_is_counted_in_time_on_processors_of_program_and_kernel() {
        let earlier = Cpu { user: 1.0, system: 1.0 };
        let cpu = Cpu { user: 2.5, system: 1.5 }.since(earlier);
        let work = Work { pushes: 1e6, cpu, seconds: 4.0 };
        assert!((work.per_cpu_second() - 5e5).abs() < 1e-6);
        assert!((work.micros() - 2.0).abs() < 1e-9);
        assert!((work.rate() - 2.5e5).abs() < 1e-6);
        assert!((work.system_share() - 0.25).abs() < 1e-9);
    }

    #[test]
    fn the_time_of_this_process_grows_with_its_work() {
        let begun = Cpu::of(Pid::this());
        while Cpu::of(Pid::this()).since(begun).total() < 0.05 {}
    }
}

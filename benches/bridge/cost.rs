//! Processor time of a process, from `/proc/<pid>/stat` (in steps of 10 ms).

use std::time::Duration;

/// User and system time of a process up to now.
#[derive(Debug, Clone, Copy)]
pub struct Cost(Duration);

impl Cost {
    pub fn of(pid: u32) -> Self {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
        let after_name = stat.rsplit(')').next().expect("a stat line");
        let ticks: u64 = after_name
            .split_whitespace()
            .skip(11) // utime and stime are fields 14 and 15, the state behind the name is 3
            .take(2)
            .map(|field| field.parse::<u64>().expect("ticks"))
            .sum();
        Self(Duration::from_millis(10 * ticks))
    }

    /// What it has used since.
    pub fn since(self, pid: u32) -> Duration {
        Self::of(pid).0.saturating_sub(self.0)
    }

    /// What it has used since, of one core over `span`.
    pub fn percent_of(self, pid: u32, span: Duration) -> f64 {
        100.0 * self.since(pid).as_secs_f64() / span.as_secs_f64()
    }
}

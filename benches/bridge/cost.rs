//! Processor time of a process, from `/proc/<pid>/stat` (in steps of 10 ms).

use std::collections::BTreeMap;
use std::time::Duration;

/// User and system time of a process up to now.
#[derive(Debug, Clone, Copy)]
pub struct Cost(Duration);

impl Cost {
    pub fn of(pid: u32) -> Self {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
        Self(used(&stat))
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

/// Processor time of a process by the names of its threads, the greatest first.
pub fn by_thread(pid: u32) -> Vec<(String, Duration)> {
    let mut by_name = BTreeMap::<String, Duration>::new();
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    for thread in threads.flatten() {
        let read = |file| std::fs::read_to_string(thread.path().join(file));
        if let (Ok(name), Ok(stat)) = (read("comm"), read("stat")) {
            *by_name.entry(name.trim().to_owned()).or_default() += used(&stat);
        }
    }
    let mut threads: Vec<_> = by_name.into_iter().collect();
    threads.sort_by_key(|(_, used)| std::cmp::Reverse(*used));
    threads
}

/// Fields 14 and 15, utime and stime; the state behind the name is field 3.
fn used(stat: &str) -> Duration {
    let after_name = stat.rsplit(')').next().expect("a stat line");
    let fields = after_name.split_whitespace().skip(11).take(2);
    let ticks: u64 = fields
        .map(|field| field.parse::<u64>().expect("ticks"))
        .sum();
    Duration::from_millis(10 * ticks)
}

//! What a process has used, from `/proc`: processor time (in steps of 10 ms) whole and by thread,
//! resident memory, and how often its threads went to sleep.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// User and system time of a process up to now.
#[derive(Debug, Clone)]
pub struct Cost {
    whole: Duration,
    /// By name of the thread; what has ended is only in `whole`.
    threads: BTreeMap<String, Duration>,
}

/// Processor time of the bridge by what it was used for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Parts {
    /// The runtime's threads: HTTP, splitting, the forwarder, and making messages.
    pub ingress: Duration,
    /// The thread that writes the database.
    pub journal: Duration,
    /// lapin's threads.
    pub publishing: Duration,
}

impl Cost {
    pub fn of(pid: u32) -> Self {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
        let mut threads = BTreeMap::<String, Duration>::new();
        for thread in fs::read_dir(format!("/proc/{pid}/task"))
            .expect("the process runs")
            .flatten()
        {
            let read = |file| fs::read_to_string(thread.path().join(file));
            if let (Ok(name), Ok(stat)) = (read("comm"), read("stat")) {
                *threads.entry(name.trim().to_owned()).or_default() += used(&stat);
            }
        }
        Self {
            whole: used(&stat),
            threads,
        }
    }

    /// What the process has used since.
    pub fn since(&self, pid: u32) -> Duration {
        Self::of(pid).whole.saturating_sub(self.whole)
    }

    /// The same by part, which add up to the whole: each thread's time is rounded down.
    pub fn parts_since(&self, pid: u32) -> Parts {
        let now = Self::of(pid);
        let mut parts = Parts::default();
        for (name, used) in &now.threads {
            let before = self.threads.get(name).copied().unwrap_or_default();
            let part = match name.as_str() {
                name if name.starts_with("journal") => &mut parts.journal,
                name if name.starts_with("lapin") => &mut parts.publishing,
                _ => &mut parts.ingress,
            };
            *part += used.saturating_sub(before);
        }
        let whole = now.whole.saturating_sub(self.whole).as_secs_f64();
        let sum = (parts.ingress + parts.journal + parts.publishing).as_secs_f64();
        let factor = if sum > 0.0 { whole / sum } else { 0.0 };
        Parts {
            ingress: parts.ingress.mul_f64(factor),
            journal: parts.journal.mul_f64(factor),
            publishing: parts.publishing.mul_f64(factor),
        }
    }
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

/// Resident memory now, in MiB.
pub fn resident_mib(pid: u32) -> f64 {
    memory_mib(pid, "VmRSS:")
}

/// The most it was since [`forget_peak`] or the start, in MiB.
pub fn peak_mib(pid: u32) -> f64 {
    memory_mib(pid, "VmHWM:")
}

/// Lets the peak begin anew.
pub fn forget_peak(pid: u32) {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("the process is ours");
}

fn memory_mib(pid: u32, field: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    number(&status, field) / 1024.0
}

/// How often threads of a process went to sleep by themselves up to now.
pub fn voluntary_switches(pid: u32) -> f64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let statuses = threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok());
    statuses
        .map(|status| number(&status, "voluntary_ctxt_switches:"))
        .sum()
}

fn number(status: &str, field: &str) -> f64 {
    let line = status.lines().find(|line| line.starts_with(field));
    let value = line.and_then(|line| line.split_whitespace().nth(1));
    value.and_then(|value| value.parse().ok()).unwrap_or(0.0)
}

//! The resource usage of a process, from `/proc`: CPU time (in steps of 10 ms) in total and by
//! thread, resident memory, bytes written to disk, and how often its threads went to sleep.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

/// The resolution of CPU time in the kernel.
const TICK: Duration = Duration::from_millis(10);
/// A process that uses at most one tick in this time is idle.
const REST: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_mins(10);

/// User and system time of a process so far.
#[derive(Debug, Clone)]
pub struct Cost {
    whole: Duration,
    /// By name of the thread; ended threads are only in `whole`.
    threads: BTreeMap<String, Duration>,
}

/// CPU time of the bridge by purpose.
#[derive(Debug, Clone, Copy, Default)]
pub struct Parts {
    /// The threads of the async runtime: HTTP, splitting, the forwarder, and building messages.
    pub ingress: Duration,
    /// The threads that write the database and do its checkpoints.
    pub journal: Duration,
    /// The threads that fill the archive, if there is one.
    pub archive: Option<Duration>,
    /// The threads of lapin.
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

    /// CPU time that the process has used since.
    pub fn since(&self, pid: u32) -> Duration {
        Self::of(pid).whole.saturating_sub(self.whole)
    }

    /// As [`Cost::since`], by purpose. Because each thread's time is rounded down, the parts are
    /// scaled to add up to the total.
    pub fn parts_since(&self, pid: u32) -> Parts {
        let now = Self::of(pid);
        let mut parts = Parts::default();
        for (name, used) in &now.threads {
            let before = self.threads.get(name).copied().unwrap_or_default();
            let part = match name.as_str() {
                "checkpoint" => &mut parts.journal,
                name if name.starts_with("journal") => &mut parts.journal,
                name if name.starts_with("archive") => parts.archive.get_or_insert_default(),
                name if name.starts_with("lapin") => &mut parts.publishing,
                _ => &mut parts.ingress,
            };
            *part += used.saturating_sub(before);
        }
        let whole = now.whole.saturating_sub(self.whole).as_secs_f64();
        let archive = parts.archive.unwrap_or_default();
        let sum = (parts.ingress + parts.journal + archive + parts.publishing).as_secs_f64();
        let factor = if sum > 0.0 { whole / sum } else { 0.0 };
        Parts {
            ingress: parts.ingress.mul_f64(factor),
            journal: parts.journal.mul_f64(factor),
            archive: parts.archive.map(|archive| archive.mul_f64(factor)),
            publishing: parts.publishing.mul_f64(factor),
        }
    }
}

/// Fields 14 and 15 (utime and stime); the state after the name is field 3.
fn used(stat: &str) -> Duration {
    let after_name = stat.rsplit(')').next().expect("a stat line");
    let fields = after_name.split_whitespace().skip(11).take(2);
    let ticks: u64 = fields
        .map(|field| field.parse::<u64>().expect("ticks"))
        .sum();
    TICK * u32::try_from(ticks).unwrap_or(u32::MAX)
}

/// Waits until a process is idle, including its background work; panics after [`REST_MAX`].
pub async fn at_rest(pid: u32) {
    let begin = Instant::now();
    loop {
        let used = Cost::of(pid);
        tokio::time::sleep(REST).await;
        if used.since(pid) <= TICK {
            return;
        }
        assert!(begin.elapsed() < REST_MAX, "process {pid} does not rest");
    }
}

/// Bytes that a process has caused to be written to disk so far: whole pages, counted each time
/// that a changed page is written back.
pub fn bytes_written(pid: u32) -> f64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).expect("the process is ours");
    number(&io, "write_bytes:")
}

/// Current resident memory in MiB.
pub fn resident_mib(pid: u32) -> f64 {
    memory_mib(pid, "VmRSS:")
}

/// Peak resident memory since [`forget_peak`] or the start, in MiB.
pub fn peak_mib(pid: u32) -> f64 {
    memory_mib(pid, "VmHWM:")
}

/// Resets the peak of resident memory.
pub fn forget_peak(pid: u32) {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("the process is ours");
}

fn memory_mib(pid: u32, field: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    number(&status, field) / 1024.0
}

/// Voluntary context switches of all threads so far.
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

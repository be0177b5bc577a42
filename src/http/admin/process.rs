//! The standard metrics of a process: <https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>.

use procfs::process::{LimitValue, Process};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// The metrics of this process at this moment. Values that the kernel does not report are left out,
/// as the standard demands.
pub(super) fn registry() -> Registry {
    let mut registry = Registry::default();
    let Ok(process) = Process::myself() else {
        return registry;
    };
    let seconds = |ticks| count(ticks) / count(procfs::ticks_per_second());
    let stat = process.stat().ok();
    if let Some(stat) = &stat {
        let used = ConstCounter::new(seconds(stat.utime + stat.stime));
        let help = "CPU time used in user and system mode";
        registry.register("process_cpu_seconds", help, used);
    }
    let mut gauge =
        |name, help, value| registry.register(name, help, ConstGauge::<f64>::new(value));
    if let Some(stat) = &stat {
        let resident = count(stat.rss) * count(procfs::page_size());
        gauge("process_resident_memory_bytes", "Resident memory", resident);
        let help = "Virtual memory";
        gauge("process_virtual_memory_bytes", help, count(stat.vsize));
        if let Ok(boot) = procfs::boot_time_secs() {
            let help = "When the process started, in seconds since 1970";
            let started = count(boot) + seconds(stat.starttime);
            gauge("process_start_time_seconds", help, started);
        }
    }
    if let Ok(open) = process.fd_count() {
        gauge(
            "process_open_fds",
            "Open file descriptors",
            count(open as u64),
        );
    }
    let limits = process.limits();
    if let Ok(LimitValue::Value(most)) = limits.map(|limits| limits.max_open_files.soft_limit) {
        let help = "Maximum number of open file descriptors";
        gauge("process_max_fds", help, count(most));
    }
    registry
}

#[expect(
    clippy::cast_precision_loss,
    reason = "no such number has more than 52 bits"
)]
fn count(number: u64) -> f64 {
    number as f64
}

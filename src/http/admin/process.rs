//! The standard metrics of a process: <https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>.

use std::sync::atomic::AtomicU64;

use procfs::process::{LimitValue, Process, Stat};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Of this process now. What the kernel does not tell is left out, as the standard wants it.
pub(super) fn registry() -> Registry {
    let mut registry = Registry::default();
    let Ok(process) = Process::myself() else {
        return registry;
    };
    if let Ok(stat) = process.stat() {
        register_stat(&mut registry, &stat);
    }
    if let Ok(open) = process.fd_count() {
        let help = "Open file descriptors";
        gauge(&mut registry, "process_open_fds", help, count(open as u64));
    }
    let limits = process.limits();
    if let Ok(LimitValue::Value(most)) = limits.map(|limits| limits.max_open_files.soft_limit) {
        let help = "Open file descriptors at most";
        gauge(&mut registry, "process_max_fds", help, count(most));
    }
    registry
}

fn register_stat(registry: &mut Registry, stat: &Stat) {
    let ticks = stat.utime + stat.stime;
    let seconds = Counter::<f64, AtomicU64>::default();
    seconds.inc_by(count(ticks) / count(procfs::ticks_per_second()));
    registry.register(
        "process_cpu_seconds",
        "Processor time spent, in user and system mode",
        seconds,
    );
    let pages = count(stat.rss) * count(procfs::page_size());
    for (name, help, value) in [
        ("process_resident_memory_bytes", "Memory in use", pages),
        (
            "process_virtual_memory_bytes",
            "Addresses in use",
            count(stat.vsize),
        ),
    ] {
        gauge(registry, name, help, value);
    }
    if let Ok(boot) = procfs::boot_time_secs() {
        let after = count(stat.starttime) / count(procfs::ticks_per_second());
        gauge(
            registry,
            "process_start_time_seconds",
            "When the process started, in seconds since 1970",
            count(boot) + after,
        );
    }
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: f64) {
    let gauge = Gauge::<f64, AtomicU64>::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}

#[expect(
    clippy::cast_precision_loss,
    reason = "no such number has more than 52 bits"
)]
fn count(number: u64) -> f64 {
    number as f64
}

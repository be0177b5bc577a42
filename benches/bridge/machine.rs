//! Describes the machine of a measurement, and decides whether it is fit for one.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::settings::{Part, Settings};
use crate::statistics::quantile;

const LOOK: Duration = Duration::from_secs(3);
const FSYNCS: usize = 200;

/// Rejects a machine that is busy with other work or has too little disk space.
///
/// # Errors
/// Why a measurement on this machine would be worthless now.
pub fn examine(settings: &Settings) -> Result<(), String> {
    fs::create_dir_all(&settings.dir)
        .map_err(|error| format!("{} cannot be made: {error}", settings.dir.display()))?;
    let needed = settings
        .parts
        .iter()
        .map(|part| bytes_needed(*part, settings));
    let needed = needed.max().unwrap_or_default();
    let space = deskbridge::journal::Space::of(&settings.dir)
        .map_err(|error| format!("{} cannot be asked: {error}", settings.dir.display()))?;
    let free = space.free;
    if free < needed {
        return Err(format!(
            "too little disk: {} has {} MiB free, {} MiB are needed; BENCH_DIR names another place",
            settings.dir.display(),
            free >> 20,
            needed >> 20
        ));
    }
    let busy = busy_percent();
    if busy > settings.spread_max {
        return Err(format!(
            "the machine is busy: something else uses {busy:.0} % of its processors; \
             at most {:.0} % may be used",
            settings.spread_max
        ));
    }
    Ok(())
}

/// Bytes of disk space that a part needs: journal and broker each store every event once, with
/// overhead.
fn bytes_needed(part: Part, settings: &Settings) -> u64 {
    const EVENT: u64 = 6 << 10;
    let events = match part {
        Part::Idle => 0,
        Part::Speed | Part::Answers | Part::Steady | Part::Retention | Part::Ext4 => 300_000,
        Part::Outage | Part::Overload => settings.backlog,
        Part::Scale => settings.scale_max,
    };
    (1 << 30) + EVENT * events as u64
}

/// CPU usage of all other processes, in percent of all cores.
fn busy_percent() -> f64 {
    let before = ticks();
    std::thread::sleep(LOOK);
    let after = ticks();
    let [idle, all] = [after.0 - before.0, after.1 - before.1];
    100.0 * (1.0 - idle / all.max(1.0))
}

/// Idle ticks (including waits for a disk) and total ticks of all cores.
fn ticks() -> (f64, f64) {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = stat.lines().next().unwrap_or_default();
    let fields: Vec<f64> = first
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    let idle = fields.iter().skip(3).take(2).sum();
    (idle, fields.iter().take(8).sum())
}

/// Processor, memory, disk and versions.
pub fn describe(dir: &Path, rabbitmq: &str) -> Value {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models = cpus
        .lines()
        .filter_map(|line| line.strip_prefix("model name"));
    let model = models
        .clone()
        .next()
        .map_or("unknown", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib: u64 = memory
        .split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse().ok())
        .unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel: Vec<&str> = kernel.trim().split(['.', '-']).take(2).collect();
    let [p50, p99] = fsync_ms(dir);
    json!({
        "cores": models.count().max(1),
        "processor": model,
        "memory_gib": kib.div_ceil(1 << 20),
        "linux": kernel.join("."),
        "fsync_p50_ms": p50,
        "fsync_p99_ms": p99,
        "rabbitmq": rabbitmq,
        "rustc": said(Command::new("rustc").arg("--version")),
    })
}

/// The measured commit: the last one that changed the product itself, marked if there are
/// uncommitted changes.
pub fn commit() -> String {
    const PRODUCT: [&str; 5] = [
        ".cargo",
        "src",
        "Cargo.toml",
        "Cargo.lock",
        "rust-toolchain.toml",
    ];
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.current_dir(env!("CARGO_MANIFEST_DIR"));
        said(git.args(arguments).arg("--").args(PRODUCT))
    };
    let commit = git(&["log", "-1", "--format=%h"]);
    let is_clean = git(&["status", "--porcelain"]).is_empty();
    if is_clean {
        commit
    } else {
        format!("{commit} with changes")
    }
}

fn said(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout);
    let text = output.unwrap_or_default();
    String::from_utf8_lossy(&text).trim().to_owned()
}

/// Median and p99, in milliseconds, of appending 4 KiB to a file and syncing it.
fn fsync_ms(dir: &Path) -> [f64; 2] {
    let path = dir.join("fsync-probe");
    let mut file = fs::File::create(&path).expect("a file");
    let mut took = Vec::new();
    for _ in 0..FSYNCS {
        let begin = Instant::now();
        file.write_all(&[7; 4096]).expect("written");
        file.sync_data().expect("synced");
        took.push(begin.elapsed());
    }
    let _ = fs::remove_file(path);
    took.sort_unstable();
    [0.5, 0.99].map(|part| quantile(&took, part).as_secs_f64() * 1e3)
}

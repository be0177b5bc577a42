//! `BENCH_*`: what is measured, how long, and where the results go.
//!
//! Only a run with the defaults (or with more rounds) is a run of record: its results go to
//! `bench/results.json`, from which `docs/performance.md` is written. All other runs are
//! exploratory and write their results to `target/bench-results.json`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The parts that `BENCH_ONLY=speed,outage` selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Sessions per second and CPU time, next to the publisher and the forwarder.
    Speed,
    /// Response times at half load, with a working and with a frozen broker.
    Answers,
    /// A long outage, restarts with a full journal, and draining of the backlog.
    Outage,
    /// Startup time, size, and the cost of an idle bridge.
    Idle,
    /// A sender that is faster than the broker, next to the forwarder.
    Overload,
    /// A constant rate that both can sustain, next to the forwarder.
    Steady,
    /// A journal that deletes as much as it receives, next to an empty one and the forwarder.
    Retention,
    /// A journal on an ext4 file system with a journal, next to the usual one and the forwarder.
    Ext4,
    /// Cost and memory as the work grows. Not part of `make bench`: see `make bench-scale`.
    Scale,
}

impl Part {
    pub const ALL: [Self; 9] = [
        Self::Speed,
        Self::Answers,
        Self::Outage,
        Self::Idle,
        Self::Overload,
        Self::Steady,
        Self::Retention,
        Self::Ext4,
        Self::Scale,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Speed => "speed",
            Self::Answers => "answers",
            Self::Outage => "outage",
            Self::Idle => "idle",
            Self::Overload => "overload",
            Self::Steady => "steady",
            Self::Retention => "retention",
            Self::Ext4 => "ext4",
            Self::Scale => "scale",
        }
    }
}

pub struct Settings {
    pub parts: BTreeSet<Part>,
    /// Rounds of each case (`BENCH_ROUNDS`, 5).
    pub rounds: usize,
    /// Sessions per round (`BENCH_SESSIONS`, 30000).
    pub sessions: usize,
    /// Events of the outage (`BENCH_BACKLOG`, 1000000).
    pub backlog: usize,
    /// The largest backlog of the part `scale` (`BENCH_SCALE_MAX`, 1000000).
    pub scale_max: usize,
    /// Seconds of one measurement of response times (`BENCH_SECONDS`, 10).
    pub seconds: usize,
    /// The maximum CPU usage of other processes, and the maximum spread of rounds, in percent
    /// (`BENCH_SPREAD_MAX`, 20).
    pub spread_max: f64,
    /// The directory of the journals (`BENCH_DIR`, `target/tmp`).
    pub dir: PathBuf,
    /// The file for the results.
    pub results: PathBuf,
}

impl Settings {
    /// Reads the settings from the environment.
    ///
    /// # Errors
    /// A value that cannot be parsed.
    pub fn read() -> Result<Self, String> {
        let defaults = [
            ("BENCH_ROUNDS", 5),
            ("BENCH_SESSIONS", 30_000),
            ("BENCH_BACKLOG", 1_000_000),
            ("BENCH_SCALE_MAX", 1_000_000),
            ("BENCH_SECONDS", 10),
            ("BENCH_SPREAD_MAX", 20),
        ];
        let mut values = Vec::new();
        let mut is_of_record = true;
        for (name, default) in defaults {
            let value = number(name, default)?;
            is_of_record &= value == default || name == "BENCH_ROUNDS" && value > default;
            values.push(value);
        }
        let [rounds, sessions, backlog, scale_max, seconds, spread_max] = values[..] else {
            unreachable!("as many values as defaults")
        };
        let dir = std::env::var_os("BENCH_DIR");
        let is_elsewhere = dir.is_some();
        let results = if is_of_record && !is_elsewhere {
            "bench/results.json"
        } else {
            "target/bench-results.json"
        };
        Ok(Self {
            parts: parts()?,
            rounds,
            sessions,
            backlog,
            scale_max,
            seconds,
            spread_max: crate::statistics::float(spread_max),
            dir: dir.map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from),
            results: Path::new(env!("CARGO_MANIFEST_DIR")).join(results),
        })
    }
}

fn number(name: &str, default: usize) -> Result<usize, String> {
    match std::env::var(name) {
        Err(_) => Ok(default),
        Ok(value) => value
            .parse()
            .ok()
            .filter(|number| *number > 0)
            .ok_or_else(|| format!("{name}={value} is no number above 0")),
    }
}

fn parts() -> Result<BTreeSet<Part>, String> {
    let Ok(only) = std::env::var("BENCH_ONLY") else {
        let usual = Part::ALL.into_iter().filter(|part| *part != Part::Scale);
        return Ok(usual.collect());
    };
    let names = only.split(',').filter(|name| !name.is_empty());
    let part = |name: &str| {
        let found = Part::ALL.into_iter().find(|part| part.name() == name);
        let all = Part::ALL.map(Part::name).join(", ");
        found.ok_or_else(|| {
            format!("BENCH_ONLY={only}: no part is called `{name}`; there are {all}")
        })
    };
    names.map(part).collect()
}

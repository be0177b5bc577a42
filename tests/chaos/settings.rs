//! The settings of a campaign, from the environment that `make chaos` sets; without them it is the
//! smoke test.

use std::ops::Range;
use std::time::Duration;

/// Which faults are injected.
#[derive(Debug, Clone, Copy)]
pub enum Mode {
    /// Every kind of fault.
    Faults { lasts: Duration },
    /// Only strangers: there is no excuse for a late answer.
    Strangers { lasts: Duration },
    /// Only `kill -9`.
    Crash { rounds: usize },
    /// No faults: there is no excuse for a duplicate.
    Calm { lasts: Duration },
}

#[derive(Debug, Clone)]
pub struct Settings {
    pub mode: Mode,
    pub seed: u64,
    pub runs: u64,
    /// Events per second.
    pub rate: u32,
    pub is_smoke: bool,
}

const SMOKE: Duration = Duration::from_secs(20);
const SMOKE_RATE: u32 = 250;
const RATE: u32 = 900;

impl Settings {
    /// Reads `CHAOS_MINUTES`, `CHAOS_SEED`, `CHAOS_RUNS`, `CHAOS_RATE`, `CHAOS_KIND` (`strangers`,
    /// `crash`, `calm`) and `CHAOS_ROUNDS`.
    pub fn from_environment() -> Self {
        let minutes: Option<f64> = setting("MINUTES");
        let lasts = minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0));
        let kind: Option<String> = setting("KIND");
        let is_smoke = minutes.is_none() && kind.is_none();
        let lasts = lasts.unwrap_or(SMOKE);
        let mode = match kind.as_deref() {
            Some("crash") => Mode::Crash {
                rounds: setting("ROUNDS").unwrap_or(500),
            },
            Some("calm") => Mode::Calm { lasts },
            Some("strangers") => Mode::Strangers { lasts },
            Some("faults") | None => Mode::Faults { lasts },
            Some(other) => {
                panic!("KIND is `faults`, `strangers`, `crash` or `calm`, not `{other}`")
            }
        };
        Self {
            mode,
            seed: setting("SEED").unwrap_or(1),
            runs: setting("RUNS").unwrap_or(1),
            rate: setting("RATE").unwrap_or(if is_smoke { SMOKE_RATE } else { RATE }),
            is_smoke,
        }
    }

    pub fn seeds(&self) -> Range<u64> {
        self.seed..self.seed + self.runs
    }

    /// The command that repeats the run of one seed.
    pub fn command(&self, seed: u64) -> String {
        let rate = self.rate;
        match self.mode {
            Mode::Faults { lasts } => {
                let minutes = lasts.as_secs_f64() / 60.0;
                format!("make chaos MINUTES={minutes:.2} SEED={seed} RATE={rate}")
            }
            Mode::Crash { rounds } => {
                format!("make chaos KIND=crash ROUNDS={rounds} SEED={seed} RATE={rate}")
            }
            Mode::Strangers { lasts } => {
                let minutes = lasts.as_secs_f64() / 60.0;
                format!("make chaos KIND=strangers MINUTES={minutes:.2} SEED={seed} RATE={rate}")
            }
            Mode::Calm { lasts } => {
                let minutes = lasts.as_secs_f64() / 60.0;
                format!("make chaos KIND=calm MINUTES={minutes:.2} SEED={seed} RATE={rate}")
            }
        }
    }
}

fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    let value = std::env::var(format!("CHAOS_{name}")).ok()?;
    if value.is_empty() {
        return None;
    }
    let read = value.parse().ok();
    Some(read.unwrap_or_else(|| panic!("{name} cannot be `{value}`")))
}

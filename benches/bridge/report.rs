//! The numbers of a run, as a table.

use std::fmt;
use std::time::Duration;

use crate::ARRAYS;

/// One round: so many sessions from the first byte until all were in the queue.
#[derive(Debug)]
pub struct Round {
    pub sessions: usize,
    pub took: Duration,
    /// Processor time of the process measured.
    pub cost: Duration,
    /// Processor time of RabbitMQ.
    pub broker: Duration,
    /// Time of each answer; none for the publisher.
    pub answers: Vec<Duration>,
}

impl Round {
    fn rate(&self) -> f64 {
        float(self.sessions) / self.took.as_secs_f64()
    }

    fn cost_us(&self) -> f64 {
        self.cost.as_secs_f64() * 1e6 / float(self.sessions)
    }

    fn broker_us(&self) -> f64 {
        self.broker.as_secs_f64() * 1e6 / float(self.sessions)
    }

    fn answer_ms(&self, quantile: f64) -> f64 {
        let mut answers = self.answers.clone();
        answers.sort_unstable();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank, between 0 and the length"
        )]
        let rank = (float(answers.len()) * quantile) as usize;
        answers
            .get(rank.min(answers.len().saturating_sub(1)))
            .map_or(0.0, |answer| answer.as_secs_f64() * 1e3)
    }
}

/// Everything measured.
#[derive(Debug, Default)]
pub struct Report {
    pub ready: Duration,
    pub idle_cpu_percent: f64,
    pub idle_rss_bytes: u64,
    pub rss_bytes_max: u64,
    /// Processor time of the bridge's threads over the whole run.
    pub threads: Vec<(String, Duration)>,
    /// Bare bodies, then the bridge's own messages.
    pub publisher: [Vec<Round>; 2],
    /// In the order of [`ARRAYS`].
    pub bridge: [Vec<Round>; ARRAYS.len()],
}

impl fmt::Display for Report {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [bare, same] = &self.publisher;
        let plain = median(same, Round::rate);
        writeln!(
            to,
            "\n{:<26}{:>12}{:>10}{:>16}{:>12}{:>10}{:>10}",
            "median of the rounds",
            "sessions/s",
            "ratio",
            "CPU us/session",
            "RabbitMQ us",
            "p50 ms",
            "p99 ms"
        )?;
        let publishers = [("lapin, bare bodies", bare), ("lapin, same messages", same)];
        for (name, rounds) in publishers {
            let rate = median(rounds, Round::rate);
            writeln!(
                to,
                "{name:<26}{:>12.0}{:>10.2}{:>16.1}{:>12.1}",
                rate,
                rate / plain,
                median(rounds, Round::cost_us),
                median(rounds, Round::broker_us),
            )?;
        }
        for (array, rounds) in ARRAYS.iter().zip(&self.bridge) {
            let rate = median(rounds, Round::rate);
            writeln!(
                to,
                "{:<26}{:>12.0}{:>10.2}{:>16.1}{:>12.1}{:>10.1}{:>10.1}",
                format!("bridge, arrays of {array}"),
                rate,
                rate / plain,
                median(rounds, Round::cost_us),
                median(rounds, Round::broker_us),
                median(rounds, |round| round.answer_ms(0.5)),
                median(rounds, |round| round.answer_ms(0.99)),
            )?;
        }
        writeln!(
            to,
            "\nready to accept after {:.0} ms",
            self.ready.as_secs_f64() * 1e3
        )?;
        writeln!(
            to,
            "idle: {:.1} % of a core, {} resident",
            self.idle_cpu_percent,
            mib(self.idle_rss_bytes)
        )?;
        writeln!(to, "peak memory {}", mib(self.rss_bytes_max))?;
        let sum: Duration = self.threads.iter().map(|(_, used)| *used).sum();
        let share = |used: Duration| 100.0 * used.as_secs_f64() / sum.as_secs_f64();
        let threads = self.threads.iter().take(4);
        let shares: Vec<_> = threads
            .map(|(name, used)| format!("{name} {:.0} %", share(*used)))
            .collect();
        write!(to, "processor time by thread: {}", shares.join(", "))
    }
}

/// What the numbers were measured on.
pub fn machine() -> String {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models = cpus
        .lines()
        .filter_map(|line| line.strip_prefix("model name"));
    let model = models
        .clone()
        .next()
        .map_or("unknown", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let build = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    format!(
        "{} x {model}, {build} build, one RabbitMQ node, one quorum queue",
        models.count().max(1)
    )
}

fn median(rounds: &[Round], value: impl Fn(&Round) -> f64) -> f64 {
    let mut values: Vec<_> = rounds.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn float(count: usize) -> f64 {
    count as f64
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

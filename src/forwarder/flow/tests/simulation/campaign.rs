//! Runs many seeds on all cores: those that failed once first, and one in a hundred twice.
//!
//! `make simulate SEEDS=… FROM=…` runs any number of seeds. `SIMULATE_SEED=… cargo test --lib
//! simulation::campaign::one_seed -- --nocapture` shows the steps of one.

use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::coverage::{Coverage, Seen};
use super::scenario::VERSION;
use super::trace::Trace;
use super::{Verdict, batch};

/// Number of seeds in an ordinary test run.
const SMOKE: u64 = 4_000;
/// Number of seeds that a thread takes at a time.
const CHUNK: u64 = 50;
/// One seed in this many runs twice.
const TWICE: u64 = 100;
/// How often everything in [`Seen`] must have happened in an ordinary test run.
const SEEN_MIN: u64 = 4;
/// Interval between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);

struct Campaign {
    next: AtomicU64,
    end: u64,
    is_over: AtomicBool,
    seeds: AtomicU64,
    steps: AtomicU64,
    violations: AtomicU64,
    coverage: Mutex<Coverage>,
}

impl Campaign {
    fn new(from: u64, seeds: u64) -> Self {
        Self {
            next: AtomicU64::new(from),
            end: from + seeds,
            is_over: AtomicBool::new(false),
            seeds: AtomicU64::new(0),
            steps: AtomicU64::new(0),
            violations: AtomicU64::new(0),
            coverage: Mutex::new(Coverage::default()),
        }
    }

    /// Runs until all seeds have run or one has failed.
    fn batch(&self, is_talking: bool) {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| self.work())).collect();
            if is_talking {
                scope.spawn(|| self.talk());
            }
            for worker in workers {
                worker
                    .join()
                    .expect("a violation is caught where it happens");
            }
            self.is_over.store(true, Ordering::Release);
        });
    }

    fn work(&self) {
        let mut coverage = Coverage::default();
        while self.violations.load(Ordering::Acquire) == 0 {
            let from = self.next.fetch_add(CHUNK, Ordering::Relaxed);
            if from >= self.end {
                break;
            }
            for seed in from..self.end.min(from + CHUNK) {
                self.try_seed(seed, &mut coverage);
            }
        }
        self.coverage
            .lock()
            .expect("no worker panics while it holds the lock")
            .add(&coverage);
    }

    fn try_seed(&self, seed: u64, coverage: &mut Coverage) {
        let verdict = batch(seed, Trace::default());
        coverage.add(&verdict.coverage);
        self.seeds.fetch_add(1, Ordering::Relaxed);
        self.steps.fetch_add(verdict.steps, Ordering::Relaxed);
        if verdict.violation.is_some() {
            self.violations.fetch_add(1, Ordering::AcqRel);
            tell(seed);
        } else if seed.is_multiple_of(TWICE) {
            let again = batch(seed, Trace::default());
            let is_same = again.hash == verdict.hash && again.steps == verdict.steps;
            if !is_same {
                self.violations.fetch_add(1, Ordering::AcqRel);
                eprintln!("SIMULATE_SEED={seed}: two batches of it differ");
            }
        }
    }

    fn talk(&self) {
        let began = Instant::now();
        let mut told = began;
        while !self.is_over.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(100));
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                let (seeds, seconds) = (self.seeds.load(Ordering::Relaxed), began.elapsed());
                println!("simulate: {seeds} seeds after {} s", seconds.as_secs());
                let _ = std::io::stdout().flush();
            }
        }
    }

    /// The summary line.
    fn result(&self) -> String {
        let of = |count: &AtomicU64| count.load(Ordering::Acquire);
        format!(
            "simulate: {} seeds, {} steps, {} violations",
            of(&self.seeds),
            of(&self.steps),
            of(&self.violations)
        )
    }

    fn must_be_clean(&self, seen_min: u64) {
        println!("{}", self.result());
        assert_eq!(self.violations.load(Ordering::Acquire), 0, "see stderr");
        let coverage = self
            .coverage
            .lock()
            .expect("no worker panics while it holds the lock");
        for seen in Seen::ALL {
            let count = coverage.count(*seen);
            assert!(
                count >= seen_min,
                "{seen:?} occurred only {count} times: the test proves too little"
            );
        }
    }
}

/// Runs a seed again with its steps recorded, and prints the last ones.
fn tell(seed: u64) -> Verdict {
    let verdict = batch(seed, Trace::with_lines());
    eprintln!(
        "\nseed {seed} of version {VERSION} after {} steps; its scenario and its last steps:\n{}    \
         VIOLATION: {}\n\n    SIMULATE_SEED={seed} cargo test --locked --lib simulation::campaign::one_seed -- \
         --nocapture\n",
        verdict.steps,
        verdict.trace,
        verdict.violation.as_deref().unwrap_or("none")
    );
    verdict
}

/// The seeds of `tests/seeds.txt`.
fn kept_seeds() -> Vec<u64> {
    let lines = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/seeds.txt")).lines();
    let lines = lines.filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let seed = |line: &str| {
        let word = line
            .split_whitespace()
            .next()
            .expect("the line is not empty");
        word.parse().expect("a line begins with a seed")
    };
    lines.map(seed).collect()
}

fn kept_seeds_hold() {
    for seed in kept_seeds() {
        let verdict = batch(seed, Trace::default());
        if verdict.violation.is_some() {
            tell(seed);
            panic!("seed {seed} of tests/seeds.txt fails again");
        }
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.replace('_', "")
            .parse()
            .unwrap_or_else(|_| panic!("{name} is a number")),
    )
}

/// Runs the seeds that the environment names.
fn run(is_talking: bool, seen_min: u64) {
    kept_seeds_hold();
    let seeds = number("SEEDS").unwrap_or(SMOKE);
    let campaign = Campaign::new(number("FROM").unwrap_or(0), seeds);
    campaign.batch(is_talking);
    campaign.must_be_clean(seen_min);
}

#[test]
fn simulated_seeds_lose_nothing_and_keep_order() {
    run(false, SEEN_MIN);
}

#[test]
#[ignore = "make simulate SEEDS=… FROM=…"]
fn seed_campaign() {
    run(true, 0);
}

#[test]
fn one_seed() {
    let seed = number("SIMULATE_SEED").unwrap_or(0);
    let told = tell(seed);
    assert_eq!(told.violation, None);
    let again = batch(seed, Trace::default());
    assert_eq!(told.hash, again.hash, "two batches of it differ");
}

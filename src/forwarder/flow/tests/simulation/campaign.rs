//! Many seeds: on every core, those that ever failed first, one in a hundred twice.
//!
//! `make simulate SEEDS=… FROM=…` runs as many as wanted; `SIMULATE_SEED=… cargo test --lib
//! simulation::campaign::one_seed -- --nocapture` tells what one of them does.

use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::scenario::VERSION;
use super::story::Story;
use super::tally::{Seen, Tally};
use super::{Verdict, run};

/// Seeds of every test run.
const SMOKE: u64 = 20_000;
/// Seeds handed to a thread together.
const CHUNK: u64 = 50;
/// One in so many runs twice.
const TWICE: u64 = 100;
/// How often everything in [`Seen`] has to have happened in the smoke.
const SEEN_MIN: u64 = 20;
/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);

struct Campaign {
    next: AtomicU64,
    end: u64,
    is_over: AtomicBool,
    seeds: AtomicU64,
    steps: AtomicU64,
    violations: AtomicU64,
    tally: Mutex<Tally>,
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
            tally: Mutex::new(Tally::default()),
        }
    }

    /// Until all seeds have run or one has failed.
    fn run(&self, is_talking: bool) {
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
        let mut tally = Tally::default();
        while self.violations.load(Ordering::Acquire) == 0 {
            let from = self.next.fetch_add(CHUNK, Ordering::Relaxed);
            if from >= self.end {
                break;
            }
            for seed in from..self.end.min(from + CHUNK) {
                self.try_seed(seed, &mut tally);
            }
        }
        self.tally
            .lock()
            .expect("nobody panics with it")
            .add(&tally);
    }

    fn try_seed(&self, seed: u64, tally: &mut Tally) {
        let verdict = run(seed, Story::default());
        tally.add(&verdict.tally);
        self.seeds.fetch_add(1, Ordering::Relaxed);
        self.steps.fetch_add(verdict.steps, Ordering::Relaxed);
        if verdict.violation.is_some() {
            self.violations.fetch_add(1, Ordering::AcqRel);
            tell(seed);
        } else if seed.is_multiple_of(TWICE) {
            let again = run(seed, Story::default());
            let is_same = again.hash == verdict.hash && again.steps == verdict.steps;
            if !is_same {
                self.violations.fetch_add(1, Ordering::AcqRel);
                eprintln!("SIMULATE_SEED={seed}: two runs of it differ");
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

    /// The line that everybody looks for.
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
        assert_eq!(self.violations.load(Ordering::Acquire), 0, "see above");
        let tally = self.tally.lock().expect("nobody panics with it");
        for seen in Seen::ALL {
            let count = tally.count(*seen);
            assert!(
                count >= seen_min,
                "{seen:?} took effect {count} times: this proves nothing"
            );
        }
    }
}

/// Runs a failed seed once more and tells its end.
fn tell(seed: u64) -> Verdict {
    let verdict = run(seed, Story::told());
    eprintln!(
        "\nseed {seed} of version {VERSION} after {} steps; its scenario and its last steps:\n{}    \
         VIOLATION: {}\n\n    SIMULATE_SEED={seed} cargo test --locked --lib simulation::campaign::one_seed -- \
         --nocapture\n",
        verdict.steps,
        verdict.story,
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
        let verdict = run(seed, Story::default());
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

#[test]
fn twenty_thousand_worlds_lose_nothing_and_keep_order() {
    kept_seeds_hold();
    let campaign = Campaign::new(
        number("FROM").unwrap_or(0),
        number("SEEDS").unwrap_or(SMOKE),
    );
    campaign.run(false);
    campaign.must_be_clean(SEEN_MIN);
}

#[test]
#[ignore = "make simulate SEEDS=… FROM=…"]
fn as_many_worlds_as_wanted() {
    kept_seeds_hold();
    let campaign = Campaign::new(
        number("FROM").unwrap_or(0),
        number("SEEDS").unwrap_or(SMOKE),
    );
    campaign.run(true);
    campaign.must_be_clean(0);
}

#[test]
fn one_seed() {
    let seed = number("SIMULATE_SEED").unwrap_or(0);
    let told = tell(seed);
    assert_eq!(told.violation, None);
    let again = run(seed, Story::default());
    assert_eq!(told.hash, again.hash, "two runs of it differ");
}

//! The flow in a world of its own: a journal that commits in groups, a broker and two connections
//! to it, processes that crash or are stopped, in virtual time, all of it decided by one seed.
//!
//! - `scenario` draws what the seed is about, `scheduler` what happens next.
//! - `disk` and `writer` are the journal, `links` and `broker` what messages meet, `forwarder` the
//!   loop around the real [`Flow`](super::super::Flow). They follow the real rooms step by step;
//!   what two threads do there are separate steps here, with anything between them.
//! - `judge` holds the promises, `audit` the flow's own books. A violation panics.
//! - `campaign` runs many seeds, and those of `tests/seeds.txt` before all others.

mod audit;
mod broker;
mod campaign;
mod disk;
mod events;
mod forwarder;
mod judge;
mod links;
mod random;
mod scenario;
mod scheduler;
mod story;
mod tally;
mod writer;

use std::panic::{AssertUnwindSafe, catch_unwind};

use self::broker::Broker;
use self::disk::Disk;
use self::events::Maker;
use self::forwarder::Forwarder;
use self::judge::Judge;
use self::links::LinkTask;
use self::random::Random;
use self::scenario::{Fault, Mood, Scenario};
use self::scheduler::{Step, Stopping};
use self::story::Story;
use self::tally::{Seen, Tally};
use self::writer::Writer;

/// After the last fault everything that can be published is, within so long.
const HEALING_MS_MAX: u64 = 60_000;
/// And within so many steps, and so many more for each event.
const HEALING_STEPS_MAX: u64 = 2_000;
const HEALING_STEPS_PER_EVENT: u64 = 200;

struct World {
    random: Random,
    scenario: Scenario,
    maker: Maker,
    /// Milliseconds since this world began.
    now: u64,
    disk: Disk,
    writer: Writer,
    forwarder: Forwarder,
    links: [LinkTask; 2],
    broker: Broker,
    stopping: Option<Stopping>,
    /// The next take cannot read the journal.
    take_fails: bool,
    /// Configurations change in this world.
    reroutes: bool,
    judge: Judge,
    story: Story,
    tally: Tally,
    /// Only for its memory.
    steps: Vec<(Step, u32)>,
}

/// What a seed came to.
struct Verdict {
    hash: u64,
    steps: u64,
    tally: Tally,
    /// What was violated, if something was.
    violation: Option<String>,
    /// The last steps, if the story was told.
    story: String,
}

/// Runs one seed, from the first event to the last delivery.
fn run(seed: u64, story: Story) -> Verdict {
    let mut world = World::new(seed, story);
    let kept = catch_unwind(AssertUnwindSafe(|| world.run()));
    let violation = kept.err().map(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| {
            payload
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
        });
        text.unwrap_or_default()
    });
    Verdict {
        hash: world.story.hash,
        steps: world.story.steps,
        tally: world.tally.clone(),
        violation,
        story: format!("    {:?}\n{}", world.scenario, world.story.lines()),
    }
}

impl World {
    fn new(seed: u64, story: Story) -> Self {
        let mut random = Random::new(seed);
        let scenario = Scenario::draw(&mut random);
        Self {
            maker: Maker::new(),
            now: 0,
            disk: Disk::new(),
            writer: Writer::default(),
            forwarder: Forwarder::new(&scenario, random.next(), 0),
            links: [LinkTask::new(), LinkTask::new()],
            broker: Broker::default(),
            stopping: None,
            take_fails: false,
            reroutes: scenario
                .faults
                .iter()
                .any(|(fault, _)| *fault == Fault::Reroute),
            judge: Judge::new(&scenario),
            story,
            tally: Tally::default(),
            steps: Vec::new(),
            scenario,
            random,
        }
    }

    fn run(&mut self) {
        for _ in 0..self.scenario.steps {
            self.happen();
        }
        if self.random.one_in(3) {
            self.pass_a_parked_route();
        }
        self.heal(None);
        if self.random.one_in(4) {
            self.stop();
        }
        self.come_to_rest(|world| world.disk.pending.is_empty() && world.forwarder.flow.is_idle());
        self.judge.all_is_delivered(&self.disk);
        self.is_empty_handed();
    }

    /// One route stays as bad as it can be; everything that does not wait behind it flows.
    fn pass_a_parked_route(&mut self) {
        let mood = self
            .random
            .pick(&[Mood::Silent, Mood::Closes(403), Mood::Closes(404)]);
        let bad = self.random.pick(&[0, 1, 2, 3, 7]);
        self.heal(Some((bad, mood)));
        self.come_to_rest(|world| {
            let heads = world.disk.pending.values().filter(|row| row.is_head);
            heads.into_iter().all(|row| row.route_id == bad)
        });
        if !self.disk.pending.is_empty() {
            self.tally.saw(Seen::ParkedRoutePassed);
        }
    }

    /// The healthy world goes on until that is true and nothing is under way.
    fn come_to_rest(&mut self, is_done: impl Fn(&Self) -> bool) {
        let until = self.now + HEALING_MS_MAX;
        let events = self.disk.pending.len() as u64;
        let steps_max = HEALING_STEPS_MAX + HEALING_STEPS_PER_EVENT * events;
        for _ in 0..steps_max {
            let is_quiet = self.stopping.is_none() && self.writer.is_at_rest();
            if is_quiet && !self.has_input() && !self.forwarder.has_to_act && is_done(self) {
                return;
            }
            let happened = self.go_on();
            let left: Vec<_> = self.disk.pending.keys().collect();
            assert!(happened, "nothing will ever happen again: {left:?}");
            assert!(self.now < until, "it takes too long: {left:?}");
        }
        panic!("it takes too many steps: {:?}", self.disk.pending.keys());
    }
}

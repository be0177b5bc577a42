//! Simulates the world around the forwarder's loop: a journal with group commit, a broker with two
//! connections, and processes that crash or are stopped. Time is virtual, and one seed determines
//! everything.
//!
//! - `scenario` draws the parameters and faults of a seed, `scheduler` chooses the next step.
//! - `forwarder` polls the real loop and connects it to the models.
//! - `disk` and `writer` model the journal, `links` and `broker` the path of messages. They follow
//!   the real modules step by step. Work that is done by different threads there is done in
//!   separate steps here, with any other steps in between.
//! - `judge` checks the guarantees, `audit` the flow's internal counts. A violation panics.
//! - `campaign` runs many seeds, those of `tests/seeds.txt` first.

mod audit;
mod broker;
mod campaign;
mod coverage;
mod disk;
mod events;
mod forwarder;
mod judge;
mod links;
mod random;
mod scenario;
mod scheduler;
mod trace;
mod writer;

use std::cell::{RefCell, RefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::{Rc, Weak};

use self::broker::Broker;
use self::coverage::{Coverage, Seen};
use self::disk::Disk;
use self::events::Maker;
use self::forwarder::Forwarder;
use self::judge::Judge;
use self::links::LinkTask;
use self::random::Random;
use self::scenario::{Behavior, Fault, Scenario};
use self::scheduler::{Step, Stopping};
use self::trace::Trace;
use self::writer::{TICK, Writer};
use tokio::sync::watch;

use crate::rabbitmq::RefusalKind;
use crate::telemetry::status::Pause;

/// Within this time after the last fault, plus a tick per event, everything that can be published
/// must be published.
const HEALING_MS_MAX: u64 = 60_000;
/// The same as a number of steps, with the steps per event below.
const HEALING_STEPS_MAX: u64 = 2_000;
const HEALING_STEPS_PER_EVENT: u64 = 200;

struct World {
    random: Random,
    scenario: Scenario,
    maker: Maker,
    /// Virtual milliseconds since the beginning.
    now: u64,
    disk: Disk,
    writer: Writer,
    forwarder: Forwarder,
    /// What operators have paused. Survives restarts.
    pauses: watch::Sender<Vec<Pause>>,
    links: [LinkTask; 2],
    broker: Broker,
    stopping: Option<Stopping>,
    /// Whether the next fetch fails to read the journal.
    take_fails: bool,
    /// Whether the scenario contains reroutes.
    reroutes: bool,
    judge: Judge,
    trace: Trace,
    coverage: Coverage,
    /// Kept only to reuse its allocation.
    steps: Vec<(Step, u32)>,
    /// For the loop, which uses the world while it is polled.
    this: Weak<RefCell<Self>>,
}

/// The result of a seed.
struct Verdict {
    hash: u64,
    steps: u64,
    coverage: Coverage,
    /// The message of the violation, if there was one.
    violation: Option<String>,
    /// The last steps, if they were recorded.
    trace: String,
}

/// The world, and the loop that is polled with it.
struct Simulation(Rc<RefCell<World>>);

/// Runs one seed, from the first event to the last delivery.
fn batch(seed: u64, trace: Trace) -> Verdict {
    let simulation = Simulation::new(seed, trace);
    let kept = catch_unwind(AssertUnwindSafe(|| simulation.batch()));
    let violation = kept.err().map(|payload| match payload.downcast() {
        Ok(text) => *text,
        Err(payload) => payload.downcast_ref().map_or("", |text| *text).to_owned(),
    });
    let mut world = simulation.world();
    let mut coverage = std::mem::take(&mut world.coverage);
    coverage.add(&world.disk.coverage);
    Verdict {
        hash: world.trace.hash,
        steps: world.trace.steps,
        coverage,
        violation,
        trace: format!("    {:?}\n{}", world.scenario, world.trace.lines()),
    }
}

impl World {
    fn new(seed: u64, trace: Trace, this: Weak<RefCell<Self>>) -> Self {
        let mut random = Random::new(seed);
        let scenario = Scenario::draw(&mut random);
        let pauses = watch::Sender::default();
        Self {
            maker: Maker::new(),
            now: 0,
            disk: Disk::new(&scenario),
            writer: Writer::default(),
            forwarder: Forwarder::new(
                this.clone(),
                &scenario,
                pauses.subscribe(),
                random.next(),
                0,
            ),
            pauses,
            links: [LinkTask::new(), LinkTask::new()],
            broker: Broker::default(),
            stopping: None,
            take_fails: false,
            reroutes: scenario
                .faults
                .iter()
                .any(|(fault, _)| *fault == Fault::Reroute),
            judge: Judge::new(&scenario),
            trace,
            coverage: Coverage::default(),
            steps: Vec::new(),
            scenario,
            random,
            this,
        }
    }
}

impl Simulation {
    fn new(seed: u64, trace: Trace) -> Self {
        let world = |this: &Weak<_>| RefCell::new(World::new(seed, trace, this.clone()));
        Self(Rc::new_cyclic(world))
    }

    fn world(&self) -> RefMut<'_, World> {
        self.0.borrow_mut()
    }

    fn take_step(&self, step: Step) {
        self.world().take_step(step);
        if step == Step::Forward {
            self.forward();
        }
    }

    fn batch(&self) {
        let steps = self.world().scenario.steps;
        for _ in 0..steps {
            let step = self.world().any_step();
            self.take_step(step);
        }
        if self.world().random.one_in(3) {
            self.pass_a_suspect_route();
        }
        self.world().heal(None);
        if self.world().random.one_in(4) {
            self.world().stop();
        }
        self.come_to_rest(|world| world.disk.unsettled.is_empty() && world.forwarder.is_idle);
        let world = self.world();
        world.judge.all_is_delivered(&world.disk);
        let is_empty = world.forwarder.is_empty;
        assert!(is_empty, "state of complete events is left");
    }

    /// Checks that while one route stays broken, every event that does not wait behind it is
    /// published.
    fn pass_a_suspect_route(&self) {
        let mut world = self.world();
        let behaviors = [
            Behavior::Silent,
            Behavior::Refuses(RefusalKind::Forbidden),
            Behavior::Refuses(RefusalKind::RouteMissing),
        ];
        let behavior = world.random.pick(&behaviors);
        let bad = world.random.pick(&[0, 1, 2, 3, 7]);
        world.heal(Some((bad, behavior)));
        drop(world);
        self.come_to_rest(|world| {
            let is_read = world.disk.tail().is_none();
            is_read && world.disk.heads().all(|head| head.route_id == bad)
        });
        let mut world = self.world();
        if !world.disk.unsettled.is_empty() {
            world.coverage.saw(Seen::SuspectRoutePassed);
        }
    }

    /// Runs the healthy world until the condition holds and nothing is in progress.
    fn come_to_rest(&self, is_done: impl Fn(&World) -> bool) {
        let events = self.world().disk.unsettled.len() as u64;
        let until = self.world().now + HEALING_MS_MAX + TICK * events;
        let steps_max = HEALING_STEPS_MAX + HEALING_STEPS_PER_EVENT * events;
        for _ in 0..steps_max {
            let mut world = self.world();
            let is_quiet = world.stopping.is_none() && world.writer.is_at_rest();
            if is_quiet && !world.forwarder.is_awake(world.now) && is_done(&world) {
                return;
            }
            let step = world.next_step();
            let left = world.disk.unsettled.keys();
            assert!(world.now < until, "it takes too long: {left:?}");
            drop(world);
            if let Some(step) = step {
                self.take_step(step);
            }
        }
        panic!(
            "it takes too many steps: {:?}",
            self.world().disk.unsettled.keys()
        );
    }
}

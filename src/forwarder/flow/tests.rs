//! The flow against a model of the journal and of the broker, under random schedules: order per
//! session, one unconfirmed message a session, nothing forgotten, bounds kept. A failing seed is
//! printed; `FLOW_SEED=… cargo test flow` runs it alone.

mod alone;
mod model;

use model::World;

/// Schedules of one test run.
const SEEDS: u64 = 600;
/// Steps of one schedule before everything heals.
const STEPS: usize = 250;

fn run(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.heal();
    world.assert_all_done();
}

#[test]
fn every_schedule_keeps_order_and_forgets_nothing() {
    if let Ok(seed) = std::env::var("FLOW_SEED") {
        return run(seed.parse().expect("FLOW_SEED is a number"));
    }
    for seed in 0..SEEDS {
        let outcome = std::panic::catch_unwind(|| run(seed));
        assert!(outcome.is_ok(), "FLOW_SEED={seed} fails");
    }
}

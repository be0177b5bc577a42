//! The parameters of a seed, drawn first: the size of the world, its faults and their frequency.
//! Each scenario has only a few kinds of faults. That reaches more corner cases than all kinds at
//! once.

use std::time::Duration;

use super::random::Random;
use crate::forwarder::flow::FlowLimits;
use crate::rabbitmq::RefusalKind;

/// Increase it with every change that gives a seed another schedule; see `tests/seeds.txt`.
pub(super) const VERSION: u32 = 3;

/// Limit of body bytes in flight. The largest bodies of some scenarios exceed it.
pub(super) const IN_FLIGHT_BYTES_MAX: u64 = 1_000;
pub(super) const MESSAGE_BYTES_MAX: u64 = 2_000;
pub(super) const CONFIRM_TIMEOUT: u64 = 500;
/// More events than any scenario has.
const UNBOUNDED: usize = 1_000_000;

#[derive(Debug, Clone)]
pub(super) struct Scenario {
    pub(super) steps: u64,
    pub(super) sessions: u64,
    pub(super) routes: usize,
    pub(super) in_flight_max: usize,
    pub(super) attempts_max: u32,
    /// Commits that can be handed over before the forwarder processes one.
    pub(super) handover_max: usize,
    /// Weight of the step that reads a snapshot; a low weight delays it.
    pub(super) reading: u32,
    /// Number of events in a webhook, at most.
    pub(super) webhook_max: u64,
    /// Number of events in a row of `webhooks`, at most.
    pub(super) part_max: usize,
    /// Number of events in the window, at most: a multiple of `part_max`.
    pub(super) window_max: usize,
    /// About how many events of the tail one commit reads.
    pub(super) loaded_max: usize,
    /// One event in this many is a reject, large, or damaged on disk; 0 means none.
    pub(super) rejects: u64,
    pub(super) large: u64,
    pub(super) damaged: u64,
    /// The faults and their weights, against a total of about 100 for the other steps.
    pub(super) faults: Vec<(Fault, u32)>,
    /// How the broker can treat the messages of a route.
    pub(super) behaviors: Vec<Behavior>,
}

/// A fault, or a request of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Behavior,
    LoseMain,
    LoseProbe,
    Freeze,
    Unreachable,
    Block,
    DiskFull,
    TakeFails,
    Crash,
    Reroute,
    Pause,
    Stop,
}

/// How the broker currently treats messages of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behavior {
    Takes,
    Nacks,
    Returns,
    Refuses(RefusalKind),
    /// Refuses bodies above a limit as too large, and sometimes any message.
    TooLarge,
    /// Stores some messages, confirms none.
    Silent,
}

const FAULTS: [Fault; 12] = [
    Fault::Behavior,
    Fault::LoseMain,
    Fault::LoseProbe,
    Fault::Freeze,
    Fault::Unreachable,
    Fault::Block,
    Fault::DiskFull,
    Fault::TakeFails,
    Fault::Crash,
    Fault::Reroute,
    Fault::Pause,
    Fault::Stop,
];

const BEHAVIORS: [Behavior; 7] = [
    Behavior::Takes,
    Behavior::Nacks,
    Behavior::Returns,
    Behavior::Refuses(RefusalKind::Forbidden),
    Behavior::Refuses(RefusalKind::RouteMissing),
    Behavior::TooLarge,
    Behavior::Silent,
];

impl Scenario {
    pub(super) fn draw(random: &mut Random) -> Self {
        let steps = match random.below(200) {
            0 => 1_200,
            1..=6 => 300 + random.below(300),
            7..=49 => 100 + random.below(100),
            _ => 20 + random.below(60),
        };
        let mut faults = Vec::new();
        for fault in FAULTS {
            // These faults are more frequent, because most of the rules are about them.
            if random.one_in(3) || (fault == Fault::Behavior && random.below(4) > 0) {
                let weight = random.pick(&[1, 2, 5]);
                faults.push((fault, weight));
            }
        }
        let mut behaviors = vec![Behavior::Takes];
        for behavior in BEHAVIORS {
            if random.one_in(2) {
                behaviors.push(behavior);
            }
        }
        let part_max = random.pick(&[1, 2, 6]);
        Self {
            steps,
            sessions: random.pick(&[1, 2, 4, 8]),
            routes: random.pick(&[1, 2, 2, 4]),
            in_flight_max: random.pick(&[1, 2, 4, 4, 8, 16]),
            attempts_max: random.pick(&[1, 2, 3, 4]),
            handover_max: random.pick(&[1, 2, 64]),
            reading: random.pick(&[1, 4, 20]),
            webhook_max: random.pick(&[1, 2, 2, 6]),
            part_max,
            window_max: window(random, part_max),
            loaded_max: random.pick(&[1, 4, UNBOUNDED]),
            rejects: random.pick(&[0, 4, 12]),
            large: random.pick(&[0, 4, 10]),
            damaged: random.pick(&[0, 0, 10]),
            faults,
            behaviors,
        }
    }

    pub(super) fn limits(&self) -> FlowLimits {
        FlowLimits {
            in_flight_max: self.in_flight_max,
            in_flight_bytes_max: IN_FLIGHT_BYTES_MAX,
            message_bytes_max: MESSAGE_BYTES_MAX,
            confirm_timeout: Duration::from_millis(CONFIRM_TIMEOUT),
            attempts_max: self.attempts_max,
        }
    }
}

/// Draws the size of a window, a multiple of `part_max`.
pub(super) fn window(random: &mut Random, part_max: usize) -> usize {
    part_max * random.pick(&[1, 2, 3, 4, 8, UNBOUNDED])
}

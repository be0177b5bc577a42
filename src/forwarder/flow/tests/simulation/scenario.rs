//! What a seed is about, drawn first: how large the world is, which faults it has and how often.
//! Few faults at a time meet more of each other's corners than all of them always.

use std::time::Duration;

use super::random::Random;
use crate::forwarder::flow::Limits;

/// To be raised whenever the same seed comes to mean another schedule; see `tests/seeds.txt`.
pub(super) const VERSION: u32 = 1;

/// Bodies in flight together; the largest of some scenarios is above.
pub(super) const IN_FLIGHT_BYTES_MAX: u64 = 1_000;
pub(super) const MESSAGE_BYTES_MAX: u64 = 2_000;
pub(super) const CONFIRM_TIMEOUT: u64 = 500;

#[derive(Debug, Clone)]
pub(super) struct Scenario {
    pub(super) steps: u64,
    pub(super) sessions: u64,
    pub(super) routes: usize,
    pub(super) in_flight_max: usize,
    pub(super) attempts_max: u32,
    /// Commits handed over and not yet looked at.
    pub(super) handover_max: usize,
    /// How soon what a snapshot shows has been read.
    pub(super) reading: u32,
    /// Events of a webhook at most.
    pub(super) webhook_max: u64,
    /// One event in so many is a reject, large, or damaged on the disk; 0: none.
    pub(super) rejects: u64,
    pub(super) large: u64,
    pub(super) damaged: u64,
    /// How often each fault comes, against 100 of everything else.
    pub(super) faults: Vec<(Fault, u32)>,
    /// Which faults the routes have while it goes on.
    pub(super) moods: Vec<Mood>,
}

/// Something goes wrong, or is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Mood,
    LoseMain,
    LoseProbe,
    Freeze,
    Unreachable,
    Block,
    DiskFull,
    TakeFails,
    Crash,
    Reroute,
    Stop,
}

/// How the broker treats a route at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Takes,
    Nacks,
    Returns,
    Closes(u16),
    /// Closes the channel with 406 for what is larger than it likes, and at times for anything.
    TooLarge,
    /// Takes some, confirms nothing.
    Silent,
}

const FAULTS: [Fault; 11] = [
    Fault::Mood,
    Fault::LoseMain,
    Fault::LoseProbe,
    Fault::Freeze,
    Fault::Unreachable,
    Fault::Block,
    Fault::DiskFull,
    Fault::TakeFails,
    Fault::Crash,
    Fault::Reroute,
    Fault::Stop,
];

const MOODS: [Mood; 7] = [
    Mood::Takes,
    Mood::Nacks,
    Mood::Returns,
    Mood::Closes(403),
    Mood::Closes(404),
    Mood::TooLarge,
    Mood::Silent,
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
            // The broker's moods are what most of the rules are about.
            if random.one_in(3) || (fault == Fault::Mood && random.below(4) > 0) {
                let weight = random.pick(&[1, 2, 5]);
                faults.push((fault, weight));
            }
        }
        let mut moods = vec![Mood::Takes];
        for mood in MOODS {
            if random.one_in(2) {
                moods.push(mood);
            }
        }
        Self {
            steps,
            sessions: random.pick(&[1, 2, 4, 8]),
            routes: random.pick(&[1, 2, 2, 4]),
            in_flight_max: random.pick(&[1, 2, 4, 4, 8, 16]),
            attempts_max: random.pick(&[1, 2, 3, 4]),
            handover_max: random.pick(&[1, 2, 64]),
            reading: random.pick(&[1, 4, 20]),
            webhook_max: random.pick(&[1, 2, 2, 6]),
            rejects: random.pick(&[0, 4, 12]),
            large: random.pick(&[0, 4, 10]),
            damaged: random.pick(&[0, 0, 10]),
            faults,
            moods,
        }
    }

    pub(super) fn limits(&self) -> Limits {
        Limits {
            in_flight_max: self.in_flight_max,
            in_flight_bytes_max: IN_FLIGHT_BYTES_MAX,
            message_bytes_max: MESSAGE_BYTES_MAX,
            confirm_timeout: Duration::from_millis(CONFIRM_TIMEOUT),
            attempts_max: self.attempts_max,
        }
    }
}

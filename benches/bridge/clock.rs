//! Measures time, and what a process and the broker use meanwhile.

use std::time::{Duration, Instant};

use crate::cost::{self, Cost};
use crate::place::Place;
use crate::rounds::{Round, per_session};
use crate::statistics::float;

/// CPU time and wall-clock time since the start.
pub struct Clock {
    begin: Instant,
    own: Cost,
    broker: Cost,
    written: f64,
}

impl Clock {
    /// Starts the clock and resets the process's peak memory.
    pub fn start(place: &Place, pid: u32) -> Self {
        cost::forget_peak(pid);
        let written = cost::bytes_written(pid);
        let broker = Cost::of(place.broker.pid());
        let own = Cost::of(pid);
        let begin = Instant::now();
        Self {
            begin,
            own,
            broker,
            written,
        }
    }

    pub fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    /// The result of a round of this number of sessions that took this long; resource usage is
    /// counted until now.
    pub fn stop(&self, place: &Place, pid: u32, sessions: usize, took: Duration) -> Round {
        Round {
            rate: float(sessions) / took.as_secs_f64(),
            cpu: per_session(self.own.since(pid), sessions),
            parts: self.own.parts_since(pid),
            broker: per_session(self.broker.since(place.broker.pid()), sessions),
            resident_mib: cost::resident_mib(pid),
            peak_mib: cost::peak_mib(pid),
            bytes_written: cost::bytes_written(pid) - self.written,
            sessions,
            ..Round::default()
        }
    }
}

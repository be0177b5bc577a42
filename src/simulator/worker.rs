//! One connection of a simulation.

use std::collections::VecDeque;
use std::time::Instant;

use jiff::Timestamp;
use tokio::time::sleep_until;
use uuid::Uuid;

use super::pace::Pace;
use super::random::Random;
use super::sessions::Sessions;
use super::{Plan, Post, Progress, Stage, Target};

/// Webhooks with up to this number of sessions are generated and signed before the measurement
/// starts.
const SESSIONS_AHEAD_MAX: usize = 40_000;
/// A repeated webhook is one of this number of most recent ones.
const RECENT_MAX: usize = 16;
/// A connection gives up after this number of consecutive requests without an answer.
const FAILURES_MAX: u32 = 10;

/// One connection and its sessions.
pub(super) struct Worker<'a> {
    plan: &'a Plan,
    target: &'a Target,
    sessions: Sessions,
    /// Webhooks still to be sent; `u64::MAX` without a count.
    left: u64,
    ahead: VecDeque<Post>,
    pace: Option<Pace>,
    /// Number of the next webhook among those of all connections, and the step to the one after it.
    number: u64,
    stride: u64,
    /// The random choice of repeated webhooks, and the candidates.
    again: Random,
    recent: VecDeque<Post>,
}

impl<'a> Worker<'a> {
    /// One worker per connection, but not more than there are sessions or webhooks. Their first
    /// webhooks are signed already.
    pub(super) fn all(plan: &'a Plan, target: &'a Target) -> Vec<Self> {
        let shares = (plan.connections as u64)
            .min(plan.sessions)
            .min(plan.count.unwrap_or(u64::MAX))
            .max(1);
        // With a seed, the times in the bodies do not depend on the current time. Without one, they
        // begin eight hours ago: simulated time runs faster than real time.
        let (seed, start) = match plan.seed {
            Some(seed) => (seed, 1_767_225_600 + (seed % 10_000_000).cast_signed()),
            None => (
                Uuid::new_v4().as_u64_pair().0,
                Timestamp::now().as_second() - 8 * 3600,
            ),
        };
        let start = Timestamp::from_second(start).unwrap_or(Timestamp::UNIX_EPOCH);
        let share = |whole: u64, index: u64| whole / shares + u64::from(index < whole % shares);
        let ahead_max = SESSIONS_AHEAD_MAX as u64 / plan.array as u64 / shares;
        let worker = |index: u64| {
            let alive = share(plan.sessions, index);
            let mut worker = Self {
                plan,
                target,
                sessions: Sessions::new(seed, start, alive, (index, shares)),
                left: plan.count.map_or(u64::MAX, |count| share(count, index)),
                ahead: VecDeque::new(),
                pace: plan.rate.map(|rate| Pace::new(rate, plan.count)),
                number: index,
                stride: shares,
                again: Random(!seed.wrapping_add(index)),
                recent: VecDeque::new(),
            };
            let ahead = 0..worker.left.min(ahead_max);
            worker.ahead = ahead.map(|_| worker.draft()).collect();
            worker
        };
        (0..shares).map(worker).collect()
    }

    fn draft(&mut self) -> Post {
        if !self.recent.is_empty() && self.again.below(100) < self.plan.resend {
            let mut post = self.again.draw(self.recent.make_contiguous()).1.clone();
            post.is_resent = true;
            return post;
        }
        let (kind, body) = self.sessions.webhook(self.plan.array);
        let post = Post::sign(body, kind, self.target);
        if self.plan.resend > 0 {
            self.recent.truncate(RECENT_MAX - 1);
            self.recent.push_front(post.clone());
        }
        post
    }

    /// Posts until nothing is left, the simulation is stopped, or nothing answers.
    pub(super) async fn run(mut self, stage: &Stage<'_>) {
        let mut failures = 0;
        while self.left > 0 {
            if failures == FAILURES_MAX {
                let unsent = &mut stage.tally.borrow_mut().unsent;
                *unsent = unsent.saturating_add(self.left);
                return;
            }
            if stage.stop.is_cancelled() {
                return;
            }
            if let Some(pace) = self.pace {
                let due = stage.start + pace.due(self.number);
                self.number += self.stride;
                tokio::select! {
                    () = sleep_until(due.into()) => {}
                    () = stage.stop.cancelled() => return,
                }
            }
            self.left -= 1;
            let post = self.ahead.pop_front();
            let post = post.unwrap_or_else(|| self.draft());
            let is_answered = self.posts(post, stage).await;
            failures = if is_answered { 0 } else { failures + 1 };
            (stage.report)(Progress::Handled);
        }
    }

    /// Posts a webhook, unless it is paused. Returns false if there was no answer; during a
    /// simulation with pauses this is no reason to give up.
    async fn posts(&self, post: Post, stage: &Stage<'_>) -> bool {
        let (kind, is_resent) = (post.kind, post.is_resent);
        let pauses = stage.pauses.as_ref();
        if pauses.is_some_and(|pauses| pauses.covers(kind, Instant::now())) {
            let mut tally = stage.tally.borrow_mut();
            tally.lost_webhooks += 1;
            tally.lost_sessions += self.plan.array as u64;
            return true;
        }
        let begin = Instant::now();
        let asked = stage.client.ask(post.request(self.target)).await;
        let mut tally = stage.tally.borrow_mut();
        tally.resent += u64::from(is_resent);
        let failure = match &asked {
            Ok(answer) => {
                tally.answered(answer.status, begin.elapsed(), self.plan.array);
                (!answer.status.is_success()).then(|| answer.status.to_string())
            }
            Err(error) => {
                let failure = format!("{error:#}");
                *tally.failures.entry(failure.clone()).or_default() += 1;
                Some(failure)
            }
        };
        if let (Some(pauses), Some(failure)) = (pauses, failure)
            && pauses.begin(kind, Instant::now())
        {
            tally.pauses += 1;
            (stage.report)(Progress::Paused(kind, &failure));
        }
        asked.is_ok() || pauses.is_some()
    }
}

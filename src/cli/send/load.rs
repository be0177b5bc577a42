//! Posts simulated webhooks on several connections, each with sessions of its own, so that the
//! events of a session stay in order.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::time::Instant;

use deskbridge::config::units::format_duration;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Arguments;
use super::life::Sessions;
use super::pace::Pace;
use super::pause::Pauses;
use super::post::Post;
use super::random::Random;
use super::summary::{Summary, Tally};
use super::target::Target;
use crate::cli::Exit;
use crate::cli::http_client::Client;
use crate::cli::output::{even_unread, print, print_json, say};

/// Webhooks are made and signed before the clock starts, up to so many sessions.
const SESSIONS_AHEAD_MAX: usize = 40_000;
/// What is sent again is one of so many last ones.
const RECENT_MAX: usize = 16;
/// A connection that gets no answer so often in a row gives up.
const FAILURES_MAX: u32 = 10;

/// Posts until the count is reached or it is interrupted, and prints what came of it.
pub async fn run(target: &Target, arguments: &Arguments) -> anyhow::Result<Exit> {
    let client = Client::for_url(&target.url, arguments.connections as usize)?;
    let progress = progress(arguments);
    let stop = CancellationToken::new();
    let pauses = arguments.pause_rule.map(Pauses::new);
    let mut workers = Worker::all(arguments);
    for worker in &mut workers {
        worker.make_ahead(target);
    }
    let start = Instant::now();
    let stage = Stage {
        client: &client,
        target,
        start,
        stop: &stop,
        progress: &progress,
        pauses: pauses.as_ref(),
    };
    let posting = workers.into_iter().map(|worker| worker.run(&stage));
    let posting = futures_util::future::join_all(posting);
    tokio::pin!(posting);
    let tallies = tokio::select! {
        tallies = &mut posting => tallies,
        _ = tokio::signal::ctrl_c() => {
            stop.cancel();
            posting.await
        }
    };
    progress.finish_and_clear();
    let summary = Summary::of(tallies, start.elapsed());
    even_unread(if arguments.json {
        print_json(&summary.json())
    } else {
        print(&summary.text())
    })?;
    Ok(if summary.all_accepted() {
        Exit::Done
    } else {
        Exit::No
    })
}

fn progress(arguments: &Arguments) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let target = ProgressDrawTarget::stderr_with_hz(5);
    let style = "{elapsed_precise} {wide_bar} {pos}/{len} webhooks, {per_sec}, {eta} left";
    let endless = "{elapsed_precise} {spinner} {pos} webhooks, {per_sec}";
    let template = |template| {
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
    };
    match arguments.count {
        Some(count) => {
            ProgressBar::with_draw_target(Some(count), target).with_style(template(style))
        }
        None => ProgressBar::with_draw_target(None, target).with_style(template(endless)),
    }
}

/// What all connections share.
struct Stage<'a> {
    client: &'a Client,
    target: &'a Target,
    start: Instant,
    stop: &'a CancellationToken,
    progress: &'a ProgressBar,
    pauses: Option<&'a Pauses>,
}

/// One connection.
struct Worker {
    sessions: Sessions,
    array: usize,
    /// Posts still to be made, if they are counted.
    left: u64,
    ahead: VecDeque<Draft>,
    ahead_max: usize,
    pace: Option<Pace>,
    /// Of all webhooks, that of the next one, and how far it is to the one after it.
    number: u64,
    stride: u64,
    /// How many of a hundred are sent again, which they are, and what they may be.
    resend: u64,
    again: Random,
    recent: VecDeque<Post>,
    tally: Tally,
}

/// A post that is ready, and whether it was there before.
struct Draft {
    post: Post,
    is_resent: bool,
}

impl Worker {
    /// As many as there are connections, but each with a session at least.
    fn all(arguments: &Arguments) -> Vec<Self> {
        let alive = u64::from(arguments.sessions.unwrap_or(100));
        let shares = u64::from(arguments.connections)
            .min(alive)
            .min(arguments.count.unwrap_or(u64::MAX))
            .max(1);
        let seed = arguments
            .seed
            .unwrap_or_else(|| Uuid::new_v4().as_u64_pair().0);
        // A seed makes the same bodies whenever it is used.
        let start = match arguments.seed {
            Some(seed) => Timestamp::from_second(1_767_225_600 + (seed % 10_000_000).cast_signed()),
            // A day's work so far: simulated time goes faster than ours.
            None => Timestamp::from_second(Timestamp::now().as_second() - 8 * 3600),
        };
        let start = start.unwrap_or(Timestamp::UNIX_EPOCH);
        let array = arguments.array.unwrap_or(1) as usize;
        let share = |whole: u64, index: u64| whole / shares + u64::from(index < whole % shares);
        let worker = |index: u64| Self {
            sessions: Sessions::new(
                seed,
                start,
                usize::try_from(share(alive, index)).unwrap_or(1),
                (index, shares),
            ),
            array,
            left: arguments
                .count
                .map_or(u64::MAX, |count| share(count, index)),
            ahead: VecDeque::new(),
            ahead_max: SESSIONS_AHEAD_MAX / array / usize::try_from(shares).unwrap_or(1),
            pace: arguments.rate.map(|rate| Pace::new(rate, arguments.count)),
            number: index,
            stride: shares,
            resend: arguments.resend.unwrap_or(0).into(),
            again: Random::new(!seed.wrapping_add(index)),
            recent: VecDeque::new(),
            tally: Tally::default(),
        };
        (0..shares).map(worker).collect()
    }

    fn make_ahead(&mut self, target: &Target) {
        let count = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(self.ahead_max);
        self.ahead = (0..count).map(|_| self.draft(target)).collect();
    }

    fn draft(&mut self, target: &Target) -> Draft {
        if !self.recent.is_empty() && self.again.below(100) < self.resend {
            let index = self.again.below(self.recent.len() as u64);
            let index = usize::try_from(index).unwrap_or_default();
            return Draft {
                post: self.recent[index].clone(),
                is_resent: true,
            };
        }
        let (occasion, body) = self.sessions.webhook(self.array);
        let post = Post::sign(body, occasion, target);
        if self.resend > 0 {
            self.recent.truncate(RECENT_MAX - 1);
            self.recent.push_front(post.clone());
        }
        Draft {
            post,
            is_resent: false,
        }
    }

    async fn run(mut self, stage: &Stage<'_>) -> Tally {
        let mut failures = 0;
        while self.left > 0 && failures < FAILURES_MAX && !stage.stop.is_cancelled() {
            if !self.waits_until_due(stage).await {
                break;
            }
            self.left -= 1;
            let draft = self.ahead.pop_front();
            let draft = draft.unwrap_or_else(|| self.draft(stage.target));
            let occasion = draft.post.occasion;
            let is_paused = |pauses: &Pauses| pauses.covers(occasion, Instant::now());
            if stage.pauses.is_some_and(is_paused) {
                self.tally.lost(self.array);
            } else if self.posts(draft, stage).await {
                failures = 0;
            } else if stage.pauses.is_none() {
                failures += 1;
            }
            stage.progress.inc(1);
        }
        if failures == FAILURES_MAX {
            self.tally.gave_up(self.left);
        }
        self.tally
    }

    /// False if it is interrupted.
    async fn waits_until_due(&mut self, stage: &Stage<'_>) -> bool {
        let Some(pace) = self.pace else { return true };
        let due = stage.start + pace.due(self.number);
        self.number += self.stride;
        tokio::select! {
            () = sleep_until(due.into()) => true,
            () = stage.stop.cancelled() => false,
        }
    }

    /// Whether there was an answer, whatever it said.
    async fn posts(&mut self, draft: Draft, stage: &Stage<'_>) -> bool {
        let occasion = draft.post.occasion;
        if draft.is_resent {
            self.tally.resent();
        }
        let begin = Instant::now();
        let asked = stage.client.ask(draft.post.request(stage.target)).await;
        let failure = match &asked {
            Ok(answer) => {
                let (status, took) = (answer.status, begin.elapsed());
                self.tally.answered(status, took, self.array);
                (!status.is_success()).then(|| status.to_string())
            }
            Err(error) => {
                self.tally.failed(error);
                Some(format!("{error:#}"))
            }
        };
        if let (Some(pauses), Some(failure)) = (stage.pauses, failure)
            && pauses.begin(occasion, Instant::now())
        {
            self.tally.paused();
            let length = format_duration(pauses.length());
            stage.progress.suspend(|| {
                say(format_args!(
                    "{} is paused for {length}: {failure}",
                    occasion.name()
                ));
            });
        }
        asked.is_ok()
    }
}

//! Posts simulated webhooks on several connections, each with sessions of its own, so that the
//! events of a session stay in order.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Arguments;
use super::life::Sessions;
use super::post::Post;
use super::summary::{Summary, Tally};
use super::target::Target;
use crate::cli::http_client::Client;
use crate::cli::{Exit, print};

/// Webhooks are made and signed before the clock starts, up to so many sessions.
const SESSIONS_AHEAD_MAX: usize = 40_000;
/// A connection that gets no answer so often in a row gives up.
const FAILURES_MAX: u32 = 10;

/// Posts until the count is reached or it is interrupted, and prints what came of it.
pub async fn run(target: &Target, arguments: &Arguments) -> anyhow::Result<Exit> {
    let client = Client::for_url(&target.url, arguments.connections as usize)?;
    let progress = progress(arguments);
    let stop = CancellationToken::new();
    let mut workers = Worker::all(arguments);
    for worker in &mut workers {
        worker.make_ahead(target);
    }
    let start = Instant::now();
    let posting = workers
        .into_iter()
        .map(|worker| worker.run(&client, target, start, &stop, &progress));
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
    print(&if arguments.json {
        summary.json()
    } else {
        summary.text()
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

/// One connection.
struct Worker {
    sessions: Sessions,
    array: usize,
    /// Posts still to be made, if they are counted.
    left: u64,
    ahead: VecDeque<Post>,
    ahead_max: usize,
    /// When the first one is due after the start, and how long from one to the next.
    pace: Option<(Duration, Duration)>,
    tally: Tally,
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
            None => Timestamp::from_second(Timestamp::now().as_second()),
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
            pace: arguments.rate.map(|rate| pace(rate, index, shares)),
            tally: Tally::default(),
        };
        (0..shares).map(worker).collect()
    }

    fn make_ahead(&mut self, target: &Target) {
        let count = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(self.ahead_max);
        self.ahead = (0..count)
            .map(|_| Post::sign(self.sessions.webhook(self.array), target))
            .collect();
    }

    async fn run(
        mut self,
        client: &Client,
        target: &Target,
        start: Instant,
        stop: &CancellationToken,
        progress: &ProgressBar,
    ) -> Tally {
        let mut failures = 0;
        let mut due = self.pace.map(|(first, _)| start + first);
        while self.left > 0 && failures < FAILURES_MAX && !stop.is_cancelled() {
            if let (Some(at), Some((_, interval))) = (due, self.pace) {
                tokio::select! {
                    () = sleep_until(at.into()) => due = Some(at + interval),
                    () = stop.cancelled() => break,
                }
            }
            self.left -= 1;
            let post = self.ahead.pop_front();
            let post =
                post.unwrap_or_else(|| Post::sign(self.sessions.webhook(self.array), target));
            let begin = Instant::now();
            match client.ask(post.request(target)).await {
                Ok(answer) => {
                    failures = 0;
                    self.tally
                        .answered(answer.status, begin.elapsed(), self.array);
                }
                Err(error) => {
                    failures += 1;
                    self.tally.failed(&error);
                }
            }
            progress.inc(1);
        }
        if failures == FAILURES_MAX {
            self.tally.gave_up(self.left);
        }
        self.tally
    }
}

fn pace(rate: f64, index: u64, shares: u64) -> (Duration, Duration) {
    #[expect(
        clippy::cast_precision_loss,
        reason = "there are at most 1000 connections"
    )]
    let seconds =
        |posts: u64| Duration::try_from_secs_f64(posts as f64 / rate).unwrap_or(Duration::MAX / 4);
    (seconds(index), seconds(shares))
}

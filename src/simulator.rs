//! A simulator of DeskDirector: posts webhooks with the whole life cycle of chat sessions, over
//! several connections. Each connection has its own sessions, so that the events of a session stay
//! in order.

mod pace;
mod pause;
mod people;
mod post;
mod random;
mod sessions;
mod tally;
mod worker;

use std::cell::RefCell;
use std::io;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

pub use self::pace::{Rate, rate};
use self::pause::Pauses;
pub use self::post::{Post, Target, WebhookKind};
pub use self::tally::Tally;
use self::worker::Worker;
use crate::http_client::Client;

/// What is simulated.
#[derive(Debug)]
pub struct Plan {
    /// Number of webhooks; without it, until the simulation is stopped.
    pub count: Option<u64>,
    /// Webhooks per second; without it, as fast as they are answered.
    pub rate: Option<Rate>,
    /// Sessions per webhook, at least 1.
    pub array: usize,
    /// Chat sessions alive at a time.
    pub sessions: u64,
    /// Percentage of the webhooks that repeat a recent one, byte for byte; below 100.
    pub resend: u64,
    /// For how long a webhook is paused after a failed delivery.
    pub pause: Option<Duration>,
    /// Maximum number of connections.
    pub connections: usize,
    /// With it, the same plan posts the same bytes.
    pub seed: Option<u64>,
}

/// What happens during a simulation.
pub enum Progress<'a> {
    /// A webhook was posted, or is lost because it is paused.
    Handled,
    /// A webhook is paused from now on, because a delivery failed for this reason.
    Paused(WebhookKind, &'a str),
}

/// State shared by all connections.
struct Stage<'a> {
    client: Client,
    start: Instant,
    stop: CancellationToken,
    report: &'a dyn Fn(Progress<'_>),
    pauses: Option<Pauses>,
    tally: RefCell<Tally>,
}

/// Posts until the count is reached or `stop` returns, and then awaits the answers that are missing.
///
/// # Errors
/// For an `https` URL, if the system has no certificate authorities.
pub async fn run(
    plan: &Plan,
    target: &Target,
    stop: impl Future,
    report: &dyn Fn(Progress<'_>),
) -> io::Result<Tally> {
    let client = Client::for_url(&target.url, plan.connections)?;
    let workers = Worker::all(plan, target);
    let stage = Stage {
        client,
        start: Instant::now(),
        stop: CancellationToken::new(),
        report,
        pauses: plan.pause.map(Pauses::new),
        tally: RefCell::default(),
    };
    let mut posting = std::pin::pin!(join_all(
        workers.into_iter().map(|worker| worker.run(&stage))
    ));
    tokio::select! {
        _ = &mut posting => {}
        _ = stop => {
            stage.stop.cancel();
            posting.await;
        }
    }
    let took = stage.start.elapsed();
    Ok(stage.tally.take().finished(took))
}

//! A queue as an operator looks at it: its messages are taken window by window, in order, and those
//! that are not removed go back to their place when it is closed. If this process is killed they go
//! back too, but behind others that had come back before. For commands; the bridge consumes nothing.
//!
//! Measured on 3.10: a quorum queue takes messages back in order when their channel closes, as long
//! as no more than 32 consumers of it hold any; `basic.nack` and `basic.get` shuffle them. It puts
//! them before those that were never delivered and behind those that came back earlier: of these,
//! all are taken or none. What was removed is sure only later: see [`Queue::sure`].

mod letter;
mod looks;
mod nature;
pub mod replay;

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::Channel;
use lapin::options::BasicAckOptions;
use lapin::types::ShortString;
use tokio::time::{Instant, timeout};

pub use self::letter::Letter;
pub use self::nature::Nature;
use super::Settings;
use super::connection::{self, FrameSize, Unreachable};
use super::live::{CallError, Live};
use super::publisher::properties::short;
use super::version::{self, Version};

/// Messages of a window while nothing is held; with each window that keeps some, twice as many.
const WINDOW_MIN: u16 = 256;
/// Messages of a window at most: their bodies are in memory together.
const WINDOW_MAX: u16 = 16_384;
/// Windows that may keep some: of more than 32 they could come back in another order, and up to two
/// are begun to make sure of removals.
const WINDOWS_MAX: usize = 30;
/// A queue that hands nothing over for so long keeps what it has, or somebody else has taken it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Beginnings and ends of looks after which a removal is sure.
const PASSAGES: usize = 3;
/// How long what was held may take to be in its queue again.
const RETURN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a polite goodbye may take, and our consumers after it; and a message nobody waits for.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why a queue cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// No broker takes us.
    #[error(transparent)]
    Connect(#[from] Unreachable),
    /// There is no such queue.
    #[error("there is no queue `{0}`")]
    Missing(String),
    /// The broker does not let us; its own words.
    #[error("the broker refuses: {1} ({0})")]
    Refused(u16, String),
    /// It has messages and hands none over: its one active consumer is somebody else.
    #[error(
        "queue `{0}` has messages but hands none over; is somebody else its single active consumer?"
    )]
    Withheld(String),
    /// The connection is gone; what was held is in its queue again.
    #[error("the connection to the broker was lost: {0}")]
    Lost(String),
}

/// A queue of which messages are held.
pub struct Queue {
    live: Live,
    channel: Channel,
    name: ShortString,
    waiting: u64,
    seen: u64,
    removed: u64,
    /// Removals written at the last beginnings and ends of looks, the latest last.
    passages: [u64; PASSAGES],
    windows: u64,
    /// The windows of which some are held, and how many.
    held: BTreeMap<u64, usize>,
    /// The last one taken had been given back before: others like it may be left.
    is_among_returned: bool,
}

impl Queue {
    /// Connects on a connection of its own and looks whether the queue is there. Takes nothing.
    ///
    /// # Errors
    /// If no broker takes us, or there is no such queue.
    pub async fn open(settings: &Settings, name: &str) -> Result<Self, QueueError> {
        if name.is_empty() || name.len() > 255 {
            return Err(QueueError::Missing(name.into()));
        }
        let live = Live::new(connection::connect_to_any_with(settings, FrameSize::Large).await?);
        let channel = match live.open_channel().await {
            Ok(channel) => channel,
            Err(error) => return Err(failed(&live, name, error).await),
        };
        let mut queue = Self {
            live,
            channel,
            name: short(name),
            waiting: 0,
            seen: 0,
            removed: 0,
            passages: [0; PASSAGES],
            windows: 0,
            held: BTreeMap::new(),
            is_among_returned: false,
        };
        queue.waiting = queue.ready().await?.0;
        Ok(queue)
    }

    /// What kind of queue it is, as far as AMQP tells. Changes nothing.
    ///
    /// # Errors
    /// If the connection is lost.
    pub async fn nature(&self, settings: &Settings) -> Result<Nature, QueueError> {
        match nature::ask(&self.live, &self.name).await {
            Ok(Nature::BrokersDefault) => Ok(match version::of_any(settings).await {
                Some(Version(0..4, _)) => Nature::Unlimited,
                _ => Nature::BrokersDefault,
            }),
            Ok(nature) => Ok(nature),
            Err(error) => Err(failed(&self.live, self.name.as_str(), error).await),
        }
    }

    /// Messages that were ready when it was opened: no pass takes more.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.waiting
    }

    /// Messages of them that this pass has not taken, because it took as many as it may.
    #[must_use]
    pub fn untaken(&self) -> u64 {
        self.waiting.saturating_sub(self.seen)
    }

    /// Removals asked for so far.
    #[must_use]
    pub fn removed(&self) -> u64 {
        self.removed
    }

    /// Removals that nothing can undo any more: the first so many.
    ///
    /// A channel sends a quorum queue at most 32 commands ahead, keeps what is more in memory until
    /// it hears that they were applied, and forgets it when it closes. To begin and to end a look
    /// goes through the queue's log: the first such passage is behind all that was sent, with the
    /// second the channel has heard of it and sends the rest, the third is behind that too.
    #[must_use]
    pub fn sure(&self) -> u64 {
        self.passages[0]
    }

    /// Lets the pass go on with what has arrived since it was opened.
    ///
    /// # Errors
    /// If the connection is lost.
    pub async fn extend(&mut self) -> Result<(), QueueError> {
        self.waiting = self.seen + self.ready().await?.0;
        Ok(())
    }

    /// Takes the next window; empty when all were taken that were ready at the start.
    ///
    /// # Errors
    /// If the broker does not hand them over.
    pub async fn take(&mut self) -> Result<Vec<Letter>, QueueError> {
        let left = self.untaken();
        if left == 0 || self.held.len() >= WINDOWS_MAX {
            return Ok(Vec::new());
        }
        let doubled = WINDOW_MIN.saturating_mul(1 << self.held.len().min(8));
        let size = doubled.min(WINDOW_MAX);
        let size = u16::try_from(left).unwrap_or(size).min(size);
        let mut consumer = self.begin(size).await?;
        let letters = self.collect(&mut consumer, size).await?;
        self.end(&consumer).await?;
        self.hold(&letters);
        Ok(letters)
    }

    /// Removes a message for good; not for [sure](Self::sure) yet.
    ///
    /// # Errors
    /// If the connection is lost: it may then be there still.
    pub async fn remove(&mut self, letter: &Letter) -> Result<(), QueueError> {
        self.removed += 1;
        let ack = self
            .channel
            .basic_ack(letter.tag, BasicAckOptions::default());
        self.call("take an acknowledgement", ack).await?;
        if let Some(held) = self.held.get_mut(&letter.window) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&letter.window);
            }
        }
        Ok(())
    }

    /// Waits until all removals are [sure](Self::sure).
    ///
    /// # Errors
    /// If the connection is lost: those that are not sure may not have happened then.
    pub async fn make_sure(&mut self) -> Result<(), QueueError> {
        while self.sure() < self.removed {
            let is_any_ready = self.ready().await?.0 > 0;
            let mut consumer = self.begin(1).await?;
            let mut letters = Vec::new();
            // One that it hands over is held like any other. Ended too early, the broker would give
            // it back by itself, before those that are held.
            if is_any_ready && let Ok(Some(Ok(delivery))) = timeout(FAREWELL, consumer.next()).await
            {
                self.seen += 1;
                letters.push(Letter::new(self.seen, self.windows, delivery));
            }
            self.end(&consumer).await?;
            self.hold(&letters);
        }
        Ok(())
    }

    /// Gives everything back that was not removed, and waits until it is there again.
    ///
    /// # Errors
    /// If the connection is lost: removals that are not sure may not have happened then.
    pub async fn close(mut self) -> Result<(), QueueError> {
        self.make_sure().await?;
        // A part of what had come back before would get behind the rest of it. Nothing is taken
        // after the last of them.
        while self.is_among_returned {
            self.extend().await?;
            if self.take().await?.is_empty() {
                break;
            }
        }
        self.call("close a look", self.channel.close(200, "OK".into()))
            .await?;
        self.channel = match self.live.open_channel().await {
            Ok(channel) => channel,
            Err(error) => return Err(failed(&self.live, self.name.as_str(), error).await),
        };
        let began = Instant::now();
        loop {
            let (ready, consumers) = self.ready().await?;
            // Our own consumers are counted a moment longer; somebody else's takes what is back.
            let is_taken = consumers > 0 && began.elapsed() > FAREWELL;
            let is_back = ready >= self.waiting - self.removed;
            if is_back || is_taken || began.elapsed() > RETURN_TIMEOUT {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let goodbye = self.live.amqp().close(200, "OK".into());
        // All is done; how we part does not matter.
        let _ = timeout(FAREWELL, goodbye).await;
        Ok(())
    }
}

async fn failed(live: &Live, queue: &str, error: CallError) -> QueueError {
    match error {
        CallError::Closed(404, _) => QueueError::Missing(queue.into()),
        CallError::Closed(code, text) => QueueError::Refused(code, text),
        CallError::Lost => QueueError::Lost(live.lost().await),
    }
}

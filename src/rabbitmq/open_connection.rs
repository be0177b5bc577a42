//! An established connection and the state that its users share: whether it is blocked or lost, the
//! idle channels, and a deadline for every lapin call. Knows nothing about topology or routes.

use std::collections::{HashMap, HashSet};
use std::net::Shutdown;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use jiff::Timestamp;
use lapin::options::ConfirmSelectOptions;
use lapin::{Channel, ErrorKind, Event};
use socket2::Socket;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{Outcome, reply_code};

/// Deadline of a lapin call. If a call makes no progress for this long while the connection is not
/// blocked and nothing is written, the connection counts as lost.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Interval at which lapin's connection status is polled, in case an event was missed.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Idle channels kept open per exchange for later windows.
const IDLE_CHANNELS_MAX: usize = 8;

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CallError {
    /// The broker closed the channel: reply code and text.
    Closed(u16, String),
    /// The connection is lost; [`OpenConnection::lost`] says why.
    Lost,
}

impl From<CallError> for Outcome {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Closed(code, reason) => Self::ChannelClosed {
                kind: reply_code::refusal_kind(code, &reason),
                reason,
            },
            CallError::Lost => Self::Unknown,
        }
    }
}

/// A second handle to the connection's socket. Shuts the socket down when dropped: only this ends
/// lapin's thread when the peer is silent.
pub(super) struct SocketGuard(pub(super) Socket);

impl SocketGuard {
    /// Shuts the socket down in both directions, immediately.
    fn shut_down(&self) {
        // Fails only if the socket is already closed.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl Drop for SocketGuard {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// An established connection.
pub(super) struct OpenConnection {
    amqp: lapin::Connection,
    socket: SocketGuard,
    /// When the broker's certificate expires (`notAfter`); `None` without TLS.
    pub(super) expires_at: Option<Timestamp>,
    /// The broker's reason, while it blocks publishing.
    blocked: watch::Sender<Option<String>>,
    lost: CancellationToken,
    why: OnceLock<String>,
    written: AtomicU64,
    idle: Mutex<HashMap<Arc<str>, Vec<Channel>>>,
    known: Mutex<HashSet<Arc<str>>>,
}

impl OpenConnection {
    pub(super) fn new(
        amqp: lapin::Connection,
        socket: SocketGuard,
        expires_at: Option<Timestamp>,
    ) -> Self {
        Self {
            amqp,
            socket,
            expires_at,
            blocked: watch::Sender::new(None),
            lost: CancellationToken::new(),
            why: OnceLock::new(),
            written: AtomicU64::new(0),
            idle: Mutex::default(),
            known: Mutex::default(),
        }
    }

    /// lapin's connection. It delivers each event to one listener only, so create exactly one, or
    /// call [`OpenConnection::watch_over`].
    pub(super) fn amqp(&self) -> &lapin::Connection {
        &self.amqp
    }

    /// The broker's reason, while it blocks publishing. Changes only during
    /// [`OpenConnection::watch_over`].
    pub(super) fn blocked(&self) -> watch::Receiver<Option<String>> {
        self.blocked.subscribe()
    }

    /// Tracks the state of the connection until it is lost, and returns the reason.
    pub(super) async fn watch_over(&self) -> String {
        let mut events = pin!(self.amqp.events_listener());
        if self.amqp.status().blocked() {
            // The event arrived before there was a listener.
            self.blocked.send_replace(Some("alarm".into()));
        }
        let mut checks = tokio::time::interval(CHECK_INTERVAL);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                reason = self.lost() => return reason,
                Some(event) = events.next() => match event {
                    Event::ConnectionBlocked(reason) => {
                        self.blocked.send_replace(Some(reason));
                    }
                    Event::ConnectionUnblocked => {
                        self.blocked.send_replace(None);
                    }
                    // Channel errors arrive here, too; only the end of the connection matters.
                    Event::Error(error) if !self.amqp.status().connected() => {
                        self.fail(error.to_string());
                    }
                    _ => {}
                },
                _ = checks.tick() => if !self.amqp.status().connected() {
                    self.fail("the connection was closed");
                }
            }
        }
    }

    /// Closes the connection with an AMQP close. A broker that blocks the connection reads nothing,
    /// and one that is frozen answers nothing; after `timeout` the socket is shut down.
    pub(super) async fn close(&self, timeout: Duration) {
        self.retire("closed");
        let closing = self.amqp.close(200, "OK".into());
        let _ = tokio::time::timeout(timeout, closing).await;
        self.fail("closed");
    }

    /// Abandons the connection immediately and shuts its socket down. Every call on it returns
    /// [`CallError::Lost`].
    pub(super) fn fail(&self, reason: impl Into<String>) {
        self.retire(reason);
        self.socket.shut_down();
    }

    /// Like [`OpenConnection::fail`], but leaves the socket open, for an orderly close.
    fn retire(&self, reason: impl Into<String>) {
        // The first reason is the cause; later ones are its consequences.
        let _ = self.why.set(reason.into());
        self.lost.cancel();
    }

    /// Waits until the connection is lost, and returns the reason.
    pub(super) async fn lost(&self) -> String {
        self.lost.cancelled().await;
        self.why.get().cloned().unwrap_or_default()
    }

    /// Runs one lapin call with the deadline [`CALL_TIMEOUT`]. The deadline is suspended while the
    /// connection is blocked and extended while publishing makes progress. When it expires, the
    /// connection is abandoned. `what` completes "the broker did not …" and "could not …".
    pub(super) async fn call<T>(
        &self,
        what: &str,
        call: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, CallError> {
        match self.unless_stalled(what, call).await? {
            Ok(value) => Ok(value),
            Err(error) => Err(self.classify(what, &error)),
        }
    }

    /// Like [`OpenConnection::call`], for a future with any output.
    pub(super) async fn unless_stalled<T>(
        &self,
        what: &str,
        future: impl Future<Output = T>,
    ) -> Result<T, CallError> {
        tokio::select! {
            biased;
            () = self.lost.cancelled() => Err(CallError::Lost),
            value = future => Ok(value),
            () = self.stalled() => {
                self.fail(format!("the broker did not {what} within {CALL_TIMEOUT:?}"));
                Err(CallError::Lost)
            }
        }
    }

    /// Like [`OpenConnection::unless_stalled`], without a deadline: how long a confirm may take is
    /// not decided here.
    pub(super) async fn unless_lost<T>(
        &self,
        future: impl Future<Output = T>,
    ) -> Result<T, CallError> {
        tokio::select! {
            biased;
            () = self.lost.cancelled() => Err(CallError::Lost),
            value = future => Ok(value),
        }
    }

    /// Classifies an error of lapin. On every error other than a channel closed by the broker, the
    /// connection is abandoned, because its state is unknown.
    pub(super) fn classify(&self, what: &str, error: &lapin::Error) -> CallError {
        if self.lost.is_cancelled() {
            return CallError::Lost;
        }
        // A connection can be closed with reply codes of channels. They say nothing about a
        // message.
        if self.amqp.status().connected()
            && let Some((code, text)) = closed_by_broker(error)
        {
            return CallError::Closed(code, text);
        }
        self.fail(format!("could not {what}: {error}"));
        CallError::Lost
    }

    /// Records that something was written, which extends the deadlines of pending calls.
    pub(super) fn wrote(&self) {
        self.written.fetch_add(1, Ordering::Relaxed);
    }

    /// Opens a channel. When the broker has closed a channel, lapin answers the next
    /// `channel.open` with the same number by the old reply. The broker itself never closes a channel
    /// that is being opened, so such a number is skipped.
    pub(super) async fn open_channel(&self) -> Result<Channel, CallError> {
        loop {
            let opened = self.call("open a channel", self.amqp.create_channel());
            match opened.await {
                // lapin does not use the number again, so the loop ends: without a free number,
                // the connection is abandoned.
                Err(CallError::Closed(..)) => {}
                opened => return opened,
            }
        }
    }

    /// An idle channel in confirm mode for messages to this exchange; opened if none was kept.
    pub(super) async fn confirm_channel(&self, exchange: &str) -> Result<Channel, CallError> {
        while let Some(channel) = lock(&self.idle).get_mut(exchange).and_then(Vec::pop) {
            if channel.status().connected() {
                return Ok(channel);
            }
        }
        let channel = self.open_channel().await?;
        let select = channel.confirm_select(ConfirmSelectOptions::default());
        self.call("enable publisher confirms", select).await?;
        Ok(channel)
    }

    /// Keeps a channel for a later window. Call only when every confirm on it has arrived.
    pub(super) fn keep_channel(&self, exchange: &Arc<str>, channel: Channel) {
        let mut idle = lock(&self.idle);
        let channels = idle.entry(Arc::clone(exchange)).or_default();
        if channels.len() < IDLE_CHANNELS_MAX {
            channels.push(channel);
        }
    }

    /// Whether the exchange is known to exist, from an earlier check on this connection.
    pub(super) fn is_known(&self, exchange: &str) -> bool {
        lock(&self.known).contains(exchange)
    }

    /// Records that the exchange exists, or that it may not exist any more.
    pub(super) fn set_known(&self, exchange: &Arc<str>, is_known: bool) {
        let mut known = lock(&self.known);
        if is_known {
            known.insert(Arc::clone(exchange))
        } else {
            known.remove(exchange)
        };
    }

    async fn stalled(&self) {
        let mut blocked = self.blocked.subscribe();
        loop {
            // Cannot fail: `self` owns the sender.
            let _ = blocked.wait_for(Option::is_none).await;
            let written = self.written.load(Ordering::Relaxed);
            tokio::select! {
                () = tokio::time::sleep(CALL_TIMEOUT) => {
                    if self.written.load(Ordering::Relaxed) == written {
                        return;
                    }
                }
                _ = blocked.wait_for(Option::is_some) => {}
            }
        }
    }
}

/// Reply code and text, if the broker closed the channel because of an operation on it.
pub(super) fn closed_by_broker(error: &lapin::Error) -> Option<(u16, String)> {
    match error.kind() {
        ErrorKind::ProtocolError(reply) if error.is_amqp_soft_error() => {
            let text = reply.get_message().as_str();
            (!is_of_lapin(text)).then(|| (reply.get_id(), text.to_owned()))
        }
        _ => None,
    }
}

/// Selects the error that contains the broker's reply; otherwise the first one. When the broker
/// closes a channel, timing decides which of the pending calls receive its reply, and which only
/// learn that the channel is closing.
pub(super) fn most_specific_error(mut errors: Vec<lapin::Error>) -> Option<lapin::Error> {
    let at = errors
        .iter()
        .position(|error| closed_by_broker(error).is_some());
    let at = at.or((!errors.is_empty()).then_some(0))?;
    Some(errors.swap_remove(at))
}

/// Whether lapin itself closed the channel. It does so when it receives a confirm for a delivery
/// tag that was not published, with the reply code that a broker uses for a message that is too
/// large. This says nothing about any message.
fn is_of_lapin(text: &str) -> bool {
    text.starts_with("invalid ack received") || text.starts_with("invalid nack received")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use lapin::ChannelState;
    use lapin::protocol::{AMQPError, AMQPSoftError};

    use super::*;

    #[test]
    fn brokers_reply_is_found_among_the_errors() {
        let overtaken = || {
            let state = ChannelState::Closing;
            lapin::Error::from(ErrorKind::InvalidChannelState(state, "basic.publish"))
        };
        let reply = AMQPError::new(AMQPSoftError::ACCESSREFUSED.into(), "not you".into());
        let reply = lapin::Error::from(ErrorKind::ProtocolError(reply));
        let expected = Some((403, "not you".to_owned()));
        for errors in [
            vec![reply.clone(), overtaken()],
            vec![overtaken(), overtaken(), reply],
        ] {
            let found = most_specific_error(errors).expect("an error");
            assert_eq!(closed_by_broker(&found), expected);
        }
        assert!(most_specific_error(vec![overtaken()]).is_some());
        assert!(most_specific_error(Vec::new()).is_none());
    }
}

//! An established connection and what its windows share: whether it is blocked, whether it is
//! lost, idle channels, and a deadline for every call of lapin's. Knows no exchange and no route.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use lapin::options::ConfirmSelectOptions;
use lapin::{Channel, ErrorKind};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::connection::{Connection, SocketGuard};

/// A call of lapin's that does nothing for that long, on a connection that is not blocked and
/// writes nothing either, has lost the connection.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Channels kept open for the next window of an exchange.
const IDLE_CHANNELS_MAX: usize = 8;

/// Why a call did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CallError {
    /// The broker closed the channel: code and text.
    Closed(u16, String),
    /// The connection is lost; [`Live::lost`] says why.
    Lost,
}

/// An established connection.
pub(super) struct Live {
    amqp: lapin::Connection,
    socket: SocketGuard,
    blocked: watch::Sender<bool>,
    lost: CancellationToken,
    why: OnceLock<String>,
    written: AtomicU64,
    idle: Mutex<HashMap<Arc<str>, Vec<Channel>>>,
    known: Mutex<HashSet<Arc<str>>>,
}

impl Live {
    pub(super) fn new(connection: Connection) -> Self {
        let Connection { amqp, socket, .. } = connection;
        Self {
            amqp,
            socket,
            blocked: watch::Sender::new(false),
            lost: CancellationToken::new(),
            why: OnceLock::new(),
            written: AtomicU64::new(0),
            idle: Mutex::default(),
            known: Mutex::default(),
        }
    }

    /// lapin's view. Its events go to one listener only: take exactly one.
    pub(super) fn amqp(&self) -> &lapin::Connection {
        &self.amqp
    }

    pub(super) fn set_blocked(&self, blocked: bool) {
        self.blocked.send_replace(blocked);
    }

    /// Gives the connection up, now: every call on it ends with [`CallError::Lost`].
    pub(super) fn fail(&self, reason: impl Into<String>) {
        self.retire(reason);
        self.socket.shut_down();
    }

    /// As [`Live::fail`], but the connection itself stays, for a goodbye.
    pub(super) fn retire(&self, reason: impl Into<String>) {
        // The first reason is the cause, the others follow from it.
        let _ = self.why.set(reason.into());
        self.lost.cancel();
    }

    /// Waits until the connection is lost, and says why.
    pub(super) async fn lost(&self) -> String {
        self.lost.cancelled().await;
        self.why.get().cloned().unwrap_or_default()
    }

    /// Runs one call of lapin's. A deadline that stands still while the connection is blocked, and
    /// starts anew as long as publishing writes, ends a connection that does nothing.
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

    /// As [`Live::call`], for a future that has something else to say.
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

    /// As [`Live::call`], without a deadline: how long a confirm may take is not decided here.
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

    /// What an error of lapin's means. Anything but the broker closing a channel costs the
    /// connection: its state is unknown.
    pub(super) fn classify(&self, what: &str, error: &lapin::Error) -> CallError {
        if self.lost.is_cancelled() {
            return CallError::Lost;
        }
        // A connection can be closed with the codes of channels; that says nothing of any message.
        if self.amqp.status().connected()
            && let Some((code, text)) = closed_by_broker(error)
        {
            return CallError::Closed(code, text);
        }
        self.fail(format!("could not {what}: {error}"));
        CallError::Lost
    }

    /// Tells the deadlines that something was written.
    pub(super) fn wrote(&self) {
        self.written.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) async fn open_channel(&self) -> Result<Channel, CallError> {
        self.call("open a channel", self.amqp.create_channel())
            .await
    }

    /// A channel in confirm mode that carries nothing, for messages to this exchange.
    pub(super) async fn confirm_channel(&self, exchange: &str) -> Result<Channel, CallError> {
        while let Some(channel) = lock(&self.idle).get_mut(exchange).and_then(Vec::pop) {
            if channel.status().connected() {
                return Ok(channel);
            }
        }
        let channel = self.open_channel().await?;
        let select = channel.confirm_select(ConfirmSelectOptions::default());
        self.call("switch to confirms", select).await?;
        Ok(channel)
    }

    /// Keeps a channel for the next window. Only when every confirm on it has come.
    pub(super) fn keep_channel(&self, exchange: &Arc<str>, channel: Channel) {
        let mut idle = lock(&self.idle);
        let channels = idle.entry(Arc::clone(exchange)).or_default();
        if channels.len() < IDLE_CHANNELS_MAX {
            channels.push(channel);
        }
    }

    /// Whether the exchange has been seen on this connection.
    pub(super) fn is_known(&self, exchange: &str) -> bool {
        lock(&self.known).contains(exchange)
    }

    /// Remembers that the exchange is there, or that it may not be.
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
            // Cannot fail: the sender is ours.
            let _ = blocked.wait_for(|blocked| !blocked).await;
            let written = self.written.load(Ordering::Relaxed);
            tokio::select! {
                () = tokio::time::sleep(CALL_TIMEOUT) => {
                    if self.written.load(Ordering::Relaxed) == written {
                        return;
                    }
                }
                _ = blocked.wait_for(|blocked| *blocked) => {}
            }
        }
    }
}

/// Code and text, if the broker closed the channel because of what was asked on it.
pub(super) fn closed_by_broker(error: &lapin::Error) -> Option<(u16, String)> {
    match error.kind() {
        ErrorKind::ProtocolError(reply) if error.is_amqp_soft_error() => {
            let text = reply.get_message().as_str();
            (!is_of_lapin(text)).then(|| (reply.get_id(), text.to_owned()))
        }
        _ => None,
    }
}

/// The error that says why. When the broker closes a channel, which of the calls on it get its reply
/// and which only learn that the channel is closing is a matter of timing.
pub(super) fn telling(mut errors: Vec<lapin::Error>) -> Option<lapin::Error> {
    let at = errors
        .iter()
        .position(|error| closed_by_broker(error).is_some());
    let at = at.or((!errors.is_empty()).then_some(0))?;
    Some(errors.swap_remove(at))
}

/// A confirm for what was not published makes lapin close the channel itself, with the code a
/// broker has for a message that is too large. It says nothing of any message.
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
    fn the_brokers_reply_is_found_among_what_came_of_it() {
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
            let found = telling(errors).expect("an error");
            assert_eq!(closed_by_broker(&found), expected);
        }
        assert!(telling(vec![overtaken()]).is_some());
        assert!(telling(Vec::new()).is_none());
    }
}

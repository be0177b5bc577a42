//! Reports the state of the process to a service manager such as systemd (`sd_notify(3)`). Without a
//! service manager, nothing is sent.

use sd_notify::NotifyState;
use tokio::time::interval;

/// Reports that webhooks are accepted.
pub(super) fn ready() {
    send(&[NotifyState::Ready]);
}

/// Reports that a reload begins; [`ready`] reports its end.
pub(super) fn reloading() {
    // `Type=notify-reload` needs the time, which is the time of the signal.
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        send(&[NotifyState::Reloading, now]);
    }
}

/// Reports that a shutdown begins.
pub(super) fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// Reports regularly that the runtime works, if the service manager has a watchdog. Never returns.
pub(super) async fn feed_watchdog() {
    let Some(timeout) = sd_notify::watchdog_enabled().filter(|timeout| !timeout.is_zero()) else {
        return std::future::pending().await;
    };
    let mut ticks = interval(timeout / 2);
    loop {
        ticks.tick().await;
        send(&[NotifyState::Watchdog]);
    }
}

fn send(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "service manager not notified");
    }
}

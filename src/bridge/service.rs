//! Reports the state of the process to a service manager such as systemd (`sd_notify(3)`). Without a
//! service manager, nothing is sent.

use std::env;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::interval;

use crate::http::admin::Admin;
use crate::journal::Journal;

/// The longest time between a change of the state and its report.
const STATUS_INTERVAL: Duration = Duration::from_secs(2);

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

/// Reports the state in one line. If the service manager has a watchdog, also reports regularly that the
/// runtime works and that the journal's writer does not hang. Never returns.
pub(super) async fn report(admin: Admin<Journal>) {
    if env::var_os("NOTIFY_SOCKET").is_none() {
        return std::future::pending().await;
    }
    let watchdog = sd_notify::watchdog_enabled().filter(|timeout| !timeout.is_zero());
    let patience = watchdog.map(|timeout| timeout / 2);
    let mut ticks = interval(patience.map_or(STATUS_INTERVAL, |max| max.min(STATUS_INTERVAL)));
    let mut reported = String::new();
    loop {
        ticks.tick().await;
        let line = admin.summary();
        if line != reported {
            send(&[NotifyState::Status(&line)]);
            reported = line;
        }
        if patience.is_some_and(|max| admin.journal.writing_for() < max) {
            send(&[NotifyState::Watchdog]);
        }
    }
}

fn send(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "service manager not notified");
    }
}

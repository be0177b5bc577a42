//! Attacks on the real process while genuine webhooks arrive: strangers without a secret, and
//! hostile senders. Small scale here; `make flood` runs the same tests at full scale.

mod connection_floods;
mod exhaustion;
mod forged_signatures;
mod genuine_sender;
mod hostile_json;
mod log_injection;
mod replayed_webhooks;

/// The size for `make test`, or that for `make flood`.
fn size<T>(small: T, full: T) -> T {
    if std::env::var_os("DESKBRIDGE_FLOOD").is_some() {
        full
    } else {
        small
    }
}

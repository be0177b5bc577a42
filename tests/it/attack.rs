//! Strangers without a secret, and senders that mean no good: what they do to the real process
//! while genuine webhooks arrive. Small here; `make flood` runs the same in full.

mod crowds;
mod exhaustion;
mod forgeries;
mod genuine;
mod leaks;
mod poison;
mod replays;

/// The number for `make test`, or that of the campaign.
fn size<T>(small: T, full: T) -> T {
    if std::env::var_os("DESKBRIDGE_FLOOD").is_some() {
        full
    } else {
        small
    }
}

//! Ctrl-C and SIGTERM: a command finishes what is in flight and starts nothing new. A second signal
//! ends it at once, which loses nothing either.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The exit code that shells report for a process ended by Ctrl-C: 128 + `SIGINT`.
const INTERRUPTED: i32 = 130;

/// Starts listening for both signals; the first one cancels the token.
///
/// # Errors
/// If the process cannot handle signals.
pub fn listen() -> anyhow::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let token = CancellationToken::new();
    let interrupted = token.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if interrupted.is_cancelled() {
                std::process::exit(INTERRUPTED);
            }
            interrupted.cancel();
        }
    });
    Ok(token)
}

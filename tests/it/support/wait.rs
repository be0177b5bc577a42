//! Waits for a condition instead of sleeping for a fixed time.

use std::future::Future;
use std::time::{Duration, Instant};

/// How long a test waits for something that should happen soon.
pub const SOON: Duration = Duration::from_secs(20);

const PAUSE: Duration = Duration::from_millis(25);

/// Polls until the condition holds; after `deadline` panics naming `what`.
pub async fn eventually<F, C>(what: &str, deadline: Duration, mut condition: F)
where
    F: FnMut() -> C,
    C: Future<Output = bool>,
{
    eventually_some(what, deadline, || {
        let holds = condition();
        async move { holds.await.then_some(()) }
    })
    .await;
}

/// As [`eventually`], for an attempt that returns a value in the end.
pub async fn eventually_some<T, F, C>(what: &str, deadline: Duration, mut attempt: F) -> T
where
    F: FnMut() -> C,
    C: Future<Output = Option<T>>,
{
    let begin = Instant::now();
    loop {
        if let Some(value) = attempt().await {
            return value;
        }
        assert!(
            begin.elapsed() < deadline,
            "waited {deadline:?} in vain until {what}"
        );
        tokio::time::sleep(PAUSE).await;
    }
}

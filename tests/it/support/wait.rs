//! Waiting for a condition instead of sleeping for luck.

use std::future::Future;
use std::time::{Duration, Instant};

/// How long a test waits for what should happen soon.
pub const SOON: Duration = Duration::from_secs(20);

const PAUSE: Duration = Duration::from_millis(25);

/// Asks again and again until the condition holds; panics naming `what` after `deadline`.
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

/// The same for something that is to be had at the end.
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

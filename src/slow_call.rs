//! Calls that may not return for minutes: a name server that does not answer, a file on a mount whose
//! server is gone, a pipe without a writer. Each runs in a thread of its own, because tokio's
//! blocking threads are few, and webhooks and the journal need them.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::{Semaphore, oneshot};

/// One turn for each name.
static TURNS: Mutex<BTreeMap<String, Arc<Semaphore>>> = Mutex::new(BTreeMap::new());

/// Runs a call that may block. Calls with the same name run one after another, so a caller that gives
/// up and tries again never has more than one thread. Names must be few, because each is kept.
///
/// # Errors
/// If no thread can be started, or the call panics.
pub async fn run<T: Send + 'static>(
    name: &str,
    call: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let turn = {
        let mut turns = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = turns.entry(name.to_owned());
        Arc::clone(turn.or_insert_with(|| Arc::new(Semaphore::new(1))))
    };
    let turn = turn.acquire_owned().await.map_err(io::Error::other)?;
    let (sender, receiver) = oneshot::channel();
    thread::Builder::new()
        .name("slow-call".into())
        .spawn(move || {
            let value = call();
            drop(turn);
            // The caller may have dropped the receiver.
            let _ = sender.send(value);
        })?;
    receiver
        .await
        .map_err(|_| io::Error::other("the call panicked"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn callers_that_give_up_leave_one_thread() {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let (release, released) = mpsc::channel::<()>();
        let blocked = run("silent", move || {
            STARTED.fetch_add(1, Ordering::Relaxed);
            let _ = released.recv();
        });
        assert!(blocked.now_or_never().is_none());
        for _ in 0..20 {
            let again = run("silent", || STARTED.fetch_add(1, Ordering::Relaxed));
            assert!(again.now_or_never().is_none());
        }
        assert_eq!(run("another", || 7).await.unwrap(), 7);
        drop(release);
        let started = run("silent", || STARTED.load(Ordering::Relaxed)).await;
        assert_eq!(started.unwrap(), 1);
    }
}

//! Hands the results of each commit to the forwarder. Bodies that wait there have bounded memory:
//! beyond it, events are handed over without their bodies, and the forwarder fetches them when it
//! is their turn. The same applies to the events of a large webhook. Their bodies share one
//! allocation, which is free as soon as the webhook is stored.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};

use super::interface::{Committed, QueuedEvent};
use crate::memory;
use crate::webhook::Event;

/// Commits that the forwarder has not received yet, at most.
const COMMITS_MAX: usize = 64;
/// The bodies in these commits, in KiB, at most.
const BODIES_KIB_MAX: u32 = 8 << 10;

/// The writer's end of the channel.
#[derive(Debug)]
pub(super) struct Handover {
    commits: mpsc::Sender<Committed>,
    bodies: Arc<Semaphore>,
}

impl Handover {
    /// Creates both ends of the channel.
    pub(super) fn new() -> (Self, mpsc::Receiver<Committed>) {
        let (commits, receiver) = mpsc::channel(COMMITS_MAX);
        let bodies = Arc::new(Semaphore::new(BODIES_KIB_MAX as usize));
        (Self { commits, bodies }, receiver)
    }

    /// Blocks while the channel is full. This cannot deadlock: the forwarder receives commits even
    /// while it waits for the writer thread. An error means that the forwarder has ended; it is ignored.
    pub(super) fn send(&self, mut committed: Committed) {
        let mut bytes = 0;
        let is_of_one_webhook = |one: &QueuedEvent, other: &QueuedEvent| {
            Arc::ptr_eq(&one.event.envelope, &other.event.envelope)
        };
        for webhook in committed.fresh.chunk_by_mut(is_of_one_webhook) {
            let length: usize = webhook.iter().map(|held| held.event.body.len()).sum();
            if length >= memory::LARGE_BYTES {
                webhook.iter_mut().for_each(strip_body);
            } else {
                bytes += length;
            }
        }
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        match self.bodies.clone().try_acquire_many_owned(kib) {
            Ok(permit) => committed.memory = Some(permit),
            Err(_) => committed.fresh.iter_mut().for_each(strip_body),
        }
        let _ = self.commits.blocking_send(committed);
    }
}

/// Removes the body. The forwarder learns that the event exists, and fetches it from the journal.
pub(crate) fn strip_body(held: &mut QueuedEvent) {
    held.has_body = false;
    held.event = Arc::new(Event {
        body: Bytes::new(),
        ..Event::clone(&held.event)
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::tests::support::Bench;

    fn held(bytes: usize) -> QueuedEvent {
        let mut held = Bench::new().append(&[("s", "created")]).remove(0);
        let body = Bytes::from(vec![b'x'; bytes]);
        held.event = Arc::new(Event {
            body,
            ..Event::clone(&held.event)
        });
        held
    }

    #[test]
    fn bodies_beyond_the_memory_limit_stay_on_disk() {
        let (handover, mut receiver) = Handover::new();
        let commit = || Committed {
            fresh: (0..10).map(|_| held(512 << 10)).collect(),
            ..Committed::default()
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                handover.send(commit());
                handover.send(commit());
            });
        });
        let first = receiver.blocking_recv().unwrap();
        let second = receiver.blocking_recv().unwrap();
        assert!(first.fresh[0].has_body && first.fresh[0].event.body.len() == 512 << 10);
        assert!(!second.fresh[0].has_body && second.fresh[0].event.body.is_empty());
        drop(first);
        std::thread::scope(|scope| drop(scope.spawn(|| handover.send(commit()))));
        assert!(receiver.blocking_recv().unwrap().fresh[0].has_body);
    }

    #[test]
    fn only_bodies_of_large_webhooks_stay_on_disk() {
        let (handover, mut receiver) = Handover::new();
        let mut large = [held(600 << 10), held(600 << 10)];
        let [one, other] = &mut large;
        other.event = Arc::new(Event {
            envelope: Arc::clone(&one.event.envelope),
            ..Event::clone(&other.event)
        });
        let fresh = [vec![held(1000)], large.into(), vec![held(1000)]].concat();
        let committed = Committed {
            fresh,
            ..Committed::default()
        };
        std::thread::scope(|scope| drop(scope.spawn(|| handover.send(committed))));
        let fresh = receiver.blocking_recv().unwrap().fresh;
        let whole: Vec<_> = fresh.iter().map(|held| held.has_body).collect();
        assert_eq!(whole, [true, false, false, true]);
    }
}

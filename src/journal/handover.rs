//! What a commit brought goes to the forwarder. Bodies wait there in bounded memory: beyond it the
//! events are handed over without them, and taken from the disk when their turn comes. So are those
//! of a large webhook, which share its memory: it is free when the webhook is held.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};

use super::rows::{Committed, Held};
use crate::memory;
use crate::webhook::Event;

/// Commits handed over and not yet looked at by the forwarder.
const COMMITS_MAX: usize = 64;
/// Bodies in them, in KiB.
const BODIES_KIB_MAX: u32 = 8 << 10;

/// The writer's end.
#[derive(Debug)]
pub(super) struct Handover {
    commits: mpsc::Sender<Committed>,
    bodies: Arc<Semaphore>,
}

impl Handover {
    /// Both ends.
    pub(super) fn new() -> (Self, mpsc::Receiver<Committed>) {
        let (commits, receiver) = mpsc::channel(COMMITS_MAX);
        let bodies = Arc::new(Semaphore::new(BODIES_KIB_MAX as usize));
        (Self { commits, bodies }, receiver)
    }

    /// Waits only for a task that never waits for this thread. Without one there is nobody to
    /// tell: the forwarder has ended.
    pub(super) fn send(&self, committed: Committed) {
        let _ = self.commits.blocking_send(self.bounded(committed));
    }

    fn bounded(&self, mut committed: Committed) -> Committed {
        let mut bytes = 0;
        for webhook in committed.fresh.chunk_by_mut(is_of_one_webhook) {
            let length: usize = webhook.iter().map(|held| held.event.body.len()).sum();
            if length >= memory::LARGE_BYTES {
                webhook.iter_mut().for_each(leave_body);
            } else {
                bytes += length;
            }
        }
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        match self.bodies.clone().try_acquire_many_owned(kib) {
            Ok(permit) => committed.memory = Some(permit),
            Err(_) => committed.fresh.iter_mut().for_each(leave_body),
        }
        committed
    }
}

fn is_of_one_webhook(one: &Held, other: &Held) -> bool {
    Arc::ptr_eq(&one.event.envelope, &other.event.envelope)
}

fn leave_body(held: &mut Held) {
    held.is_whole = false;
    held.event = Arc::new(Event {
        body: Bytes::new(),
        ..Event::clone(&held.event)
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::tests::support::Bench;

    fn held(bytes: usize) -> Held {
        let mut held = Bench::new().append(&[("s", "created")]).remove(0);
        let body = Bytes::from(vec![b'x'; bytes]);
        held.event = Arc::new(Event {
            body,
            ..Event::clone(&held.event)
        });
        held
    }

    #[test]
    fn bodies_beyond_the_memory_for_them_stay_on_the_disk() {
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
        assert!(first.fresh[0].is_whole && first.fresh[0].event.body.len() == 512 << 10);
        assert!(!second.fresh[0].is_whole && second.fresh[0].event.body.is_empty());
        drop(first);
        std::thread::scope(|scope| drop(scope.spawn(|| handover.send(commit()))));
        assert!(receiver.blocking_recv().unwrap().fresh[0].is_whole);
    }

    #[test]
    fn the_bodies_of_a_large_webhook_stay_on_the_disk_and_its_neighbours_travel() {
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
        let whole: Vec<_> = fresh.iter().map(|held| held.is_whole).collect();
        assert_eq!(whole, [true, false, false, true]);
    }
}

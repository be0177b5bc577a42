//! What took effect over all seeds: a fault that never did proves nothing.

macro_rules! seen {
    ($($name:ident),* $(,)?) => {
        /// Something worth having happened.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Seen { $($name),* }

        impl Seen {
            pub(super) const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

seen! {
    Appended, Refused503, BodyLeftBehind, HandoverFull, CommitFailed,
    SnapshotBehindNews, SnapshotAheadOfNews, TakeFailed, Promoted,
    Delivered, Unknown, Nacked, Returned, Closed403, Closed404, Closed406, Progress,
    StoredUnconfirmed, StoredByDeadConnection, PublishedAgain,
    Blocked, Frozen, ConnectionLost, ConnectFailed, ConfirmTimeout, Probed, WaitedForRoom,
    CondemnedTooLarge, CondemnedDamaged, CondemnedRefused, DeadLettered,
    Rerouted, RerouteFailed,
    CrashAtRest, CrashInCommit, CrashBeforeAnswer, CrashBeforeHandover, CrashWithNews,
    CrashWithWindow, CrashWhileRerouting, CrashAgainSoon,
    Drained, DrainedBesideSuspect, EndedHopeless, Halted, Aborted, ParkedRoutePassed,
}

#[derive(Clone)]
pub(super) struct Tally([u64; Seen::ALL.len()]);

impl Default for Tally {
    fn default() -> Self {
        Self([0; Seen::ALL.len()])
    }
}

impl Tally {
    pub(super) fn saw(&mut self, seen: Seen) {
        self.0[seen as usize] += 1;
    }

    pub(super) fn count(&self, seen: Seen) -> u64 {
        self.0[seen as usize]
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum += more;
        }
    }
}

//! Counts what occurred over all seeds: a fault that never had an effect proves nothing.

macro_rules! seen {
    ($($name:ident),* $(,)?) => {
        /// A situation that the simulation should reach.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Seen { $($name),* }

        impl Seen {
            pub(super) const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

seen! {
    Paused, Appended, Refused503, BodyLeftBehind, HandoverFull, CommitFailed,
    LeftInTail, Loaded, LoadedBehindRow, LoadedByTick, FreshBehindRow, FreshBehindLoaded,
    Aged, RowOfFollower, ReadBackWithTail, WindowShrunk,
    SnapshotBehindCommit, SnapshotAheadOfCommit, TakeFailed, Promoted,
    Delivered, Unknown, Nacked, Returned, Forbidden, RouteMissing, TooLarge, Progress,
    StoredUnconfirmed, StoredByDeadConnection, PublishedAgain,
    Blocked, Frozen, ConnectionLost, ConnectFailed, ConfirmTimeout, Probed, WaitedForRoom,
    CondemnedTooLarge, CondemnedDamaged, CondemnedRefused, DeadLettered,
    Rerouted, RerouteFailed,
    CrashAtRest, CrashInCommit, CrashBeforeAnswer, CrashBeforeHandover, CrashWithCommits,
    CrashWithWindow, CrashWhileRerouting, CrashAgainSoon,
    CrashWithTail,
    Drained, DrainedBesideSuspect, DrainedBesideTail, EndedHopeless, Halted, Aborted, SuspectRoutePassed,
}

#[derive(Clone)]
pub(super) struct Coverage([u64; Seen::ALL.len()]);

impl Default for Coverage {
    fn default() -> Self {
        Self([0; Seen::ALL.len()])
    }
}

impl Coverage {
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

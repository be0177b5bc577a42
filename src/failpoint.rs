//! Failpoints: named places where a test can end the process or make a thread panic. Imports no
//! other module; any module may pass a failpoint. Without the feature `failpoints`, which cannot be
//! compiled into a release, passing one compiles to nothing. With the feature but no failpoint
//! armed, it costs one atomic load.
//!
//! `DESKBRIDGE_FAILPOINT=<name>=abort|panic[@N]` arms one failpoint: it fires once, at its N-th
//! pass (by default the first). `tests/it/failpoints.rs` goes through all of them.

#[cfg(all(feature = "failpoints", not(debug_assertions)))]
compile_error!("the feature `failpoints` is for tests: a release must not have it");

macro_rules! places {
    ($($place:ident = $name:literal,)*) => {
        /// A failpoint, named `<module>/<step>/<before|after>`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Failpoint {
            $(#[doc = $name] $place,)*
        }

        impl Failpoint {
            /// All failpoints, in the order of declaration.
            pub const ALL: &[Self] = &[$(Self::$place,)*];

            /// The name, as used in `DESKBRIDGE_FAILPOINT`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$place => $name,)*
                }
            }
        }
    };
}

places! {
    HttpAcceptBefore = "http/accept/before",
    HttpAcceptAfter = "http/accept/after",
    HttpAnswerBefore = "http/answer/before",
    HttpAnswerAfter = "http/answer/after",
    JournalOpenBefore = "journal/open/before",
    JournalOpenAfter = "journal/open/after",
    JournalMigrateBefore = "journal/migrate/before",
    JournalMigrateAfter = "journal/migrate/after",
    JournalRerouteBefore = "journal/reroute/before",
    JournalRerouteAfter = "journal/reroute/after",
    JournalAppendBefore = "journal/append/before",
    JournalAppendAfter = "journal/append/after",
    JournalSettleBefore = "journal/settle/before",
    JournalSettleAfter = "journal/settle/after",
    JournalDeleteBefore = "journal/delete/before",
    JournalDeleteAfter = "journal/delete/after",
    JournalCommitBefore = "journal/commit/before",
    JournalCommitAfter = "journal/commit/after",
    JournalCheckpointBefore = "journal/checkpoint/before",
    JournalCheckpointAfter = "journal/checkpoint/after",
    JournalCloseBefore = "journal/close/before",
    JournalCloseAfter = "journal/close/after",
    ForwarderSettleBefore = "forwarder/settle/before",
    ForwarderSettleAfter = "forwarder/settle/after",
    RabbitmqConnectBefore = "rabbitmq/connect/before",
    RabbitmqConnectAfter = "rabbitmq/connect/after",
    RabbitmqDeclareBefore = "rabbitmq/declare/before",
    RabbitmqDeclareAfter = "rabbitmq/declare/after",
    RabbitmqPublishBefore = "rabbitmq/publish/before",
    RabbitmqPublishAfter = "rabbitmq/publish/after",
    RabbitmqConfirmBefore = "rabbitmq/confirm/before",
    RabbitmqConfirmAfter = "rabbitmq/confirm/after",
    BridgeStopBefore = "bridge/stop/before",
    BridgeStopAfter = "bridge/stop/after",
}

/// Does nothing: failpoints are not compiled in.
#[cfg(not(feature = "failpoints"))]
pub const fn pass(_: Failpoint) {}

#[cfg(feature = "failpoints")]
pub use armed::pass;

#[cfg(feature = "failpoints")]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::Failpoint;

    const VARIABLE: &str = "DESKBRIDGE_FAILPOINT";

    struct Armed {
        place: Failpoint,
        is_panic: bool,
        at: u64,
        passes: AtomicU64,
    }

    static ARMED: LazyLock<Option<Armed>> = LazyLock::new(|| {
        let text = std::env::var(VARIABLE).ok()?;
        Some(read(&text).unwrap_or_else(|| panic!("{VARIABLE}: `{text}` is not a failpoint")))
    });

    /// Aborts the process or panics if this failpoint is armed and this is the armed pass.
    ///
    /// # Panics
    /// If it is armed with `panic`.
    pub fn pass(place: Failpoint) {
        if let Some(armed) = &*ARMED
            && armed.place == place
            && armed.passes.fetch_add(1, Ordering::Relaxed) + 1 == armed.at
        {
            eprintln!("failpoint {}", place.name());
            assert!(!armed.is_panic, "panic at an armed failpoint");
            std::process::abort();
        }
    }

    fn read(text: &str) -> Option<Armed> {
        let (place, what) = text.split_once('=')?;
        let (mode, at) = what.split_once('@').unwrap_or((what, "1"));
        Some(Armed {
            place: *Failpoint::ALL.iter().find(|known| known.name() == place)?,
            is_panic: match mode {
                "abort" => false,
                "panic" => true,
                _ => return None,
            },
            at: at.parse().ok()?,
            passes: AtomicU64::new(0),
        })
    }
}

//! Named places where a test ends the process, or has one of its threads panic. Imports nothing;
//! any room may pass a place. Without the feature `failpoints`, which cannot be compiled into a
//! release, passing one is nothing at all; with it and nothing armed, one atomic load.
//!
//! `DESKBRIDGE_FAILPOINT=<place>=abort|panic[@N]` arms one place for its N-th pass (1 if not
//! given), once. `tests/it/failpoints.rs` walks all of them.

#[cfg(all(feature = "failpoints", not(debug_assertions)))]
compile_error!("the feature `failpoints` is for tests: a release must not have it");

macro_rules! places {
    ($($place:ident = $name:literal,)*) => {
        /// A place, called `<room>/<step>/<before|after>`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Place {
            $(#[doc = $name] $place,)*
        }

        impl Place {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$place,)*];

            /// What it is called.
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

/// Ends the process here, or panics, if that is what a test wants.
#[cfg(not(feature = "failpoints"))]
pub const fn pass(_: Place) {}

#[cfg(feature = "failpoints")]
pub use armed::pass;

#[cfg(feature = "failpoints")]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::Place;

    const VARIABLE: &str = "DESKBRIDGE_FAILPOINT";

    struct Armed {
        place: Place,
        is_panic: bool,
        at: u64,
        passes: AtomicU64,
    }

    static ARMED: LazyLock<Option<Armed>> = LazyLock::new(|| {
        let text = std::env::var(VARIABLE).ok()?;
        Some(read(&text).unwrap_or_else(|| panic!("{VARIABLE}: `{text}` names no place")))
    });

    /// Ends the process here, or panics, if that is what a test wants.
    pub fn pass(place: Place) {
        if let Some(armed) = &*ARMED
            && armed.place == place
        {
            armed.pass();
        }
    }

    impl Armed {
        fn pass(&self) {
            if self.passes.fetch_add(1, Ordering::Relaxed) + 1 != self.at {
                return;
            }
            eprintln!("failpoint {}", self.place.name());
            assert!(!self.is_panic, "a test wants it");
            std::process::abort();
        }
    }

    fn read(text: &str) -> Option<Armed> {
        let (place, what) = text.split_once('=')?;
        let (mode, at) = what.split_once('@').unwrap_or((what, "1"));
        Some(Armed {
            place: *Place::ALL.iter().find(|known| known.name() == place)?,
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

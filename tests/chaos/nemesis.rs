//! Injects the scheduled faults, verifies that each took effect, and ends it. Each module covers
//! one part of the system. A fault without evidence does not count.

mod bridge;
mod broker;
mod clients;
mod disk;
mod network;
mod strangers;
mod topology;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::ledger::Injection;
use crate::schedule::{Kind, Planned};
use crate::stage::Stage;
pub use broker::write_down_queues;

/// The evidence that a fault took effect, or why it did not.
type Evidence = Result<String, String>;

/// How long a fault may take until its effect is visible.
const SHOWS_WITHIN: Duration = Duration::from_secs(8);

/// Follows a schedule until this time.
pub async fn follow(
    stage: Arc<Stage>,
    plan: impl Iterator<Item = Planned> + Send,
    until: Option<Instant>,
) {
    for planned in plan {
        tokio::time::sleep(planned.gap).await;
        if until.is_some_and(|end| Instant::now() >= end) {
            break;
        }
        let begin = stage.ledger.now();
        let evidence = inject(&stage, &planned).await;
        let end = stage.ledger.now();
        let injection = Injection {
            kind: planned.kind,
            begin,
            end,
            evidence,
        };
        if std::env::var_os("CHAOS_VERBOSE").is_some() {
            eprintln!(
                "{:>7} ms + {:>5} ms {}: {:?}",
                begin / 1000,
                (end - begin) / 1000,
                injection.kind.name(),
                injection.evidence
            );
        }
        stage.ledger.history().injections.push(injection);
    }
}

async fn inject(stage: &Stage, planned: &Planned) -> Evidence {
    use Kind as K;
    match planned.kind {
        K::BrokerKill
        | K::BrokerRestart
        | K::BrokerFreeze
        | K::MemoryAlarm
        | K::DiskAlarm
        | K::CloseAll => broker::inject(stage, planned).await,
        K::ExchangeDeleted
        | K::BindingDeleted
        | K::Returned
        | K::QueueDeleted
        | K::QueueFull
        | K::PermissionRevoked
        | K::PasswordChanged => topology::inject(stage, planned).await,
        K::CutReset
        | K::CutClose
        | K::CutAfterBytes
        | K::BlackholeUp
        | K::BlackholeDown
        | K::BlackholeBoth
        | K::StallUp
        | K::StallDown
        | K::Latency
        | K::Throttle
        | K::Slicer
        | K::Refuse => network::inject(stage, planned).await,
        K::BridgeKill
        | K::BridgeStorm
        | K::BridgeTerminate
        | K::SecretRotated
        | K::BridgeFreeze => bridge::inject(stage, planned).await,
        K::BacklogFull | K::FsyncSlow | K::FsyncFails => disk::inject(stage, planned).await,
        K::ConsumerKilled | K::SenderGone => clients::inject(stage, planned).await,
        K::IdleBodies
        | K::LargeBodies
        | K::FatHeads
        | K::ForeignBytes
        | K::ForgedWebhooks
        | K::Restless
        | K::Siege => strangers::inject(stage, planned).await,
    }
}

async fn last(planned: &Planned) {
    tokio::time::sleep(planned.lasts).await;
}

//! Finds what would stop or lose traffic: the findings of `check`, each cause before its
//! consequences, and the verdict on all of them.

mod broker;
mod certificates;
mod connecting;
mod exchanges;
pub(super) mod finding;
mod input;
pub mod journal;
mod listeners;
mod management;
mod permissions;
mod publishing;
mod queues;
pub(super) mod remedy;
pub(super) mod running_status;
mod shared_keys;
mod sources;
mod statuses;
#[cfg(test)]
mod tests;
mod topology;
mod verdict;

use jiff::Timestamp;

use self::finding::Findings;
pub use self::finding::{Finding, Severity};
pub use self::verdict::Summary;
use super::running_bridge::{self, Answered};
use crate::config::{Config, Loaded};
use crate::rabbitmq::snapshot::BrokerSnapshot;

/// What the broker's management API describes; `None` if it cannot be queried.
pub(super) async fn snapshot(config: &Config) -> Option<BrokerSnapshot> {
    broker::snapshot(config).await
}

/// Inspects the configuration, the journal's disk, the certificates, the broker and the running
/// bridge. It changes nothing.
pub async fn inspect(loaded: &Loaded) -> Vec<Finding> {
    let config = &loaded.config;
    let mut list = Findings::default();
    sources::judge(loaded, &mut list);
    journal::judge(&config.journal, &mut list);
    certificates::judge_files(&config.rabbitmq, &mut list);
    let running = running_bridge::ask(config).await;
    let is_running = matches!(running, Ok(Some(_)));
    let existing = broker::judge(config, is_running, &mut list).await;
    match running {
        Ok(Some(Answered { status, .. })) => {
            running_status::judge(&status, existing.as_ref(), Timestamp::now(), &mut list);
        }
        Ok(None) => {
            list.note(
                "no bridge of this configuration is running (nothing listens on `admin.listen`)",
            );
            listeners::judge(config, &mut list);
        }
        Err((problem, fix)) => {
            list.warning(format!("admin.listen: {problem}"))
                .impact("it is unknown whether a bridge is running, and its status")
                .fix(fix)
                .not_inspected();
        }
    }
    list.grouped()
}

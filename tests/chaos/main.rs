//! The end-to-end checker: senders, a nemesis that follows a seeded schedule of faults, consumers,
//! and a judge that evaluates their logs. Real RabbitMQ, real binary. By default it is a smoke test
//! of half a minute; `make chaos` runs campaigns.

mod campaign;
mod consumer;
mod event;
mod judge;
mod ledger;
mod nemesis;
mod producer;
mod random;
mod report;
mod schedule;
mod settings;
mod stage;
mod watch;

/// Broker, bridge and proxy as the integration tests start them.
#[allow(dead_code, reason = "only a part of it is needed here")]
#[path = "../it"]
mod it {
    pub mod support;
}
use it::support;

use settings::Settings;

/// The minimum number of kinds of faults that must take effect in the smoke test.
const SMOKE_KINDS: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn campaign_loses_nothing() {
    let settings = Settings::from_environment();
    let all = campaign::run(&settings).await;
    for findings in &all {
        assert_ne!(findings.verdict(), "FAIL", "{:#?}", findings.voids);
        if settings.is_smoke {
            let kinds = findings.counts.injections.len();
            assert!(kinds >= SMOKE_KINDS, "only {kinds} kinds took effect");
        } else {
            assert_eq!(findings.verdict(), "PASS", "{:#?}", findings.voids);
        }
    }
}

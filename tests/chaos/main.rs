//! The end-to-end checker: senders, a nemesis that follows a seeded schedule of faults, consumers,
//! and a judge over what all of them wrote down. Real RabbitMQ, real binary. Without more it is a
//! smoke of a minute; `make chaos` makes it a campaign.

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
#[path = "../it"]
mod it {
    pub mod support;
}
use it::support;

use settings::Settings;

/// Fewer would not be a smoke of this.
const SMOKE_KINDS: usize = 12;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_whatever_happens() {
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

//! The invariant that must hold at every moment: accepted = published + dead-lettered + backlog.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;

use crate::support::bridge::builder::on_shared_broker;
use crate::support::http::get;
use crate::support::load::Load;
use crate::support::metrics::Metrics;
use crate::support::sender::{array_of, session};
use crate::support::wait::{SOON, eventually};

/// The results of a series of scrapes.
#[derive(Debug, Default)]
struct Scrapes {
    taken: usize,
    with_backlog: usize,
    accepted: f64,
}

/// Scrapes every 20 ms, whether the bridge runs or not, until the task is aborted.
fn scraping(
    admin: SocketAddr,
    until: tokio_util::sync::CancellationToken,
    taken: Arc<AtomicUsize>,
) -> JoinHandle<Scrapes> {
    tokio::spawn(async move {
        let mut scrapes = Scrapes::default();
        while !until.is_cancelled() {
            if let Ok(page) = get(admin, "/metrics").await {
                scrapes.check(&Metrics::parse(&page.text()));
                taken.store(scrapes.taken, Ordering::Relaxed);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        scrapes
    })
}

impl Scrapes {
    fn check(&mut self, page: &Metrics) {
        let accepted = page.sum("sessions_accepted_total");
        let backlog = page.sum("journal_backlog_events");
        let settled = page.sum("sessions_published_total") + page.sum("dead_letters_total");
        let difference = accepted - settled - backlog;
        assert!(
            difference.abs() < 0.5,
            "{accepted} accepted, {settled} complete, {backlog} pending"
        );
        assert!(
            accepted >= self.accepted,
            "fewer accepted than before: {accepted}"
        );
        self.accepted = accepted;
        self.taken += 1;
        self.with_backlog += usize::from(backlog > 0.5);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_add_up_at_every_scrape() {
    let (_vhost, mut bridge) = on_shared_broker("").await;
    let stop = tokio_util::sync::CancellationToken::new();
    let taken = Arc::new(AtomicUsize::new(0));
    let scrapes = scraping(bridge.admin_address(), stop.clone(), Arc::clone(&taken));
    let load = Load::start(bridge.address(), 4);
    let mixed = array_of(&[
        session("mixed", "missed", json!({})),
        json!(1),
        json!({"id": "x"}),
    ]);
    for _ in 0..3 {
        for _ in 0..20 {
            assert_eq!(bridge.post(&mixed).await.status, 202);
            assert_eq!(bridge.post("no webhook").await.status, 202);
        }
        load.accepts(200).await;
        bridge.restart().await;
    }
    load.accepts(200).await;
    eventually("enough scrapes under load", SOON, || async {
        taken.load(Ordering::Relaxed) > 50
    })
    .await;
    let ledger = load.stop().await;
    bridge.backlog_is_empty().await;
    let last = bridge.metrics().await;
    stop.cancel();
    let mut scrapes = scrapes.await.unwrap();
    scrapes.check(&last);
    assert!(
        scrapes.taken > 50 && scrapes.with_backlog > 5,
        "too few scrapes: {scrapes:?}"
    );
    let dead = last.sum("dead_letters_total");
    assert!((dead - 3.0 * 20.0 * 3.0).abs() < 0.5, "{dead} dead letters");
    let published = last.sum("sessions_published_total");
    assert!(
        published >= f64::from(u32::try_from(ledger.len() + 60).unwrap()),
        "{published} published"
    );
}

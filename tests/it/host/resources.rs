//! Too few threads, too little CPU time.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::load::Load;
use crate::support::process::{end_with_us, has_ended, processor_time};
use crate::support::skip::is_root;

/// Processes that use as much CPU time as they get.
struct Hogs(Vec<Child>);

impl Hogs {
    fn start(count: usize) -> Self {
        let start = |_| {
            let mut hog = Command::new("sh");
            hog.args(["-c", "while :; do :; done"]).stdin(Stdio::null());
            let hog = hog.spawn().unwrap();
            end_with_us(hog.id());
            hog
        };
        Self((0..count).map(start).collect())
    }

    fn processor_time(&self) -> Duration {
        self.0.iter().map(|hog| processor_time(hog.id())).sum()
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        for hog in &mut self.0 {
            let _ = hog.kill();
            let _ = hog.wait();
            has_ended(hog.id());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cpu_starvation_loses_nothing() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = BridgeBuilder::new(&vhost)
        .with("rabbitmq.heartbeat = \"2s\"")
        .under(&["nice", "-n", "10"])
        .connected()
        .await;
    let consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    let hogs = Hogs::start(8);
    let load = Load::start(bridge.address(), 4);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let taken = hogs.processor_time();
    drop(hogs);
    load.accepts(30).await;
    let ledger = load.stop().await;
    assert!(
        taken > Duration::from_secs(2),
        "the other processes got only {taken:?} of CPU time"
    );
    assert!(ledger.is_without_failure(), "{ledger:?}");
    ledger.arrives_at(&consumer).await;
    assert_eq!(bridge.reconnects().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn thread_limit_is_named_at_start() {
    let test = "thread_limit_is_named_at_start";
    if !is_root(test) {
        return;
    }
    for threads in [1, 2, 3] {
        let builder = BridgeBuilder::without_broker().for_user(61_003);
        let mut bridge = builder
            .before(&["prlimit", &format!("--nproc={threads}")])
            .build();
        let exit = bridge.run_to_exit().await;
        let said = bridge.stderr();
        assert_eq!(exit.status.code(), Some(1), "{threads}: {said}");
        assert!(
            said.contains("Resource temporarily unavailable") && said.contains("ulimit"),
            "{threads}: {said}"
        );
    }
}

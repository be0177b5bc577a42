//! Signals that must not end the bridge.

use rustix::process::Signal;

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::broker::Broker;
use crate::support::load::Load;

#[tokio::test(flavor = "multi_thread")]
async fn sigpipe_and_sighup_do_not_end_the_process() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = BridgeBuilder::new(&vhost).start().await;
    let load = Load::start(bridge.address(), 4);
    for _ in 0..10 {
        for signal in [Signal::PIPE, Signal::HUP] {
            bridge.signal(signal);
            load.accepts(15).await;
        }
    }
    assert!(load.stop().await.is_without_failure());
    assert!(bridge.is_running());
    assert_eq!(bridge.status().await["reload"]["is_applied"], true);
}

//! A bad network to the broker: delay, low bandwidth, one-byte packets, a changed address. Webhooks
//! are answered as quickly as usual, and everything arrives when the network recovers.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::consumer::everything_in;
use crate::support::load::Load;
use crate::support::proxy::Proxy;
use crate::support::sender::array_of_new;
use crate::support::skip::is_root;
use crate::support::wait::eventually;

const LONG: Duration = Duration::from_mins(1);
const FAULT_LASTS: Duration = Duration::from_secs(2);

type Fault = (&'static str, fn(&Proxy));

fn bridge_at(amqp_url: &str) -> BridgeBuilder {
    BridgeBuilder::at(amqp_url)
        .with("rabbitmq = {reconnect_delay_min = '50ms', reconnect_delay_max = '300ms'}")
        .with("retry = {delay_min = '20ms', delay_max = '200ms'}")
        .with("queues = [{name = 'all', keys = ['#']}]")
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_link_delays_no_answer_and_loses_nothing() {
    let vhost = Broker::shared().await.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let bridge = bridge_at(&vhost.amqp_url_through(proxy.address()))
        .connected()
        .await;
    let load = Load::paced(&bridge);
    let faults: [Fault; 3] = [
        ("delay that jumps", |proxy| {
            proxy.delay(Duration::from_millis(500));
        }),
        ("1 KB/s", |proxy| proxy.throttle(1_000)),
        ("single bytes", Proxy::slice),
    ];
    for (name, fault) in faults {
        bridge.publishes(50).await;
        fault(&proxy);
        let begin = Instant::now();
        let before = bridge.counter("published").await;
        while begin.elapsed() < FAULT_LASTS {
            load.accepts(50).await;
            if name == "delay that jumps" {
                let jump = u64::from(begin.elapsed().subsec_millis() % 200);
                proxy.delay(Duration::from_millis(400 + jump));
            }
        }
        let status = bridge.status().await;
        let came = bridge.counter("published").await - before;
        let p99 = load.p99_since(begin);
        println!(
            "{name}: {came} published, {} pending, p99 {p99:?}",
            status["backlog"]["events"]
        );
        assert!(p99 < Duration::from_secs(1), "{name}: {p99:?}");
        if name == "1 KB/s" {
            assert!(came < 300, "{came} events at 1 KB/s");
            assert!(
                status["backlog"]["events"].as_u64() > Some(100),
                "{status:#}"
            );
        }
        proxy.pass();
    }
    load.arrives_in("all", &vhost, &bridge).await;
}

async fn reason_contains(bridge: &Bridge, text: &str) {
    eventually(&format!("the reason is {text}"), LONG, || async {
        let reason = bridge.status().await["broker"]["reason"].clone();
        reason.as_str().is_some_and(|reason| reason.contains(text))
    })
    .await;
}

/// Overwritten in place, because the file is bind-mounted.
fn write_hosts(file: &Path, address: &str) {
    std::fs::write(file, format!("127.0.0.1 localhost\n{address}\n")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn host_name_is_resolved_at_every_attempt() {
    if !is_root("host_name_is_resolved_at_every_attempt") {
        return;
    }
    let vhost = Broker::shared().await.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let url = vhost
        .amqp_url_through(proxy.address())
        .replace("127.0.0.1", "broker.test");
    let builder = bridge_at(&url);
    let hosts = builder.dir().join("hosts");
    write_hosts(&hosts, "");
    let mount = format!("mount --bind {} /etc/hosts && exec \"$@\"", hosts.display());
    let bridge = builder
        .under(&["unshare", "--mount", "sh", "-c", &mount, "sh"])
        .start()
        .await;
    assert_eq!(bridge.post(array_of_new("unknown", 5)).await.status, 202);
    reason_contains(&bridge, "looking up `broker.test`").await;

    // The name is known, but nothing listens there.
    write_hosts(&hosts, "127.0.0.9 broker.test");
    reason_contains(&bridge, "connecting to `127.0.0.9").await;
    assert_eq!(bridge.post(array_of_new("nobody", 5)).await.status, 202);

    // Two addresses; nothing listens at the first.
    write_hosts(&hosts, "127.0.0.9 broker.test\n127.0.0.1 broker.test");
    bridge.broker_is("connected").await;
    bridge.backlog_is_empty().await;

    // The address changes while the bridge is connected.
    write_hosts(&hosts, "127.0.0.9 broker.test");
    proxy.cut();
    reason_contains(&bridge, "connecting to `127.0.0.9").await;
    assert_eq!(bridge.post(array_of_new("moved", 5)).await.status, 202);
    write_hosts(&hosts, "127.0.0.1 broker.test");
    bridge.broker_is("connected").await;
    bridge.backlog_is_empty().await;
    assert_eq!(everything_in(&vhost, "all").await.len(), 15);
}

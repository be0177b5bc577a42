//! SIGHUP: a new configuration is taken over whole or not at all, without a failed request.

use serde_json::Value;

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::load::Load;
use crate::support::proxy::Proxy;
use crate::support::sender::{array_of_new, sign};
use crate::support::wait::{SOON, eventually_some};

const OLD: &str = "the secret before the rotation";
const NEW: &str = "the secret after the rotation";

/// Hangs up and waits until `/status` says what became of it.
async fn reloaded(bridge: &Bridge) -> Value {
    let before = bridge.status().await["reload"]["at"].clone();
    bridge.hang_up();
    eventually_some("the reload is done", SOON, || async {
        let reload = bridge.status().await["reload"].clone();
        (reload["at"] != before).then_some(reload)
    })
    .await
}

async fn status_with(bridge: &Bridge, secret: &str) -> u16 {
    let body = array_of_new("load-rotation", 1);
    let signature = sign(secret, &body);
    let headers = [("x-dd-signature", &*signature)];
    bridge.post_with(&headers, body).await.unwrap().status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewritten_secret_file_counts_after_sighup_without_a_failed_request() {
    let vhost = Broker::shared().await.vhost().await;
    let builder = BridgeBuilder::new(&vhost);
    let file = builder.dir().join("secret");
    std::fs::write(&file, format!("{OLD}\n")).unwrap();
    let toml = format!(
        "sources.deskdirector.secret_files = [{:?}]",
        file.display().to_string()
    );
    let bridge = builder.with(&toml).start().await;
    let load = Load::start(bridge.address(), 4);
    load.accepts(60).await;
    assert_eq!(
        (
            status_with(&bridge, OLD).await,
            status_with(&bridge, NEW).await
        ),
        (202, 401)
    );

    std::fs::write(&file, NEW).unwrap();
    load.accepts(30).await;
    assert_eq!(
        status_with(&bridge, NEW).await,
        401,
        "not before it is told"
    );
    let reload = reloaded(&bridge).await;
    assert_eq!(
        (&reload["is_applied"], &reload["findings"]),
        (&true.into(), &Value::Array(vec![]))
    );
    assert_eq!(
        (
            status_with(&bridge, OLD).await,
            status_with(&bridge, NEW).await
        ),
        (401, 202)
    );

    for _ in 0..20 {
        bridge.hang_up();
        load.accepts(15).await;
    }
    let ledger = load.stop().await;
    assert!(ledger.is_without_failure(), "{ledger:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_configuration_is_refused_whole_and_the_log_and_status_say_why() {
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = BridgeBuilder::new(&vhost).start().await;
    bridge.broker_is("connected").await;
    let mut consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    // Two good changes and two bad ones.
    bridge.reconfigure(&format!(
        "sources.deskdirector.secrets = [{NEW:?}]\nrouting.routing_key = \"v2.{{status}}\"\n\
         routing.statuses.missed.routing_key = \"{{nonsense}}\"\nretry.attempts_mix = 3"
    ));
    let reload = reloaded(&bridge).await;
    assert_eq!(reload["is_applied"], false, "{reload}");
    let findings = reload["findings"].to_string();
    assert!(
        findings.contains("nonsense") && findings.contains("attempts_max"),
        "{findings}"
    );
    let log = bridge.stderr();
    assert!(
        log.contains("refused") && log.contains("attempts_mix"),
        "{log}"
    );
    assert_eq!(status_with(&bridge, NEW).await, 401, "the old secrets stay");
    assert_eq!(bridge.post(array_of_new("old", 1)).await.status, 202);
    assert_eq!(
        consumer.receive().await.routing_key,
        "chat-session.created",
        "the old routes stay"
    );

    std::fs::write(bridge.config_file(), "this is no TOML").unwrap();
    assert_eq!(reloaded(&bridge).await["is_applied"], false);
    assert_eq!(bridge.post(array_of_new("old", 1)).await.status, 202);
    assert!(bridge.ready().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_routing_key_counts_for_later_events_and_for_those_that_wait() {
    let vhost = Broker::shared().await.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let mut bridge = BridgeBuilder::at(&vhost.amqp_url_through(proxy.address()))
        .start()
        .await;
    bridge.broker_is("connected").await;
    let mut consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    bridge.post(array_of_new("before", 1)).await;
    assert_eq!(consumer.receive().await.routing_key, "chat-session.created");
    bridge.backlog_is_empty().await;

    proxy.refuse();
    bridge.post(array_of_new("waiting", 3)).await;
    bridge.reconfigure("routing.routing_key = \"v2.{source}.{status}\"");
    assert_eq!(reloaded(&bridge).await["is_applied"], true);
    bridge.post(array_of_new("later", 3)).await;
    proxy.pass();
    for message in consumer.receive_n(6).await {
        assert_eq!(
            message.routing_key, "v2.deskdirector.created",
            "{message:?}"
        );
    }
    bridge.backlog_is_empty().await;
    bridge.post(array_of_new("after", 1)).await;
    assert_eq!(
        consumer.receive().await.routing_key,
        "v2.deskdirector.created"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_source_and_a_new_exchange_count_after_sighup() {
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = BridgeBuilder::new(&vhost).start().await;
    bridge.broker_is("connected").await;
    bridge.reconfigure("sources.open.signature = \"none\"\nrouting.exchange = \"second\"");
    assert_eq!(reloaded(&bridge).await["is_applied"], true);
    let body = array_of_new("unsigned", 1);
    let mut client = crate::support::http::Client::new(bridge.address());
    let answer = client
        .request(hyper::Method::POST, "/webhooks/open", &[], body)
        .await
        .unwrap();
    assert_eq!(answer.status, 202, "{}", answer.text());
    // The new exchange is declared; nobody has subscribed to it.
    bridge.backlog_is_empty().await;
    let message = Consumer::of(&vhost, "chat-sessions.unrouted")
        .await
        .receive()
        .await;
    assert_eq!(
        (&*message.exchange, message.header("source").as_str()),
        ("second", Some("open"))
    );
}

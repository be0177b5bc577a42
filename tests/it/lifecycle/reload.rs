//! SIGHUP: a new configuration is taken over whole or not at all, without a failed request.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::load::Load;
use crate::support::proxy::Proxy;
use crate::support::sender::{array_of, array_of_new, session, sign};
use crate::support::wait::{SOON, eventually, eventually_some};

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

#[tokio::test(flavor = "multi_thread")]
async fn what_counts_only_after_a_restart_is_named_and_the_rest_is_in_use() {
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = BridgeBuilder::new(&vhost).start().await;
    assert_eq!(reloaded(&bridge).await["waiting_for_restart"], json!([]));
    bridge.reconfigure("retry.attempts_max = 7\njournal.retention = '1d'");
    bridge.reconfigure("sources.other.secrets = ['the secret of another source']");
    let reload = reloaded(&bridge).await;
    assert_eq!(reload["is_applied"], true, "{reload}");
    assert_eq!(reload["waiting_for_restart"], json!(["retry", "journal"]));
    let line = bridge.says("counts only after a restart").await;
    assert!(line.contains("retry, journal"), "{line}");
    // For as long as it is so.
    let reload = reloaded(&bridge).await;
    assert_eq!(reload["waiting_for_restart"], json!(["retry", "journal"]));
    bridge.restart().await;
    assert_eq!(reloaded(&bridge).await["waiting_for_restart"], json!([]));
    let metrics = bridge.metrics().await;
    assert_eq!(metrics.sum("config_last_reload_successful"), 1.0);
    bridge.reconfigure("retry.attempts_max = 0");
    let reload = reloaded(&bridge).await;
    assert_eq!(reload["is_applied"], false, "{reload}");
    let metrics = bridge.metrics().await;
    assert_eq!(metrics.sum("config_last_reload_successful"), 0.0);
    assert_eq!(reload["waiting_for_restart"], json!([]));
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
    let line = bridge.says("attempts_mix").await;
    assert!(line.contains("refused"), "{line}");
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

#[tokio::test(flavor = "multi_thread")]
async fn routes_that_change_again_and_again_under_load_fail_no_webhook_and_reorder_no_session() {
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = BridgeBuilder::new(&vhost).start().await;
    bridge.broker_is("connected").await;
    let alternate = json!({"alternate-exchange": "chat-sessions.unrouted"});
    vhost.declare_exchange("second", "topic", alternate).await;
    vhost.queue_bound("everything", "chat-sessions", "#").await;
    vhost.bind("everything", "second", "#").await;
    let consumer = Consumer::of(&vhost, "everything").await;
    let load = Load::start(bridge.address(), 4);
    for round in 0..8 {
        load.accepts(60).await;
        let (exchange, of_handled) = [("second", "second"), ("chat-sessions", "second")][round % 2];
        bridge.reconfigure(&format!(
            "routing.exchange = {exchange:?}\nrouting.routing_key = 'v{round}.{{status}}'\n\
             routing.statuses.handled.exchange = {of_handled:?}"
        ));
        let reload = reloaded(&bridge).await;
        assert_eq!(reload["is_applied"], true, "{reload}");
    }
    load.accepts(60).await;
    let ledger = load.stop().await;
    assert!(ledger.is_without_failure(), "{ledger:?}");
    assert_eq!(ledger.arrives_at(&consumer).await, 0, "nothing came twice");
    let keys: BTreeSet<_> = consumer
        .all()
        .into_iter()
        .map(|message| (message.exchange, message.routing_key))
        .collect();
    let came = |exchange: &str, key: &str| keys.contains(&(exchange.into(), key.into()));
    assert!(came("chat-sessions", "chat-session.created"), "{keys:?}");
    assert!(
        came("second", "v6.created") && came("chat-sessions", "v7.completed"),
        "{keys:?}"
    );
    assert!(came("second", "v7.handled"), "{keys:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_queue_is_declared_after_sighup_and_its_rejected_messages_come_again() {
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = BridgeBuilder::new(&vhost).start().await;
    bridge.broker_is("connected").await;
    let load = Load::start(bridge.address(), 2);
    let crm = "[[queues]]\nname = 'crm'\nkeys = ['chat-session.missed']\ndelivery_limit = 2\n";
    bridge.reconfigure(&format!("{crm}retry_delay = '200ms'"));
    assert_eq!(reloaded(&bridge).await["is_applied"], true);
    eventually("the queue is bound", SOON, || async {
        if vhost.message_count("crm").await.is_none() {
            return false;
        }
        let bindings = vhost.describe("queues", "crm/bindings").await;
        bindings.as_array().is_some_and(|all| all.len() == 3)
    })
    .await;
    let mut consumer = Consumer::rejecting(&vhost, "crm", |_| true).await;
    let missed = array_of(&[session("missed", "missed", json!({}))]);
    assert_eq!(bridge.post(missed.clone()).await.status, 202);
    consumer.receive_n(2).await;
    let mut dead = Consumer::of(&vhost, "chat-sessions.dead-letter").await;
    assert_eq!(dead.receive().await.header("attempts"), 2);

    // Arguments of a queue cannot be changed: it stays, and /status says so.
    bridge.reconfigure(crm);
    assert_eq!(reloaded(&bridge).await["is_applied"], true);
    eventually("the difference is reported", SOON, || async {
        let findings = bridge.status().await["broker"]["findings"].to_string();
        findings.contains("queue `crm` exists with other arguments")
    })
    .await;
    assert_eq!(bridge.post(missed).await.status, 202);
    consumer.receive().await;
    let ledger = load.stop().await;
    assert!(ledger.is_without_failure(), "{ledger:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_is_there_again_after_sighup_without_any_change_and_no_finding_stays() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = BridgeBuilder::new(&vhost)
        .with("[[queues]]\nname = 'crm'\nkeys = ['#']")
        .start()
        .await;
    bridge.broker_is("connected").await;
    vhost.delete_queue("crm").await;
    assert_eq!(vhost.message_count("crm").await, None);
    assert_eq!(reloaded(&bridge).await["is_applied"], true);
    eventually("the queue is there again", SOON, || async {
        vhost.message_count("crm").await.is_some()
    })
    .await;
    // Bound, too.
    eventually("an event arrives in it", SOON, || async {
        bridge.post(array_of_new("again", 1)).await;
        vhost.message_count("crm").await > Some(0)
    })
    .await;

    // Somebody declares it otherwise, and takes it away again.
    vhost.delete_queue("crm").await;
    vhost
        .declare_queue("crm", json!({"x-queue-type": "quorum"}))
        .await;
    let findings = async || bridge.status().await["broker"]["findings"].to_string();
    assert_eq!(reloaded(&bridge).await["is_applied"], true);
    eventually("the difference is reported", SOON, || async {
        findings()
            .await
            .contains("queue `crm` exists with other arguments")
    })
    .await;
    vhost.delete_queue("crm").await;
    assert_eq!(reloaded(&bridge).await["is_applied"], true);
    eventually("nothing is reported any more", SOON, || async {
        !findings().await.contains("crm")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_configuration_under_load_changes_nothing_until_it_is_mended() {
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = BridgeBuilder::new(&vhost).start().await;
    bridge.broker_is("connected").await;
    let mut consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    let load = Load::start(bridge.address(), 4);
    load.accepts(60).await;
    bridge.reconfigure(
        "sources.open.signature = 'none'\nrouting.routing_key = 'v2.{status}'\n\
         [[queues]]\nname = 'crm'\nkeys = []",
    );
    let reload = reloaded(&bridge).await;
    assert_eq!(reload["is_applied"], false, "{reload}");
    let findings = reload["findings"].to_string();
    assert!(findings.contains("queues[0].keys"), "{findings}");
    load.accepts(60).await;
    let mut client = crate::support::http::Client::new(bridge.address());
    let open = client.request(hyper::Method::POST, "/webhooks/open", &[], "[]");
    assert_eq!(open.await.unwrap().status, 404, "no new source");
    assert_eq!(vhost.message_count("crm").await, None, "no new queue");
    for message in consumer.receive_n(90).await {
        let key = &message.routing_key;
        assert!(key.starts_with("chat-session."), "no new route: {key}");
    }

    bridge.reconfigure("[[queues]]\nname = 'crm'\nkeys = ['#']");
    assert_eq!(reloaded(&bridge).await["is_applied"], true);
    load.accepts(60).await;
    let ledger = load.stop().await;
    assert!(ledger.is_without_failure(), "{ledger:?}");
    ledger.arrives_at(&consumer).await;
    eventually("the queue is there", SOON, || async {
        vhost.message_count("crm").await.is_some()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_level_counts_after_sighup_and_what_needs_a_restart_is_named() {
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = BridgeBuilder::new(&vhost)
        .with("telemetry.log_level = 'error'")
        .start()
        .await;
    assert_eq!(reloaded(&bridge).await["is_applied"], true);
    assert!(
        !bridge.stderr().contains("was read again"),
        "{}",
        bridge.stderr()
    );
    bridge
        .reconfigure("telemetry.log_level = 'info'\nretry.attempts_max = 7\nhttp.sessions_max = 7");
    assert_eq!(reloaded(&bridge).await["is_applied"], true);
    bridge.says("was read again").await;
    reloaded(&bridge).await;
    let line = bridge.says("only after a restart").await;
    assert!(line.contains("http, retry"), "{line}");
    assert_eq!(bridge.post(array_of_new("eight", 8)).await.status, 202);
}

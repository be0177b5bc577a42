//! Where messages are published, and what happens if the destination is missing, forbidden, full,
//! of another type, or has no subscriber.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicNackOptions, BasicQosOptions, BasicRejectOptions,
};
use lapin::types::FieldTable;
use serde_json::{Value, json};

use crate::support::bridge::builder::{BridgeBuilder, on_shared_broker};
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::consumer::{Consumer, everything_in};
use crate::support::message::Message;
use crate::support::sender::{array_of_new, session};
use crate::support::vhost::Vhost;
use crate::support::wait::{SOON, eventually};

const DEAD_LETTERS: &str = "chat-sessions.dead-letter";
const UNROUTED: &str = "chat-sessions.unrouted";
const LONG: Duration = Duration::from_mins(1);
/// More events than the bridge ever buffers in memory, so that some are only in the journal.
const MANY: usize = 1_500;

/// A bridge with short retry delays.
fn bridge_at(amqp_url: &str) -> BridgeBuilder {
    BridgeBuilder::at(amqp_url)
        .with("rabbitmq = {reconnect_delay_min = '50ms', reconnect_delay_max = '300ms'}")
        .with("retry = {delay_min = '20ms', delay_max = '200ms'}")
}

/// As [`bridge_at`], with the exchange `alerts` for missed sessions.
fn alerting_bridge_at(amqp_url: &str) -> BridgeBuilder {
    bridge_at(amqp_url)
        .with("routing.statuses.missed = {exchange = 'alerts', routing_key = '{company}.{status}'}")
}

fn sessions(prefix: &str, status: &str, count: usize) -> Vec<Value> {
    (0..count)
        .map(|n| session(&format!("{prefix}-{n}"), status, json!({})))
        .collect()
}

fn ids(messages: &[Message]) -> Vec<&str> {
    let ids = messages.iter().map(|m| m.correlation_id.as_deref());
    ids.map(|id| id.expect("a session")).collect()
}

fn ids_of(sessions: &[Value]) -> Vec<&str> {
    let ids = sessions.iter().map(|session| session["id"].as_str());
    ids.map(|id| id.expect("a session")).collect()
}

/// Posts sessions of other routes, one after the other; panics if one of them takes long to arrive.
async fn others_flow(bridge: &Bridge, crm: &mut Consumer, name: &str) {
    for other in sessions(name, "created", 10) {
        bridge.accept(std::slice::from_ref(&other)).await;
        let begin = Instant::now();
        assert_eq!(crm.receive_n_distinct(1).await[0].json(), other);
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(5), "it took {took:?}");
    }
}

/// Waits until exactly this number of events is pending; panics if one has become a dead letter.
async fn waits(bridge: &Bridge, events: usize) {
    bridge.backlog_is(events).await;
    assert_eq!(bridge.counter("dead_lettered").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn status_has_its_own_exchange_and_key() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = alerting_bridge_at(&vhost.amqp_url).connected().await;
    let mut acme = Consumer::subscribed(&vhost, "alerts", "ACME.missed").await;
    let mut alerts = Consumer::subscribed(&vhost, "alerts", "#").await;
    let mut all = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    let of_company =
        |id: &str, status: &str, creator: Value| session(id, status, json!({"creator": creator}));
    bridge
        .accept(&[
            of_company("a", "missed", json!({"company": {"identifier": "ACME"}})),
            of_company(
                "b",
                "missed",
                json!({"company": {"identifier": "Ünder.# Co"}}),
            ),
            of_company("c", "missed", json!(null)),
            of_company("d", "created", json!({"company": {"identifier": "ACME"}})),
        ])
        .await;
    bridge.backlog_is_empty().await;

    assert_eq!(ids(&acme.receive_n(1).await), ["a"]);
    let mut routed: Vec<_> = alerts.receive_n(3).await;
    routed.sort_by(|one, other| one.correlation_id.cmp(&other.correlation_id));
    let keys: Vec<_> = routed.iter().map(|m| m.routing_key.as_str()).collect();
    assert_eq!(keys, ["ACME.missed", "_nder___Co.missed", "none.missed"]);
    assert!(routed.iter().all(|message| message.exchange == "alerts"));
    let created = all.receive().await;
    assert_eq!(created.routing_key, "chat-session.created");
    for consumer in [&mut acme, &mut alerts, &mut all] {
        consumer.receives_nothing_for(Duration::ZERO).await;
    }
}

/// Declares what an operator would declare, except the exchange `alerts`.
async fn declare_by_hand(vhost: &Vhost) -> Consumer {
    for exchange in ["chat-sessions", DEAD_LETTERS] {
        vhost.declare_exchange(exchange, "topic", json!({})).await;
    }
    vhost.queue_bound(DEAD_LETTERS, DEAD_LETTERS, "#").await;
    vhost.queue_bound("crm", "chat-sessions", "#").await;
    vhost
        .declare_exchange("alerts-queue", "fanout", json!({}))
        .await;
    vhost.queue_bound("alerts", "alerts-queue", "").await;
    Consumer::of(vhost, "crm").await
}

/// Declares the exchange together with a queue behind it, so that no message is lost between the
/// two.
async fn declare_alerts(vhost: &Vhost) {
    let with_queue = json!({"alternate-exchange": "alerts-queue"});
    vhost.declare_exchange("alerts", "topic", with_queue).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_exchange_stops_only_its_route() {
    let vhost = Broker::shared().await.vhost().await;
    let mut crm = declare_by_hand(&vhost).await;
    let bridge = alerting_bridge_at(&vhost.amqp_url)
        .with("rabbitmq.topology = 'verify'\nretry.attempts_max = 2\nretry.delay_max = '1s'")
        .start()
        .await;
    let first = sessions("first", "missed", MANY);
    bridge.accept(&first).await;
    let reason = bridge.route_is("alerts", "ACME.missed", "closed").await;
    assert!(reason.contains("no exchange 'alerts'"), "{reason}");
    let status = bridge.status().await;
    let findings = status["broker"]["findings"].as_array().unwrap();
    assert!(
        findings.contains(&json!("exchange `alerts` is missing")),
        "{findings:?}"
    );
    let metrics = bridge.metrics().await;
    assert!(
        metrics.sum("routes_closed") > 0.5,
        "the metric reports a closed route"
    );
    others_flow(&bridge, &mut crm, "without").await;
    waits(&bridge, MANY).await;

    declare_alerts(&vhost).await;
    bridge.route_is("alerts", "ACME.missed", "open").await;
    bridge.backlog_is_empty().await;
    let mut arrived = everything_in(&vhost, "alerts").await;
    arrived.sort_by_key(|message| message.header("webhook-index").as_u64());
    assert_eq!(ids(&arrived), ids_of(&first), "all of them, no duplicates");

    vhost.delete_exchange("alerts").await;
    let second = sessions("second", "missed", 100);
    bridge.accept(&second).await;
    bridge.route_is("alerts", "ACME.missed", "closed").await;
    others_flow(&bridge, &mut crm, "deleted").await;
    waits(&bridge, 100).await;
    let refused = bridge.metrics().await;
    let refused = refused.sum_where("publish_retries_total", &[("reason", "unroutable")]);
    assert!(
        refused < 0.5,
        "an event was published while the exchange was missing"
    );
    declare_alerts(&vhost).await;
    bridge.backlog_is_empty().await;
    let mut arrived = everything_in(&vhost, "alerts").await;
    arrived.sort_by_key(|message| message.header("webhook-index").as_u64());
    assert_eq!(ids(&arrived), ids_of(&second), "all of them, no duplicates");
    assert_eq!(vhost.message_count(DEAD_LETTERS).await, Some(0));
    assert_eq!(bridge.reconnects().await, 0, "the connection is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_exchange_is_declared_again() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = alerting_bridge_at(&vhost.amqp_url)
        .with(
            "queues = [{name = 'crm', keys = ['#']}, \
                       {name = 'alerts', exchange = 'alerts', keys = ['#']}]",
        )
        .connected()
        .await;
    let mut crm = Consumer::of(&vhost, "crm").await;
    let mut alerts = Consumer::of(&vhost, "alerts").await;
    for round in 0..3 {
        let before = sessions(&format!("before-{round}"), "missed", 1);
        bridge.accept(&before).await;
        assert_eq!(ids(&alerts.receive_n_distinct(1).await), ids_of(&before));
        vhost.delete_exchange("alerts").await;
        let after = sessions(&format!("after-{round}"), "missed", 100);
        bridge.accept(&after).await;
        others_flow(&bridge, &mut crm, &format!("other-{round}")).await;
        bridge.backlog_is_empty().await;
        let mut arrived = alerts.receive_n_distinct(100).await;
        arrived.sort_by_key(|message| message.header("webhook-index").as_u64());
        assert_eq!(ids(&arrived), ids_of(&after), "all of them");
        let declared = vhost.describe("exchanges", "alerts").await;
        assert_eq!(declared["arguments"]["alternate-exchange"], UNROUTED);
        let route = bridge.route("alerts", "ACME.missed").await;
        assert_eq!(route["state"], "open");
        assert!(route["since"].is_string(), "the route was closed: {route}");
    }
    for holding in [UNROUTED, DEAD_LETTERS] {
        assert_eq!(vhost.message_count(holding).await, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forbidden_exchange_events_wait_for_permission() {
    let vhost = Broker::shared().await.vhost().await;
    vhost.user("publisher", "a-long-password").await;
    let bridge = alerting_bridge_at(&vhost.amqp_url_as("publisher", "a-long-password"))
        .with("retry.attempts_max = 2")
        .with("queues = [{name = 'crm', keys = ['#']}]")
        .connected()
        .await;
    let mut crm = Consumer::of(&vhost, "crm").await;
    let mut alerts = Consumer::subscribed(&vhost, "alerts", "#").await;

    vhost.allow("publisher", ".*", "^(?!alerts$).*", ".*").await;
    // A channel that was in use a moment ago has cached its permissions.
    let mut sent = Vec::new();
    eventually("the permission is missed", SOON, || {
        sent.push(session(&format!("m-{}", sent.len()), "missed", json!({})));
        let next = sent.last().cloned().unwrap();
        let bridge = &bridge;
        async move {
            bridge.accept(&[next]).await;
            bridge.route("alerts", "ACME.missed").await["state"] == "closed"
        }
    })
    .await;
    let reason = bridge.route_is("alerts", "ACME.missed", "closed").await;
    assert!(reason.contains("ACCESS_REFUSED"), "{reason}");
    let parked = sessions("parked", "missed", MANY);
    bridge.accept(&parked).await;
    others_flow(&bridge, &mut crm, "other").await;
    let status = bridge.status().await;
    assert!(
        status["backlog"]["events"].as_u64() >= Some(MANY as u64),
        "{status:#}"
    );
    assert_eq!(status["broker"]["state"], "connected");

    vhost.allow("publisher", ".*", ".*", ".*").await;
    bridge.backlog_is_empty().await;
    let expected = sent.len() + MANY;
    eventually("all have arrived", SOON, || async {
        alerts.count() >= expected
    })
    .await;
    let arrived = alerts.receive_n(alerts.count()).await;
    let mut distinct: Vec<_> = arrived.iter().map(Message::id).collect();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), expected);
    assert_eq!(bridge.counter("dead_lettered").await, 0);
}

/// Browses the messages of a queue as operators do: gets each message and requeues it.
async fn look_at(vhost: &Vhost, queue: &str, looks: usize) {
    let channel = vhost.channel().await;
    let back = BasicNackOptions {
        requeue: true,
        ..Default::default()
    };
    for _ in 0..looks / 2 {
        let got = channel.basic_get(queue.into(), BasicGetOptions::default());
        let got = got.await.unwrap().expect("the queue has a message");
        got.delivery.acker.nack(back).await.unwrap();
    }
    let one = BasicQosOptions::default();
    channel.basic_qos(1, one).await.unwrap();
    let options = BasicConsumeOptions::default();
    let mut deliveries = channel
        .basic_consume(queue.into(), "".into(), options, FieldTable::default())
        .await
        .unwrap();
    for look in 0..looks / 2 {
        let delivery = deliveries.next().await.unwrap().unwrap();
        if look % 2 == 0 {
            delivery.acker.nack(back).await.unwrap();
        } else {
            let back = BasicRejectOptions { requeue: true };
            delivery.acker.reject(back).await.unwrap();
        }
    }
    channel.close(200, "done".into()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn unrouted_messages_survive_fifty_browses() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = bridge_at(&vhost.amqp_url).start().await;
    let held = sessions("held", "created", 3);
    bridge.accept(&held).await;
    assert_eq!(
        bridge.post(r#"[{"id":"x"},{"status":"y"}]"#).await.status,
        202
    );
    bridge.backlog_is_empty().await;

    for (queue, count) in [(UNROUTED, 3), (DEAD_LETTERS, 2)] {
        let is_there = || async { vhost.message_count(queue).await == Some(count) };
        eventually("the messages are in the queue", SOON, is_there).await;
        // A requeued message is the next one to be delivered, so the same message is browsed every
        // time.
        look_at(&vhost, queue, 50).await;
        eventually("the messages are still in the queue", SOON, is_there).await;
    }
    let mut unrouted = everything_in(&vhost, UNROUTED).await;
    unrouted.sort_by_key(|message| message.header("webhook-index").as_u64());
    assert_eq!(ids(&unrouted), ids_of(&held));
    assert!(unrouted.iter().any(|message| message.redelivered));
    assert_eq!(unrouted[0].json(), held[0]);
    assert_eq!(unrouted[0].routing_key, "chat-session.created");
    let mut bodies: Vec<_> = everything_in(&vhost, DEAD_LETTERS)
        .await
        .iter()
        .map(Message::text)
        .collect();
    bodies.sort();
    assert_eq!(bodies, [r#"{"id":"x"}"#, r#"{"status":"y"}"#]);
}

#[tokio::test(flavor = "multi_thread")]
async fn delivery_limit_dead_letters_rejected_messages() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = bridge_at(&vhost.amqp_url)
        .with("queues = [{name = 'crm', keys = ['chat-session.completed'], delivery_limit = 2}]")
        .start()
        .await;
    bridge
        .accept(&[
            session("s1", "completed", json!({})),
            session("s2", "created", json!({})),
        ])
        .await;
    bridge.backlog_is_empty().await;

    let channel = vhost.channel().await;
    let mut deliveries = channel
        .basic_consume(
            "crm".into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    for _ in 0..3 {
        let delivery = tokio::time::timeout(SOON, deliveries.next())
            .await
            .expect("the message is delivered again");
        let back = BasicRejectOptions { requeue: true };
        delivery.unwrap().unwrap().acker.reject(back).await.unwrap();
    }
    eventually("the message is a dead letter", SOON, || async {
        vhost.message_count(DEAD_LETTERS).await == Some(1)
    })
    .await;
    assert_eq!(vhost.message_count("crm").await, Some(0));
    let letter = everything_in(&vhost, DEAD_LETTERS).await.remove(0);
    assert_eq!(ids(std::slice::from_ref(&letter)), ["s1"]);
    assert_eq!(letter.header("x-death")[0]["reason"], "delivery_limit");
    assert_eq!(letter.header("x-death")[0]["queue"], "crm");
    assert_eq!(
        vhost.message_count(UNROUTED).await,
        Some(1),
        "no queue was bound for s2"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_session_delays_no_other() {
    const BEHIND: usize = MANY;
    let vhost = Broker::shared().await.vhost().await;
    let bridge = bridge_at(&vhost.amqp_url)
        .with("unrouted.exchange = ''\nretry.attempts_max = 100000")
        .with("queues = [{name = 'crm', keys = ['chat-session.created']}]")
        .connected()
        .await;
    let mut crm = Consumer::of(&vhost, "crm").await;
    let mut walk = vec![session("slow", "missed", json!({}))];
    walk.extend((1..=BEHIND).map(|step| session("slow", "created", json!({"step": step}))));
    bridge.accept(&walk).await;
    let refused = async || {
        let metrics = bridge.metrics().await;
        metrics.sum_where("publish_retries_total", &[("reason", "unroutable")])
    };
    eventually("its first event is refused", SOON, || async {
        refused().await >= 3.0
    })
    .await;
    others_flow(&bridge, &mut crm, "other").await;
    waits(&bridge, BEHIND + 1).await;
    let before = refused().await;
    eventually("its first event is still refused", SOON, || async {
        refused().await > before
    })
    .await;

    vhost
        .queue_bound("late", "chat-sessions", "chat-session.missed")
        .await;
    let arrived = crm.receive_n_within(BEHIND, LONG).await;
    for (message, sent) in arrived.iter().zip(&walk[1..]) {
        assert_eq!(message.json(), *sent, "in order, without duplicates");
    }
    bridge.backlog_is_empty().await;
    assert_eq!(everything_in(&vhost, "late").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_deleted_queue_become_unrouted() {
    let (vhost, bridge) = on_shared_broker("").await;
    vhost.queue_bound("crm", "chat-sessions", "#").await;
    bridge.post(array_of_new("before", 20)).await;
    bridge.backlog_is_empty().await;
    assert_eq!(everything_in(&vhost, "crm").await.len(), 20);

    vhost.delete_queue("crm").await;
    assert_eq!(bridge.post(array_of_new("after", 30)).await.status, 202);
    bridge.backlog_is_empty().await;
    assert_eq!(everything_in(&vhost, UNROUTED).await.len(), 30);
    let counters = bridge.status().await["counters"].clone();
    assert_eq!(counters["published"], json!(50));
    assert_eq!(bridge.reconnects().await, 0);
}

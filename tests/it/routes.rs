//! Where messages go, and what happens when that place is missing, forbidden, full, of another
//! kind, or nobody's.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicNackOptions, BasicQosOptions, BasicRejectOptions,
};
use lapin::types::FieldTable;
use serde_json::{Value, json};

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::message::Message;
use crate::support::sender::{array_of, session};
use crate::support::sessions::everything_in;
use crate::support::vhost::Vhost;
use crate::support::wait::{SOON, eventually};

const DEAD_LETTERS: &str = "chat-sessions.dead-letter";
const UNROUTED: &str = "chat-sessions.unrouted";
const LONG: Duration = Duration::from_mins(1);
/// More than the bridge ever has in hand, so that some wait in the journal alone.
const MANY: usize = 1_500;

/// A bridge that tries again soon.
fn bridge_at(amqp_url: &str) -> BridgeBuilder {
    BridgeBuilder::at(amqp_url)
        .with("rabbitmq = {reconnect_delay_min = '50ms', reconnect_delay_max = '300ms'}")
        .with("retry = {delay_min = '20ms', delay_max = '200ms'}")
}

/// The same, with the exchange `alerts` for missed sessions.
fn alerting_bridge_at(amqp_url: &str) -> BridgeBuilder {
    bridge_at(amqp_url)
        .with("routing.statuses.missed = {exchange = 'alerts', routing_key = '{company}.{status}'}")
}

async fn accept(bridge: &Bridge, sessions: &[Value]) {
    let answer = bridge.post(array_of(sessions)).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(answer.json()["accepted"], json!(sessions.len()));
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

async fn route(bridge: &Bridge, exchange: &str, key: &str) -> Value {
    let status = bridge.status().await;
    let routes = status["routes"].as_array().unwrap().clone();
    let is_it = |route: &Value| route["exchange"] == exchange && route["routing_key"] == key;
    routes.into_iter().find(is_it).unwrap_or_default()
}

/// Waits for a route's state and gives the reason.
async fn route_is(bridge: &Bridge, exchange: &str, key: &str, state: &str) -> String {
    eventually(&format!("route `{key}` is {state}"), LONG, || async {
        route(bridge, exchange, key).await["state"] == state
    })
    .await;
    let route = route(bridge, exchange, key).await;
    route["reason"].as_str().unwrap_or_default().to_owned()
}

/// Posts sessions that have nothing to do with the trouble, one after the other, and panics if
/// one of them takes long to arrive.
async fn others_flow(bridge: &Bridge, crm: &mut Consumer, name: &str) {
    for other in sessions(name, "created", 10) {
        accept(bridge, std::slice::from_ref(&other)).await;
        let begin = Instant::now();
        assert_eq!(crm.receive().await.json(), other);
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(5), "it took {took:?}");
    }
}

/// Waits until just so many events are not settled; none may have become a dead letter.
async fn waits(bridge: &Bridge, events: usize) {
    eventually(&format!("{events} events wait"), SOON, || async {
        bridge.status().await["backlog"]["events"] == events
    })
    .await;
    assert_eq!(bridge.status().await["counters"]["dead_lettered"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn missed_sessions_go_to_an_exchange_of_their_own_under_the_companys_key() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = alerting_bridge_at(&vhost.amqp_url).start().await;
    bridge.broker_is("connected").await;
    let mut acme = Consumer::subscribed(&vhost, "alerts", "ACME.missed").await;
    let mut alerts = Consumer::subscribed(&vhost, "alerts", "#").await;
    let mut all = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    let of_company =
        |id: &str, status: &str, creator: Value| session(id, status, json!({"creator": creator}));
    accept(
        &bridge,
        &[
            of_company("a", "missed", json!({"company": {"identifier": "ACME"}})),
            of_company(
                "b",
                "missed",
                json!({"company": {"identifier": "Ünder.# Co"}}),
            ),
            of_company("c", "missed", json!(null)),
            of_company("d", "created", json!({"company": {"identifier": "ACME"}})),
        ],
    )
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

/// What the operator has declared, but for the exchange `alerts`.
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

/// At once with a queue behind it: what is published from the first moment on arrives.
async fn declare_alerts(vhost: &Vhost) {
    let with_queue = json!({"alternate-exchange": "alerts-queue"});
    vhost.declare_exchange("alerts", "topic", with_queue).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_an_exchange_that_is_missing_wait_for_the_operator_and_the_others_flow() {
    let vhost = Broker::shared().await.vhost().await;
    let mut crm = declare_by_hand(&vhost).await;
    let bridge = alerting_bridge_at(&vhost.amqp_url)
        .with("rabbitmq.topology = 'verify'\nretry.attempts_max = 2\nretry.delay_max = '1s'")
        .start()
        .await;
    let first = sessions("first", "missed", MANY);
    accept(&bridge, &first).await;
    let reason = route_is(&bridge, "alerts", "ACME.missed", "closed").await;
    assert!(reason.contains("no exchange 'alerts'"), "{reason}");
    let status = bridge.status().await;
    let findings = status["broker"]["findings"].as_array().unwrap();
    assert!(
        findings.contains(&json!("exchange `alerts` is missing")),
        "{findings:?}"
    );
    let metrics = bridge.metrics().await;
    assert!(metrics.sum("routes_closed") > 0.5, "and so does the metric");
    others_flow(&bridge, &mut crm, "without").await;
    waits(&bridge, MANY).await;

    declare_alerts(&vhost).await;
    route_is(&bridge, "alerts", "ACME.missed", "open").await;
    bridge.backlog_is_empty().await;
    let mut arrived = everything_in(&vhost, "alerts").await;
    arrived.sort_by_key(|message| message.header("webhook-index").as_u64());
    assert_eq!(ids(&arrived), ids_of(&first), "each of them once");

    vhost.delete_exchange("alerts").await;
    let second = sessions("second", "missed", 100);
    accept(&bridge, &second).await;
    route_is(&bridge, "alerts", "ACME.missed", "closed").await;
    others_flow(&bridge, &mut crm, "deleted").await;
    waits(&bridge, 100).await;
    let refused = bridge.metrics().await;
    let refused = refused.sum_where("publish_retries_total", &[("reason", "unroutable")]);
    assert!(
        refused < 0.5,
        "an exchange without a queue had no alternate"
    );
    declare_alerts(&vhost).await;
    bridge.backlog_is_empty().await;
    let mut arrived = everything_in(&vhost, "alerts").await;
    arrived.sort_by_key(|message| message.header("webhook-index").as_u64());
    assert_eq!(ids(&arrived), ids_of(&second), "each of them once");
    assert_eq!(vhost.message_count(DEAD_LETTERS).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_deleted_while_running_is_declared_again_with_its_queue() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = alerting_bridge_at(&vhost.amqp_url)
        .with(
            "queues = [{name = 'crm', keys = ['#']}, \
                       {name = 'alerts', exchange = 'alerts', keys = ['#']}]",
        )
        .start()
        .await;
    bridge.broker_is("connected").await;
    let mut crm = Consumer::of(&vhost, "crm").await;
    let mut alerts = Consumer::of(&vhost, "alerts").await;
    for round in 0..3 {
        let before = sessions(&format!("before-{round}"), "missed", 1);
        accept(&bridge, &before).await;
        assert_eq!(ids(&alerts.receive_n(1).await), ids_of(&before));
        vhost.delete_exchange("alerts").await;
        let after = sessions(&format!("after-{round}"), "missed", 100);
        accept(&bridge, &after).await;
        others_flow(&bridge, &mut crm, &format!("other-{round}")).await;
        bridge.backlog_is_empty().await;
        let mut arrived = alerts.receive_n(100).await;
        arrived.sort_by_key(|message| message.header("webhook-index").as_u64());
        assert_eq!(ids(&arrived), ids_of(&after), "each of them once");
        let declared = vhost.describe("exchanges", "alerts").await;
        assert_eq!(declared["arguments"]["alternate-exchange"], UNROUTED);
        let route = route(&bridge, "alerts", "ACME.missed").await;
        assert_eq!(route["state"], "open");
        assert!(route["since"].is_string(), "it was closed: {route}");
    }
    for holding in [UNROUTED, DEAD_LETTERS] {
        assert_eq!(vhost.message_count(holding).await, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_forbidden_exchange_wait_until_it_is_allowed_and_are_never_dead_lettered() {
    let vhost = Broker::shared().await.vhost().await;
    vhost.user("publisher", "a-long-password").await;
    let bridge = alerting_bridge_at(&vhost.amqp_url_as("publisher", "a-long-password"))
        .with("retry.attempts_max = 2")
        .with("queues = [{name = 'crm', keys = ['#']}]")
        .start()
        .await;
    bridge.broker_is("connected").await;
    let mut crm = Consumer::of(&vhost, "crm").await;
    let mut alerts = Consumer::subscribed(&vhost, "alerts", "#").await;

    vhost.allow("publisher", ".*", "^(?!alerts$).*", ".*").await;
    // A channel that was in use a moment ago remembers that it was allowed.
    let mut sent = Vec::new();
    eventually("the permission is missed", SOON, || {
        sent.push(session(&format!("m-{}", sent.len()), "missed", json!({})));
        let next = sent.last().cloned().unwrap();
        let bridge = &bridge;
        async move {
            accept(bridge, &[next]).await;
            route(bridge, "alerts", "ACME.missed").await["state"] == "closed"
        }
    })
    .await;
    let reason = route_is(&bridge, "alerts", "ACME.missed", "closed").await;
    assert!(reason.contains("ACCESS_REFUSED"), "{reason}");
    let parked = sessions("parked", "missed", MANY);
    accept(&bridge, &parked).await;
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
    assert_eq!(bridge.status().await["counters"]["dead_lettered"], 0);
}

/// Looks at what waits in a queue as people do: takes it, and puts it back.
async fn look_at(vhost: &Vhost, queue: &str, looks: usize) {
    let channel = vhost.channel().await;
    let back = BasicNackOptions {
        requeue: true,
        ..Default::default()
    };
    for _ in 0..looks / 2 {
        let got = channel.basic_get(queue.into(), BasicGetOptions::default());
        let got = got.await.unwrap().expect("something waits");
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
async fn what_nobody_subscribed_to_is_held_and_fifty_looks_at_it_lose_nothing() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = bridge_at(&vhost.amqp_url).start().await;
    let held = sessions("held", "created", 3);
    accept(&bridge, &held).await;
    assert_eq!(
        bridge.post(r#"[{"id":"x"},{"status":"y"}]"#).await.status,
        202
    );
    bridge.backlog_is_empty().await;

    for (queue, count) in [(UNROUTED, 3), (DEAD_LETTERS, 2)] {
        let is_there = || async { vhost.message_count(queue).await == Some(count) };
        eventually("it is held", SOON, is_there).await;
        // What is put back is the next to be taken: the same one again and again.
        look_at(&vhost, queue, 50).await;
        eventually("it is still held", SOON, is_there).await;
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
async fn an_exchange_of_another_type_is_used_as_it_is_and_reported() {
    let vhost = Broker::shared().await.vhost().await;
    vhost
        .declare_exchange("chat-sessions", "fanout", json!({}))
        .await;
    vhost.queue_bound("everything", "chat-sessions", "").await;
    let bridge = bridge_at(&vhost.amqp_url).start().await;
    bridge.broker_is("connected").await;
    let status = bridge.status().await;
    let findings = status["broker"]["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 1, "{findings:?}");
    let finding = findings[0].as_str().unwrap();
    assert!(
        finding.starts_with("exchange `chat-sessions` exists with other arguments and is left")
            && finding.contains("inequivalent arg 'type'"),
        "{finding}"
    );
    eventually("it is said in the log too", SOON, || async {
        bridge.stderr().contains("inequivalent arg 'type'")
    })
    .await;
    accept(&bridge, &sessions("s", "created", 3)).await;
    bridge.backlog_is_empty().await;
    assert_eq!(everything_in(&vhost, "everything").await.len(), 3);
    assert_eq!(
        vhost.describe("exchanges", "chat-sessions").await["type"],
        "fanout"
    );
    assert_eq!(vhost.message_count(DEAD_LETTERS).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_consumer_rejects_too_often_goes_from_its_queue_to_the_dead_letters() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = bridge_at(&vhost.amqp_url)
        .with("queues = [{name = 'crm', keys = ['chat-session.completed'], delivery_limit = 2}]")
        .start()
        .await;
    accept(
        &bridge,
        &[
            session("s1", "completed", json!({})),
            session("s2", "created", json!({})),
        ],
    )
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
            .expect("it comes again");
        let back = BasicRejectOptions { requeue: true };
        delivery.unwrap().unwrap().acker.reject(back).await.unwrap();
    }
    eventually("it is a dead letter", SOON, || async {
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
        "s2 was nobody's"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumers_queue_that_is_full_refuses_and_what_it_refused_comes_when_there_is_room() {
    const EVENTS: u32 = 200;
    let vhost = Broker::shared().await.vhost().await;
    let bridge = bridge_at(&vhost.amqp_url)
        .with("queues = [{name = 'small', keys = ['chat-session.created'], messages_max = 10}]")
        .with("retry.attempts_max = 100000")
        .start()
        .await;
    let sent = sessions("s", "created", EVENTS as usize);
    for one in &sent {
        accept(&bridge, std::slice::from_ref(one)).await;
    }
    eventually("it refuses", SOON, || async {
        let metrics = bridge.metrics().await;
        metrics.sum_where("publish_retries_total", &[("reason", "nacked")]) > 0.0
    })
    .await;
    let kept = vhost.message_count("small").await.unwrap();
    assert!((10..EVENTS).contains(&kept), "it keeps {kept}");

    let mut small = Consumer::of(&vhost, "small").await;
    bridge.backlog_is_empty().await;
    let arrived = small.receive_n(EVENTS as usize).await;
    let mut distinct = ids(&arrived);
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(
        distinct.len(),
        EVENTS as usize,
        "what was refused was not kept too"
    );
    small.receives_nothing_for(Duration::ZERO).await;
    for holding in [UNROUTED, DEAD_LETTERS] {
        assert_eq!(vhost.message_count(holding).await, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_session_with_two_thousand_events_behind_it_holds_up_no_other() {
    const BEHIND: usize = 2_000;
    let vhost = Broker::shared().await.vhost().await;
    let bridge = bridge_at(&vhost.amqp_url)
        .with("unrouted.exchange = ''\nretry.attempts_max = 100000")
        .with("queues = [{name = 'crm', keys = ['chat-session.created']}]")
        .start()
        .await;
    bridge.broker_is("connected").await;
    let mut crm = Consumer::of(&vhost, "crm").await;
    let mut walk = vec![session("slow", "missed", json!({}))];
    walk.extend((1..=BEHIND).map(|step| session("slow", "created", json!({"step": step}))));
    accept(&bridge, &walk).await;
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
    eventually("it is refused still", SOON, || async {
        refused().await > before
    })
    .await;

    vhost
        .queue_bound("late", "chat-sessions", "chat-session.missed")
        .await;
    let arrived = crm.receive_n_within(BEHIND, LONG).await;
    for (message, sent) in arrived.iter().zip(&walk[1..]) {
        assert_eq!(message.json(), *sent, "in order, each once");
    }
    bridge.backlog_is_empty().await;
    assert_eq!(everything_in(&vhost, "late").await.len(), 1);
}

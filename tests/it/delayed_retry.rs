//! Delayed retry: a message that a consumer rejects is delivered again after a delay. A message
//! that was rejected too often becomes a dead letter with its history.

mod layout;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use hyper::Method;
use lapin::BasicProperties;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, BasicRejectOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::message::Message;
use crate::support::proxy::Proxy;
use crate::support::sender::array_of_new;
use crate::support::vhost::Vhost;
use crate::support::wait::{SOON, eventually};

const DEAD_LETTER: &str = "chat-sessions.dead-letter";

/// A bridge with these queues that reconnects soon.
async fn bridge(amqp_url: &str, queues: &str) -> Bridge {
    BridgeBuilder::at(amqp_url)
        .with("rabbitmq = {reconnect_delay_min = '50ms', reconnect_delay_max = '300ms'}")
        .with(queues)
        .connected()
        .await
}

/// Declares `<queue>.rejected` in advance, as a bridge does with brokers before 4.3: while it
/// exists, the bridge does the delayed retry, also with newer brokers.
async fn own_queues(vhost: &Vhost, queues: &[&str]) {
    let channel = vhost.channel().await;
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let text = |text: &str| AMQPValue::LongString(text.into());
    for queue in queues {
        let mut arguments = FieldTable::default();
        for (name, value) in [
            ("x-queue-type", text("quorum")),
            ("x-delivery-limit", AMQPValue::LongInt(1_000_000_000)),
            ("x-overflow", text("reject-publish")),
            ("x-dead-letter-exchange", text(DEAD_LETTER)),
            ("x-dead-letter-strategy", text("at-least-once")),
        ] {
            arguments.insert(name.into(), value);
        }
        let name = format!("{queue}.rejected");
        let declared = channel.queue_declare(name.into(), durable, arguments);
        declared.await.unwrap();
    }
}

fn queue(name: &str, more: &str) -> String {
    format!("[[queues]]\nname = {name:?}\nkeys = ['chat-session.#']\n{more}\n")
}

/// Gets the first message of a queue and rejects it, with or without requeue.
async fn reject_one(vhost: &Vhost, queue: &str, requeue: bool) -> Message {
    let channel = vhost.channel().await;
    let end = Instant::now() + SOON;
    loop {
        let got = channel.basic_get(queue.into(), BasicGetOptions::default());
        if let Some(got) = got.await.expect("the queue is there") {
            let options = BasicRejectOptions { requeue };
            got.delivery.acker.reject(options).await.unwrap();
            return got.delivery.into();
        }
        assert!(Instant::now() < end, "no message arrives in `{queue}`");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

fn findings(status: &Value) -> Vec<&str> {
    let findings = status["broker"]["findings"].as_array().unwrap();
    findings.iter().map(|one| one.as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rejections_are_retried_then_dead_lettered() {
    let vhost = Broker::shared().await.vhost().await;
    own_queues(&vhost, &["crm"]).await;
    let queues = queue("crm", "delivery_limit = 3\nretry_delay = '700ms'") + &queue("other", "");
    let bridge = bridge(&vhost.amqp_url, &queues).await;
    assert_eq!(findings(&bridge.status().await), [""; 0]);
    let mut crm = Consumer::rejecting(&vhost, "crm", |_| true).await;
    let mut other = Consumer::of(&vhost, "other").await;
    let mut dead = Consumer::of(&vhost, DEAD_LETTER).await;

    let begin = Instant::now();
    bridge.post(array_of_new("rejected", 1)).await;
    let event = other.receive().await;
    let tries = crm.receive_n(3).await;
    assert!(begin.elapsed() >= Duration::from_millis(1400), "no delay");
    for (attempt, message) in tries.iter().enumerate() {
        assert_eq!(message.body, event.body);
        assert_eq!(message.id(), event.id());
        assert_eq!(message.kind, event.kind);
        assert_eq!(message.routing_key, "chat-session.created");
        let attempts = message.headers.get("retry-attempts");
        assert_eq!(attempts, (attempt > 0).then(|| json!(attempt)).as_ref());
    }
    let letter = dead.receive().await;
    assert_eq!(
        (&*letter.exchange, &*letter.routing_key),
        (DEAD_LETTER, "chat-session.created")
    );
    assert_eq!((&letter.body, letter.id()), (&event.body, event.id()));
    assert_eq!(letter.delivery_mode, Some(2));
    assert_eq!(letter.kind, event.kind);
    assert_eq!(letter.correlation_id, event.correlation_id);
    assert_eq!(letter.timestamp, event.timestamp);
    for (name, value) in &event.headers {
        assert_eq!(letter.header(name), value);
    }
    assert_eq!(letter.header("dead-letter-reason"), "rejected");
    assert_eq!(letter.header("attempts"), 3);
    assert_eq!(letter.header("original-exchange"), "chat-sessions");
    assert_eq!(
        letter.header("original-routing-key"),
        "chat-session.created"
    );
    let deaths = letter.header("x-death");
    let death = |index: usize| {
        let of = |name| deaths[index][name].clone();
        [of("queue"), of("reason"), of("count"), of("exchange")]
    };
    assert_eq!(
        death(0),
        [
            json!("crm"),
            json!("rejected"),
            json!(3),
            json!("chat-sessions")
        ]
    );
    assert_eq!(deaths[0]["routing-keys"], json!(["chat-session.created"]));
    assert_eq!(
        death(1)[..3],
        [json!("crm.retry"), json!("expired"), json!(2)]
    );
    assert_eq!(letter.header("x-first-death-queue"), "crm");

    crm.receives_nothing_for(Duration::from_millis(900)).await;
    assert_eq!((other.count(), dead.count()), (1, 1), "neighbours");
    for satellite in ["crm.rejected", "crm.retry"] {
        assert_eq!(vhost.message_count(satellite).await, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retried_messages_delay_no_others() {
    let vhost = Broker::shared().await.vhost().await;
    own_queues(&vhost, &["crm"]).await;
    let queues = queue("crm", "single_active_consumer = true\nretry_delay = '2s'");
    let bridge = bridge(&vhost.amqp_url, &queues).await;
    let is_odd = |message: &Message| message.correlation_id.as_deref().unwrap().contains("odd");
    let mut crm = Consumer::rejecting(&vhost, "crm", move |message| {
        is_odd(message) && !message.headers.contains_key("retry-attempts")
    })
    .await;
    bridge.post(array_of_new("odd", 5)).await;
    bridge.post(array_of_new("even", 20)).await;
    let messages = crm.receive_n(30).await;
    let again = messages
        .iter()
        .filter(|message| message.headers.contains_key("retry-attempts"));
    assert_eq!(again.clone().count(), 5);
    assert!(again.clone().all(is_odd));
    // The rejected messages delayed no others: they come last.
    assert!(messages[25..].iter().all(is_odd), "{messages:#?}");
    for queue in ["crm", "crm.rejected", "crm.retry", DEAD_LETTER] {
        assert_eq!(vhost.message_count(queue).await, Some(0), "{queue}");
    }
}

/// The broker alone would either drop these messages as a dead-letter cycle or deliver them
/// forever.
#[tokio::test(flavor = "multi_thread")]
async fn expired_and_requeued_messages_are_dead_lettered() {
    let vhost = Broker::shared().await.vhost().await;
    own_queues(&vhost, &["idle", "crashing"]).await;
    let queues = queue("idle", "ttl = '3s'\nretry_delay = '300ms'")
        + &queue("crashing", "delivery_limit = 2\nretry_delay = '300ms'");
    let bridge = bridge(&vhost.amqp_url, &queues).await;
    let mut dead = Consumer::of(&vhost, DEAD_LETTER).await;
    bridge.post(array_of_new("poison", 1)).await;
    // One message is rejected once and then expires unconsumed; the other crashes its consumer each
    // time.
    reject_one(&vhost, "idle", false).await;
    for _ in 0..3 {
        reject_one(&vhost, "crashing", true).await;
    }
    let letters = dead.receive_n(2).await;
    let reason = |letter: &Message| {
        let said = |name| letter.header(name).clone();
        (
            letter
                .header("x-first-death-queue")
                .as_str()
                .unwrap()
                .to_owned(),
            (said("dead-letter-reason"), said("attempts")),
        )
    };
    let reasons: BTreeMap<_, _> = letters.iter().map(reason).collect();
    assert_eq!(reasons["idle"], (json!("expired"), json!(2)));
    assert_eq!(reasons["crashing"], (json!("delivery_limit"), json!(1)));
    assert_eq!(vhost.message_count("idle").await, Some(0));
    assert_eq!(vhost.message_count("crashing").await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_and_cuts_lose_no_rejected_message() {
    const SESSIONS: usize = 150;
    let vhost = Broker::shared().await.vhost().await;
    own_queues(&vhost, &["crm"]).await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let queues = queue("crm", "delivery_limit = 3\nretry_delay = '200ms'");
    let mut bridge = bridge(&vhost.amqp_url_through(proxy.address()), &queues).await;
    let crm = Consumer::rejecting(&vhost, "crm", |_| true).await;
    let dead = Consumer::of(&vhost, DEAD_LETTER).await;
    bridge.post(array_of_new("rejected", SESSIONS)).await;
    for more in [40, 80, 120, 160, 200] {
        eventually("rejections go on", SOON, || async { crm.count() >= more }).await;
        if more % 80 == 0 {
            proxy.cut();
        } else {
            bridge.restart().await;
        }
    }
    let letters = || -> BTreeSet<String> {
        let ids = dead.all().into_iter().map(|letter| letter.id().to_owned());
        ids.collect()
    };
    eventually("all of them are dead letters", 3 * SOON, || async {
        letters().len() == SESSIONS
    })
    .await;
    for letter in dead.all() {
        assert_eq!(letter.header("attempts"), 3, "{letter:?}");
    }
    let sent: BTreeSet<_> = crm
        .all()
        .iter()
        .map(|message| message.id().to_owned())
        .collect();
    assert_eq!(sent, letters());
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_dlx_loses_no_rejected_message() {
    let vhost = Broker::shared().await.vhost().await;
    own_queues(&vhost, &["crm"]).await;
    let queues = queue("crm", "delivery_limit = 1\nretry_delay = '200ms'");
    let bridge = bridge(&vhost.amqp_url, &queues).await;
    let _crm = Consumer::rejecting(&vhost, "crm", |_| true).await;
    let mut dead = Consumer::of(&vhost, DEAD_LETTER).await;
    bridge.post(array_of_new("before", 1)).await;
    dead.receive().await;
    vhost.delete_exchange(DEAD_LETTER).await;
    bridge.post(array_of_new("after", 3)).await;
    let after = dead.receive_n(3).await;
    let is_after = |letter: &Message| {
        letter
            .correlation_id
            .as_deref()
            .unwrap()
            .starts_with("after")
    };
    assert!(after.iter().all(is_after), "{after:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_retries_and_reports_missing_queues() {
    let vhost = Broker::shared().await.vhost().await;
    own_queues(&vhost, &["crm"]).await;
    let crm = queue("crm", "delivery_limit = 2\nretry_delay = '200ms'");
    bridge(&vhost.amqp_url, &crm).await.terminate().await;
    let later = queue("later", "retry_delay = '200ms'");
    let queues = format!("rabbitmq.topology = 'verify'\n{crm}{later}");
    let bridge = bridge(&vhost.amqp_url, &queues).await;
    let status = bridge.status().await;
    let is_ours = status["broker"]["retries"]["later"] == "bridge";
    let satellites = ["later.rejected", "later.retry"].into_iter();
    for missing in satellites.filter(|_| is_ours).chain(["later"]) {
        let finding = format!("queue `{missing}` is missing");
        assert!(findings(&status).contains(&&*finding), "{status}");
    }
    let mut crm = Consumer::rejecting(&vhost, "crm", |_| true).await;
    let mut dead = Consumer::of(&vhost, DEAD_LETTER).await;
    bridge.post(array_of_new("rejected", 1)).await;
    crm.receive_n(2).await;
    assert_eq!(dead.receive().await.header("attempts"), 2);
    assert_eq!(vhost.message_count("later.rejected").await, None);
}

/// Publishes a message whose headers fit into a frame until the broker adds `x-death`.
async fn publish_with_large_headers(vhost: &Vhost, key: &str) {
    let mut headers = FieldTable::default();
    let large = AMQPValue::LongString("x".repeat(130_950 - "large".len()).into());
    headers.insert("large".into(), large);
    let properties = BasicProperties::default()
        .with_message_id("large".into())
        .with_headers(headers);
    let channel = vhost.channel().await;
    let select = channel.confirm_select(ConfirmSelectOptions::default());
    select.await.unwrap();
    let options = BasicPublishOptions::default();
    let sent = channel.basic_publish(
        "chat-sessions".into(),
        key.into(),
        options,
        b"{}",
        properties,
    );
    let confirmation = sent.await.unwrap().await.unwrap();
    assert!(confirmation.is_ack(), "{confirmation:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_headers_do_not_stop_retries() {
    let vhost = Broker::shared().await.vhost().await;
    own_queues(&vhost, &["crm", "large"]).await;
    let large = "[[queues]]\nname = 'large'\nkeys = ['large']\nretry_delay = '300ms'\n";
    let queues = queue("crm", "delivery_limit = 3\nretry_delay = '300ms'") + large;
    let bridge = bridge(&vhost.amqp_url, &queues).await;
    publish_with_large_headers(&vhost, "large").await;
    reject_one(&vhost, "large", false).await;
    let mut crm = Consumer::rejecting(&vhost, "crm", |_| true).await;
    bridge.post(array_of_new("rejected", 1)).await;
    crm.receive_n(3).await;
    eventually("both are dead letters", 3 * SOON, || async {
        vhost.message_count(DEAD_LETTER).await == Some(2)
    })
    .await;
    let letters = vhost.messages(DEAD_LETTER).await;
    let letter = letters.iter().find(|letter| letter.body == b"{}"[..]);
    let letter = letter.expect("it is a dead letter");
    assert!(!letter.headers.contains_key("large"), "{letter:?}");
    assert_eq!(letter.header("dead-letter-reason"), "rejected");
    let status = bridge.status().await;
    let finding = "a rejected message of queue `large` had headers too large to be retried";
    let is_found = |one: &&str| one.starts_with(finding);
    assert!(findings(&status).iter().any(is_found), "{status}");
    assert_eq!(vhost.message_count("large.rejected").await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_dead_letters_are_readable() {
    let vhost = Broker::shared().await.vhost().await;
    let plain = "[[queues]]\nname = 'plain'\nkeys = ['#']\n";
    let bridge = bridge(&vhost.amqp_url, plain).await;
    publish_with_large_headers(&vhost, "large").await;
    reject_one(&vhost, "plain", false).await;
    bridge.post(array_of_new("behind", 2)).await;
    for _ in 0..2 {
        reject_one(&vhost, "plain", false).await;
    }
    eventually("three dead letters", SOON, || async {
        vhost.message_count(DEAD_LETTER).await == Some(3)
    })
    .await;
    let run = async |arguments: &[&str]| {
        let output = bridge.run("dead-letters", arguments).await;
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(run(&["list", "--json"]).await.lines().count(), 3);
    assert!(run(&["show", "large"]).await.contains("large"));
    run(&["discard", "--yes", "large"]).await;
    assert_eq!(vhost.message_count(DEAD_LETTER).await, Some(2));
}

/// A policy for all queues can impose limits on the retry queues, and no queue argument can
/// override it.
#[tokio::test(flavor = "multi_thread")]
async fn policies_lose_no_rejected_message() {
    const SESSIONS: usize = 12;
    let broker = Broker::own_with("").await;
    // The default is three minutes until the broker retries its own dead-lettering.
    broker
        .ctl(&[
            "eval",
            "application:set_env(rabbit, dead_letter_worker_publisher_confirm_timeout, 1000).",
        ])
        .await;
    let vhost = broker.vhost().await;
    own_queues(&vhost, &["crm"]).await;
    let policy = json!({"max-length": 3, "message-ttl": 4000, "overflow": "drop-head"});
    for queue in ["crm.rejected", "crm.retry"] {
        vhost.policy("queues", queue, policy.clone()).await;
    }
    let queues = queue("crm", "delivery_limit = 2\nretry_delay = '500ms'");
    let mut bridge = bridge(&vhost.amqp_url, &queues).await;
    bridge.post(array_of_new("rejected", SESSIONS)).await;
    bridge.backlog_is_empty().await;
    // The bridge is down, so nobody consumes `crm.rejected`.
    bridge.kill().await;
    for _ in 0..SESSIONS {
        reject_one(&vhost, "crm", false).await;
    }
    eventually("the limit of the policy is reached", SOON, || async {
        vhost.message_count("crm.rejected").await >= Some(3)
    })
    .await;
    bridge.start().await;
    let _crm = Consumer::rejecting(&vhost, "crm", |_| true).await;
    let dead = Consumer::of(&vhost, DEAD_LETTER).await;
    eventually("all of them are dead letters", 6 * SOON, || async {
        let ids: BTreeSet<String> = dead.all().iter().map(|one| one.id().to_owned()).collect();
        ids.len() == SESSIONS
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_retry_objects_are_declared_again() {
    let vhost = Broker::shared().await.vhost().await;
    own_queues(&vhost, &["crm"]).await;
    let queues = queue("crm", "delivery_limit = 9\nretry_delay = '300ms'");
    let bridge = bridge(&vhost.amqp_url, &queues).await;
    vhost.delete_exchange("crm.retried").await;
    vhost.delete_queue("crm.retry").await;
    eventually(
        "the retry objects are declared again",
        Duration::from_mins(1),
        || async {
            vhost.has_exchange("crm.retried").await
                && vhost.message_count("crm.retry").await.is_some()
        },
    )
    .await;
    eventually("the metric counts both", SOON, || async {
        let metrics = bridge.metrics().await;
        metrics.sum("topology_restored_total") > 1.5
    })
    .await;
    let status = bridge.status().await;
    for object in ["exchange `crm.retried`", "queue `crm.retry`"] {
        let finding = format!("{object} was missing and has been declared again");
        let is_found = |one: &&str| one.starts_with(&finding);
        assert!(findings(&status).iter().any(is_found), "{status}");
    }
    bridge.says("missing topology object declared again").await;
    let mut crm = Consumer::rejecting(&vhost, "crm", |_| true).await;
    bridge.post(array_of_new("rejected", 1)).await;
    crm.receive_n(3).await;
}

/// The broker has no connection left for the retries.
#[tokio::test(flavor = "multi_thread")]
async fn rejected_messages_that_wait_for_a_connection_are_reported() {
    let vhost = Broker::shared().await.vhost().await;
    own_queues(&vhost, &["work"]).await;
    let limit = format!("vhost-limits/{}/max-connections", vhost.name);
    let user = format!("login-{}", vhost.name);
    vhost.user(&user, "first-password").await;
    let builder = BridgeBuilder::without_broker();
    let file = builder.dir().join("url");
    let log_in_as = |password: &str| {
        std::fs::write(&file, vhost.amqp_url_as(&user, password)).unwrap();
    };
    log_in_as("first-password");
    let path = file.display().to_string();
    let mut bridge = builder
        .environment("DESKBRIDGE__RABBITMQ__URL_FILE", &path)
        .with("queues = [{name = 'work', keys = ['#'], retry_delay = '1s'}]")
        .with(&format!(
            "rabbitmq.management_url = {:?}",
            vhost.management_url()
        ))
        .build();
    // One is that of the test.
    vhost
        .management(Method::PUT, &limit, &json!({"value": 2}))
        .await;
    bridge.start().await;
    bridge.says("cannot be opened").await;
    let findings = bridge.status().await["broker"]["findings"].clone();
    assert!(
        findings[0].as_str().unwrap().contains("`work` wait"),
        "{findings}"
    );
    // The main link stays connected with the old login.
    vhost.user(&user, "second-password").await;
    log_in_as("second-password");
    vhost.management(Method::DELETE, &limit, &json!({})).await;
    let checked = bridge.run("check", &[]).await;
    let checked = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(
        checked.contains("error: rejected messages of queue `work` wait"),
        "{checked}"
    );
    eventually("the retries are connected", SOON, || async {
        bridge.status().await["broker"]["findings"] == json!([])
    })
    .await;
    // Without the section, the rejected messages have no consumer.
    bridge.reconfigure("queues = []");
    bridge.hang_up();
    bridge.says("is left").await;
}

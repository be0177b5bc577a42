//! Delayed retry: what a consumer rejects comes again after a while, and becomes a dead letter with
//! its history when it was rejected too often.

mod layout;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

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

/// A bridge that retries soon, with these queues.
async fn bridge(amqp_url: &str, queues: &str) -> Bridge {
    let bridge = BridgeBuilder::at(amqp_url)
        .with("rabbitmq = {reconnect_delay_min = '50ms', reconnect_delay_max = '300ms'}")
        .with(queues)
        .start()
        .await;
    bridge.broker_is("connected").await;
    bridge
}

/// A queue of the bridge's own for what is rejected: while it is there, no broker of 4.3 is left to
/// retry.
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

/// Takes the first message of a queue and rejects it, or gives it back.
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
        assert!(Instant::now() < end, "nothing comes into `{queue}`");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

fn findings(status: &Value) -> Vec<&str> {
    let findings = status["broker"]["findings"].as_array().unwrap();
    findings.iter().map(|one| one.as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_message_comes_again_after_the_delay_and_at_last_is_a_dead_letter_with_its_history()
 {
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
    assert_eq!(
        (
            letter.delivery_mode,
            &letter.kind,
            &letter.correlation_id,
            letter.timestamp
        ),
        (Some(2), &event.kind, &event.correlation_id, event.timestamp)
    );
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

    crm.receives_nothing_for(Duration::from_secs(1)).await;
    assert_eq!((other.count(), dead.count()), (1, 1), "neighbours");
    for satellite in ["crm.rejected", "crm.retry"] {
        assert_eq!(vhost.message_count(satellite).await, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_at_the_second_try_is_done_and_holds_nobody_up() {
    let vhost = Broker::shared().await.vhost().await;
    own_queues(&vhost, &["crm"]).await;
    let queues = queue("crm", "single_active_consumer = true\nretry_delay = '3s'");
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
    // Nobody waited for them: they come last.
    assert!(messages[25..].iter().all(is_odd), "{messages:#?}");
    crm.receives_nothing_for(Duration::from_secs(1)).await;
    assert_eq!(vhost.message_count(DEAD_LETTER).await, Some(0));
}

/// The broker alone would drop all of these as going round in a circle, or send them round again.
#[tokio::test(flavor = "multi_thread")]
async fn what_expires_or_is_given_back_too_often_is_a_dead_letter_and_does_not_come_again() {
    let vhost = Broker::shared().await.vhost().await;
    own_queues(&vhost, &["idle", "crashing"]).await;
    let queues = queue("idle", "ttl = '3s'\nretry_delay = '300ms'")
        + &queue("crashing", "delivery_limit = 2\nretry_delay = '300ms'");
    let bridge = bridge(&vhost.amqp_url, &queues).await;
    let mut dead = Consumer::of(&vhost, DEAD_LETTER).await;
    bridge.post(array_of_new("poison", 1)).await;
    // One is rejected first, then nobody takes it; the other one crashes its consumer.
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
async fn killing_the_bridge_and_cutting_its_connections_loses_no_rejected_message() {
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
async fn a_dead_letter_exchange_that_is_deleted_costs_no_rejected_message() {
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
async fn verifying_retries_through_what_is_there_and_says_what_is_missing() {
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

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_with_a_single_active_consumer_gives_everything_to_one() {
    let vhost = Broker::shared().await.vhost().await;
    let queues = queue("crm", "single_active_consumer = true");
    let bridge = bridge(&vhost.amqp_url, &queues).await;
    let mut active = Consumer::of(&vhost, "crm").await;
    let idle = Consumer::of(&vhost, "crm").await;
    bridge.post(array_of_new("single", 50)).await;
    active.receive_n(50).await;
    assert_eq!(idle.count(), 0);
}

/// A message that fits into a frame until the broker adds its `x-death`.
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
async fn oversized_headers_stop_no_retries() {
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
async fn oversized_dead_letters_can_be_read() {
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

/// A policy for every queue can shorten what the retries need, and no argument can take it back.
#[tokio::test(flavor = "multi_thread")]
async fn policies_lose_no_rejected_message() {
    const SESSIONS: usize = 12;
    let broker = Broker::own().await;
    // The broker tries again after three minutes otherwise.
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
    // Nobody takes them from `crm.rejected`.
    bridge.kill().await;
    for _ in 0..SESSIONS {
        reject_one(&vhost, "crm", false).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
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
    eventually("they are there again", Duration::from_mins(1), || async {
        vhost.has_exchange("crm.retried").await && vhost.message_count("crm.retry").await.is_some()
    })
    .await;
    eventually("it is told", SOON, || async {
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
    bridge
        .says("missing object of the topology declared again")
        .await;
    let mut crm = Consumer::rejecting(&vhost, "crm", |_| true).await;
    bridge.post(array_of_new("rejected", 1)).await;
    crm.receive_n(3).await;
}

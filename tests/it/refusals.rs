//! Messages that the broker refuses: only the refused message waits, is retried and in the end
//! becomes a dead letter; no other message is affected.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::{Value, json};

use crate::support::bridge::builder::{BridgeBuilder, on_shared_broker};
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::consumer::{Consumer, everything_in};
use crate::support::message::Message;
use crate::support::proxy::Proxy;
use crate::support::sender::{array_of_new, session};
use crate::support::vhost::Vhost;
use crate::support::wait::{SOON, eventually};

const DEAD_LETTERS: &str = "chat-sessions.dead-letter";

/// A bridge with short retry delays.
fn bridge_at(amqp_url: &str) -> BridgeBuilder {
    BridgeBuilder::at(amqp_url)
        .with("rabbitmq = {reconnect_delay_min = '50ms', reconnect_delay_max = '300ms'}")
        .with("retry = {delay_min = '20ms', delay_max = '200ms'}")
}

/// The number of messages of each session.
fn count_by_session(messages: &[Message]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for message in messages {
        let session = message.correlation_id.as_deref().expect("a session");
        *counts.entry(session).or_default() += 1;
    }
    counts
}

fn reasons(letters: &[Message]) -> Vec<&Value> {
    letters
        .iter()
        .map(|letter| letter.header("dead-letter-reason"))
        .collect()
}

/// Declares an exchange that routes by a header, so that messages of one route have different
/// outcomes: those of the type `request` reach the queue `taken`, the others reach no queue.
async fn declare_sorting_exchange(vhost: &Vhost) {
    let name = &vhost.name;
    // A transient classic queue confirms at once, so that confirms of both kinds come together.
    let path = format!("queues/{name}/taken");
    vhost
        .management(Method::PUT, &path, &json!({"durable": false}))
        .await;
    let exchange = json!({"type": "headers", "durable": true});
    let path = format!("exchanges/{name}/chat-sessions");
    vhost.management(Method::PUT, &path, &exchange).await;
    let binding = json!({"arguments": {"x-match": "all", "session-type": "request"}});
    let path = format!("bindings/{name}/e/chat-sessions/q/taken");
    vhost.management(Method::POST, &path, &binding).await;
}

/// lapin attributes a return to whichever confirm comes next. Only the bridge's log shows that this
/// has really happened here; otherwise this test would prove nothing.
#[tokio::test(flavor = "multi_thread")]
async fn unroutable_message_is_isolated_in_its_window() {
    const ROUNDS_MAX: usize = 60;
    const TRAP: &str = "a return came with the confirm of another message";
    let vhost = Broker::shared().await.vhost().await;
    declare_sorting_exchange(&vhost).await;
    let bridge = bridge_at(&vhost.amqp_url)
        .with("unrouted.exchange = ''\nretry.attempts_max = 3")
        .connected()
        .await;

    let mut rounds = 0;
    while !bridge.stderr().contains(TRAP) {
        assert!(
            rounds < ROUNDS_MAX,
            "lapin made no error: this test tested nothing"
        );
        let sessions: Vec<_> = (0..448).map(|n| sorted_session(rounds, n)).collect();
        bridge.accept(&sessions).await;
        bridge.backlog_is_empty().await;
        rounds += 1;
    }
    println!(
        "lapin attributed {} returns wrongly in {rounds} rounds",
        bridge.stderr().matches(TRAP).count()
    );

    let taken = everything_in(&vhost, "taken").await;
    let letters = everything_in(&vhost, DEAD_LETTERS).await;
    let delivered = count_by_session(&taken);
    let dead = count_by_session(&letters);
    for round in 0..rounds {
        for n in 0..448 {
            let id = format!("s-{round}-{n}");
            let counts = (delivered.get(&*id).copied(), dead.get(&*id).copied());
            let expected = if n % 7 == 3 {
                (None, Some(1))
            } else {
                (Some(1), None)
            };
            assert_eq!(counts, expected, "{id}: delivered, dead-lettered");
        }
    }
    let refused = u32::try_from(3 * letters.len()).unwrap();
    assert_eq!(bridge.retries("unroutable").await, f64::from(refused));
    for letter in letters {
        assert_eq!(letter.routing_key, "unroutable");
        assert_eq!(letter.header("dead-letter-reason"), "unroutable");
        assert_eq!(letter.header("dead-letter-detail"), "312 NO_ROUTE");
        assert_eq!(letter.header("attempts"), 3);
        assert_eq!(letter.header("original-exchange"), "chat-sessions");
        assert_eq!(
            letter.header("original-routing-key"),
            "chat-session.created"
        );
        assert_eq!(letter.json()["type"], "nobody takes this", "its own body");
    }
}

fn sorted_session(round: usize, n: usize) -> Value {
    let kind = if n % 7 == 3 {
        "nobody takes this"
    } else {
        "request"
    };
    session(
        &format!("s-{round}-{n}"),
        "created",
        json!({"type": kind, "pastStatus": []}),
    )
}

/// Declares a full queue that refuses messages (`chat-session.missed`), a queue `witness` with the
/// same binding that gets a copy at every attempt, and a queue for the other statuses.
async fn declare_full_queue(vhost: &Vhost) {
    vhost
        .declare_exchange(
            "chat-sessions",
            "topic",
            json!({"alternate-exchange": "chat-sessions.unrouted"}),
        )
        .await;
    let full_at_one = json!({"x-max-length": 1, "x-overflow": "reject-publish"});
    vhost.declare_queue("full", full_at_one).await;
    assert!(vhost.publish("", "full", b"the last place is taken").await);
    for queue in ["full", "witness"] {
        if queue == "witness" {
            vhost.declare_queue(queue, json!({})).await;
        }
        vhost
            .bind(queue, "chat-sessions", "chat-session.missed")
            .await;
    }
    vhost
        .queue_bound("crm", "chat-sessions", "chat-session.created")
        .await;
    vhost
        .bind("crm", "chat-sessions", "chat-session.completed")
        .await;
}

/// Posts sessions of other routes, one after the other; panics if one of them takes long to arrive.
async fn others_flow(bridge: &Bridge, crm: &mut Consumer, name: &str, count: usize) {
    for n in 0..count {
        let id = format!("{name}-{n}");
        bridge.accept(&[session(&id, "created", json!({}))]).await;
        let begin = Instant::now();
        let message = crm.receive().await;
        assert_eq!(message.correlation_id.as_deref(), Some(&*id));
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(5), "{id} took {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nacked_event_is_dead_lettered_after_max_attempts() {
    let vhost = Broker::shared().await.vhost().await;
    declare_full_queue(&vhost).await;
    let bridge = bridge_at(&vhost.amqp_url)
        .with("retry.attempts_max = 5")
        .start()
        .await;
    let mut crm = Consumer::of(&vhost, "crm").await;
    let missed: Vec<_> = (0..40)
        .map(|n| session(&format!("m{n}"), "missed", json!({})))
        .collect();
    bridge.accept(&missed).await;
    // Later events of one of these sessions wait for the earlier one.
    bridge
        .accept(&[session("m7", "completed", json!({}))])
        .await;
    others_flow(&bridge, &mut crm, "other", 10).await;

    bridge.backlog_is_empty().await;
    let behind = crm.receive().await;
    assert_eq!(behind.correlation_id.as_deref(), Some("m7"));
    crm.receives_nothing_for(Duration::ZERO).await;
    let letters = everything_in(&vhost, DEAD_LETTERS).await;
    assert_eq!(reasons(&letters), vec![&json!("nacked"); 40]);
    assert_eq!(count_by_session(&letters).len(), 40);
    for letter in &letters {
        assert_eq!(letter.header("attempts"), 5);
        assert_eq!(letter.json()["status"], "missed");
    }
    let seen = everything_in(&vhost, "witness").await;
    let attempts = count_by_session(&seen);
    assert!(
        attempts.len() == 40 && attempts.values().all(|&count| count == 5),
        "published five times each: {attempts:?}"
    );
    assert_eq!(bridge.retries("nacked").await, 200.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nacked_events_arrive_in_order_after_draining() {
    let vhost = Broker::shared().await.vhost().await;
    declare_full_queue(&vhost).await;
    let bridge = bridge_at(&vhost.amqp_url)
        .with("retry.attempts_max = 100000")
        .start()
        .await;
    let mut crm = Consumer::of(&vhost, "crm").await;
    let walk = [
        session("m", "missed", json!({"pastStatus": ["created"]})),
        session("m", "missed", json!({"pastStatus": ["created", "missed"]})),
        session("m", "completed", json!({"pastStatus": ["missed"]})),
    ];
    bridge.accept(&walk).await;
    eventually("the event is refused repeatedly", SOON, || async {
        bridge.retries("nacked").await >= 4.0
    })
    .await;
    others_flow(&bridge, &mut crm, "other", 10).await;
    bridge.backlog_is(3).await;

    let mut formerly_full = Consumer::of(&vhost, "full").await;
    let arrived = formerly_full.receive_n(3).await;
    assert_eq!(arrived[1].json(), walk[0]);
    assert_eq!(arrived[2].json(), walk[1]);
    assert_eq!(crm.receive().await.json(), walk[2]);
    bridge.backlog_is_empty().await;
    formerly_full.receives_nothing_for(Duration::ZERO).await;
    assert_eq!(vhost.message_count(DEAD_LETTERS).await, Some(0));
}

/// Suspends (`suspend`) or resumes (`resume`) the process of a queue: while suspended it accepts
/// everything and confirms nothing.
async fn queue_process(broker: &Broker, vhost: &Vhost, queue: &str, verb: &str) {
    let code = format!(
        "{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"{}\">>, queue, <<\"{queue}\">>)), \
         sys:{verb}(amqqueue:get_pid(Q)).",
        vhost.name
    );
    assert_eq!(broker.ctl(&["eval", &code]).await.trim(), "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn unconfirming_queue_stalls_only_its_route() {
    const WAITING: usize = 300;
    let broker = Broker::own().await;
    let vhost = broker.vhost().await;
    let bridge = bridge_at(&vhost.amqp_url)
        .with("rabbitmq.confirm_timeout = '1s'")
        .connected()
        .await;
    vhost
        .queue_bound("deaf", "chat-sessions", "chat-session.missed")
        .await;
    vhost
        .queue_bound("crm", "chat-sessions", "chat-session.created")
        .await;
    let mut crm = Consumer::of(&vhost, "crm").await;
    let mut deaf = Consumer::of(&vhost, "deaf").await;
    others_flow(&bridge, &mut crm, "before", 1).await;

    queue_process(&broker, &vhost, "deaf", "suspend").await;
    let missed: Vec<_> = (0..WAITING)
        .map(|n| session(&format!("m{n}"), "missed", json!({})))
        .collect();
    bridge.accept(&missed).await;
    bridge
        .route_is("chat-sessions", "chat-session.missed", "stuck")
        .await;
    let begin = Instant::now();
    others_flow(&bridge, &mut crm, "meanwhile", 30).await;
    while begin.elapsed() < Duration::from_secs(3) {
        bridge
            .accept(&[session("steady", "created", json!({}))])
            .await;
        crm.receive().await;
    }
    bridge.backlog_is(WAITING).await;
    let status = bridge.status().await;
    assert_eq!(
        status["broker"]["reconnects"], 1,
        "the connection of the others was dropped once: {status:#}"
    );
    let open = bridge.route("chat-sessions", "chat-session.created").await;
    assert_eq!(open["state"], "open");

    queue_process(&broker, &vhost, "deaf", "resume").await;
    bridge.backlog_is_empty().await;
    let probes_max = usize::try_from(begin.elapsed().as_secs()).unwrap() + 2;
    bridge
        .route_is("chat-sessions", "chat-session.missed", "open")
        .await;
    eventually("everything has arrived", SOON, || async {
        count_by_session(&deaf.all()).len() == WAITING
    })
    .await;
    let all = deaf.receive_n(deaf.count()).await;
    // Windows that were in flight when the queue stopped were published again; after that only
    // half-open probes of one message were.
    let mut counts: Vec<_> = count_by_session(&all).into_values().collect();
    counts.sort_unstable();
    let probed = counts.pop().unwrap();
    println!(
        "{} messages for {WAITING} events, {probed} of the first",
        all.len()
    );
    assert!(
        probed <= 1 + probes_max,
        "{probed} with {probes_max} probes"
    );
    assert!(counts.iter().all(|&count| count <= 2), "{counts:?}");
    assert_eq!(vhost.message_count(DEAD_LETTERS).await, Some(0));
    let mut ids: Vec<_> = all.iter().map(Message::id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), WAITING, "equal ids for equal events");
}

/// A session with a body of more than 100 KiB.
fn large(id: &str) -> Value {
    session(id, "created", json!({"report": "x".repeat(100 << 10)}))
}

/// Panics unless this is the dead letter of a large event whose body the journal still has.
fn assert_too_large(letter: &Message, bridge: &Bridge, attempts: u32) {
    assert_eq!(letter.routing_key, "too-large");
    assert_eq!(letter.header("dead-letter-reason"), "too-large");
    assert_eq!(letter.header("attempts"), attempts);
    assert_eq!(letter.correlation_id.as_deref(), Some("large"));
    assert!(letter.body.is_empty());
    let seq = letter.header("journal-event").as_i64().unwrap();
    let journal = rusqlite::Connection::open_with_flags(
        bridge.journal_dir().join("journal.db"),
        rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY,
    )
    .unwrap();
    let (body, is_kept): (Vec<u8>, bool) = journal
        .query_row(
            "SELECT body, kept FROM events JOIN settled USING (seq) WHERE seq = ?1",
            [seq],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .unwrap();
    assert_eq!(body, serde_json::to_vec(&large("large")).unwrap());
    assert!(is_kept, "exempt from retention");
}

#[tokio::test(flavor = "multi_thread")]
async fn event_over_the_limit_is_dead_lettered_without_body() {
    let vhost = Broker::shared().await.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    proxy.refuse();
    let mut bridge = bridge_at(&vhost.amqp_url_through(proxy.address()))
        .with("queues = [{name = 'all', keys = ['#']}]")
        .start()
        .await;
    let small = |id| session(id, "created", json!({}));
    bridge
        .accept(&[small("a"), large("large"), small("b")])
        .await;
    // The limit applies to new webhooks, too, so only an event that was stored before can exceed
    // it.
    bridge.reconfigure("rabbitmq.message_bytes_max = '64KiB'\nhttp.body_bytes_max = '64KiB'");
    bridge.restart().await;
    proxy.pass();
    bridge.backlog_is_empty().await;

    let delivered = everything_in(&vhost, "all").await;
    assert_eq!(count_by_session(&delivered), [("a", 1), ("b", 1)].into());
    let letters = everything_in(&vhost, DEAD_LETTERS).await;
    assert_eq!(letters.len(), 1);
    assert_too_large(&letters[0], &bridge, 0);
    let detail = letters[0].header("dead-letter-detail").as_str().unwrap();
    assert!(
        detail.contains("rabbitmq.message_bytes_max is 65536"),
        "{detail}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_survive_a_policy_that_limits_their_queue() {
    let vhost = Broker::shared().await.vhost().await;
    vhost
        .policy("queues", DEAD_LETTERS, json!({"max-length": 10}))
        .await;
    let bridge = bridge_at(&vhost.amqp_url).connected().await;
    for number in 0..30 {
        assert_eq!(bridge.post(format!("[{number}]")).await.status, 202);
    }
    eventually("the queue is full", SOON, || async {
        bridge.retries("nacked").await > 0.0
    })
    .await;
    let mut letters = Consumer::of(&vhost, DEAD_LETTERS).await;
    bridge.backlog_is_empty().await;
    eventually("every letter arrives", SOON, || async {
        letters.count() >= 30
    })
    .await;
    let letters = letters.receive_n(letters.count()).await;
    let bodies: BTreeSet<_> = letters.iter().map(Message::text).collect();
    assert_eq!(bodies.len(), 30, "{bodies:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_event_is_isolated() {
    let broker = Broker::own_with("max_message_size = 65536\n").await;
    let vhost = broker.vhost().await;
    let bridge = bridge_at(&vhost.amqp_url)
        .with("queues = [{name = 'all', keys = ['#']}]")
        .connected()
        .await;
    let mut all = Consumer::of(&vhost, "all").await;

    let mut sessions: Vec<_> = (0..100)
        .map(|n| session(&format!("s{n}"), "created", json!({})))
        .collect();
    sessions[50] = large("large");
    sessions.push(session("large", "completed", json!({})));
    bridge.accept(&sessions).await;
    bridge.backlog_is_empty().await;

    let letters = everything_in(&vhost, DEAD_LETTERS).await;
    assert_eq!(letters.len(), 1);
    assert_too_large(&letters[0], &bridge, 1);
    let detail = letters[0].header("dead-letter-detail").as_str().unwrap();
    assert!(
        detail.contains("larger than configured max size"),
        "{detail}"
    );
    eventually("all others have arrived", SOON, || async {
        count_by_session(&all.all()).len() == 100
    })
    .await;
    let delivered = all.receive_n(all.count()).await;
    let mut ids: Vec<_> = delivered.iter().map(Message::id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 100, "equal ids for equal events");
    let is_large = |message: &&Message| message.correlation_id.as_deref() == Some("large");
    let of_large: Vec<_> = delivered
        .iter()
        .filter(is_large)
        .map(Message::json)
        .collect();
    assert_eq!(of_large, [sessions[100].clone()], "its session continues");
    bridge
        .route_is("chat-sessions", "chat-session.created", "open")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_dead_letter_exchange_is_declared_again() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = bridge_at(&vhost.amqp_url).connected().await;
    accept_invalid(&bridge).await;
    bridge.backlog_is_empty().await;
    vhost.delete_exchange(DEAD_LETTERS).await;
    vhost.delete_queue(DEAD_LETTERS).await;

    accept_invalid(&bridge).await;
    bridge.backlog_is_empty().await;
    let letters = everything_in(&vhost, DEAD_LETTERS).await;
    assert_eq!(reasons(&letters), [&json!("invalid")]);
    let binding = vhost.describe("exchanges", DEAD_LETTERS).await;
    assert_eq!(
        (&binding["type"], &binding["durable"]),
        (&json!("topic"), &json!(true))
    );
}

/// Posts an element without a status.
async fn accept_invalid(bridge: &Bridge) {
    let answer = bridge.post(br#"[{"id":"s"}]"#).await;
    assert_eq!(
        (answer.status, &answer.json()["dead_lettered"]),
        (202, &json!(1))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letter_waits_for_its_exchange() {
    let vhost = Broker::shared().await.vhost().await;
    vhost
        .declare_exchange("chat-sessions", "topic", json!({}))
        .await;
    vhost.queue_bound("crm", "chat-sessions", "#").await;
    let mut crm = Consumer::of(&vhost, "crm").await;
    let mut bridge = bridge_at(&vhost.amqp_url)
        .with("rabbitmq.topology = 'verify'")
        .start()
        .await;
    accept_invalid(&bridge).await;
    bridge.route_is(DEAD_LETTERS, "invalid", "closed").await;
    assert_eq!(bridge.post(array_of_new("other", 2)).await.status, 202);
    crm.receive_n(2).await;
    let is_counted = |status: Value| {
        let (counters, backlog) = (&status["counters"], &status["backlog"]);
        counters["published"] == 2 && counters["dead_lettered"] == 0 && backlog["events"] == 1
    };
    eventually("the event is pending and is counted", SOON, || async {
        is_counted(bridge.status().await)
    })
    .await;
    bridge.restart().await;
    bridge.route_is(DEAD_LETTERS, "invalid", "closed").await;
    assert!(is_counted(bridge.status().await));

    vhost.declare_queue(DEAD_LETTERS, json!({})).await;
    vhost
        .declare_exchange(DEAD_LETTERS, "topic", json!({}))
        .await;
    // A message that arrives before there is a binding is refused and published again: it is never
    // lost.
    vhost.bind(DEAD_LETTERS, DEAD_LETTERS, "#").await;
    bridge.backlog_is_empty().await;
    let letters = everything_in(&vhost, DEAD_LETTERS).await;
    assert_eq!(reasons(&letters), [&json!("invalid")]);
    assert_eq!(letters[0].body, br#"{"id":"s"}"#);
}

/// A queue that stays full for a while: the refusals are reported while they last, and the other
/// queue with the same binding receives few copies.
#[tokio::test(flavor = "multi_thread")]
async fn full_queue_is_reported_and_causes_few_copies() {
    const KEY: &str = "chat-session.created";
    let (vhost, bridge) = on_shared_broker("").await;
    let full = json!({"x-max-length": 1, "x-overflow": "reject-publish"});
    vhost.declare_queue("full", full).await;
    assert!(vhost.publish("", "full", b"the last place is taken").await);
    vhost.bind("full", "chat-sessions", KEY).await;
    let other = Consumer::subscribed(&vhost, "chat-sessions", KEY).await;
    let begin = Instant::now();
    bridge.post(array_of_new("refused", 5)).await;
    eventually("each event was published three times", SOON, || async {
        let messages = other.all();
        let copies = count_by_session(&messages);
        copies.len() == 5 && copies.values().all(|copies| *copies >= 3)
    })
    .await;
    let messages = other.all();
    let most = count_by_session(&messages).into_values().max().unwrap();
    // At most 5 copies in ten seconds and 8 in a minute, and one that is on its way.
    let copies_max = if begin.elapsed() < Duration::from_secs(10) {
        6
    } else {
        9
    };
    assert!(most <= copies_max, "{most} in {:?}", begin.elapsed());

    let status = bridge.status().await;
    let retrying = &status["retrying"][0];
    assert_eq!(retrying["exchange"], "chat-sessions", "{status}");
    assert_eq!(retrying["routing_key"], KEY);
    assert_eq!(retrying["reason"], "nacked");
    assert_eq!(retrying["events"], status["backlog"]["events"], "{status}");
    assert!(retrying["last_refusal"].as_str().unwrap().contains("nack"));
    let metrics = bridge.metrics().await;
    let waiting = metrics.sum_where("retrying_events", &[("reason", "nacked")]);
    assert!((4.5..5.5).contains(&waiting), "{waiting}");
    bridge.says("broker rejects events of this route").await;
    let line = bridge.says("broker rejected the event").await;
    assert!(
        line.contains("session=") && line.contains("message_id="),
        "{line}"
    );

    vhost.delete_queue("full").await;
    bridge.backlog_is_empty().await;
    assert_eq!(bridge.status().await["retrying"], json!([]));
    bridge
        .says("broker no longer rejects events of this route")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letter_is_logged_with_its_session() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = bridge_at(&vhost.amqp_url)
        .with("unrouted.exchange = ''\nretry.attempts_max = 2")
        .start()
        .await;
    bridge
        .accept(&[session("lost", "created", json!({}))])
        .await;
    let line = bridge.says("event dead-lettered").await;
    assert!(line.contains("session=\"lost\""), "{line}");
    assert!(
        line.contains("message_id=") && line.contains("status=\"created\""),
        "{line}"
    );
}

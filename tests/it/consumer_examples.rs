//! The examples of consumers, as processes against a real broker: the manager is told of every
//! missed chat and reminded of those that stay handled, through `kill -9`, redeliveries,
//! repetitions and refusals.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::json;

use crate::support::bridge::builder::{BridgeBuilder, on_shared_broker};
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::example::{Example, Language, QUEUE};
use crate::support::manager::{Manager, Mood};
use crate::support::process::{end_with_us, has_ended, signal};
use crate::support::sender::{array_of, session};
use crate::support::vhost::Vhost;
use crate::support::wait::{SOON, eventually};

/// A bridge, a manager, and an example between them.
struct Desk {
    vhost: Vhost,
    bridge: Bridge,
    manager: Manager,
    example: Example,
}

impl Desk {
    async fn of(language: Language) -> Self {
        let (vhost, bridge) = on_shared_broker("").await;
        let manager = Manager::new();
        let example = Example::new(language, &vhost, &manager);
        Self {
            vhost,
            bridge,
            manager,
            example,
        }
    }

    async fn post(&self, id: &str, status: &str) {
        let session = session(id, status, json!({ "name": format!("Chat {id}") }));
        let answer = self.bridge.post(array_of(&[session])).await;
        assert_eq!(answer.status, 202);
    }

    /// Waits until so many messages of the example's queue are ready and none is in anybody's hand.
    async fn queue_has(&self, ready: u32) {
        let what = format!("{ready} messages lie in the example's queue");
        eventually(&what, SOON * 2, || async {
            self.vhost.message_count(QUEUE).await == Some(ready)
        })
        .await;
    }
}

async fn missed_chats_are_told(language: Language) {
    let mut desk = Desk::of(language).await;
    desk.example.start().await;

    // Killed while it tells of a session: the message comes again, with the same key.
    desk.manager.mood("first", Mood::Silent);
    desk.post("first", "missed").await;
    desk.manager.is_told("first", 1).await;
    desk.example.kill().await;
    desk.queue_has(1).await;
    desk.manager.mood("first", Mood::Takes);
    desk.example.start().await;
    desk.manager.is_told("first", 2).await;
    assert_eq!(desk.manager.keys("first").len(), 1);
    desk.queue_has(0).await;

    // Sent again, and started again: nobody is told again.
    desk.post("first", "missed").await;
    assert!(desk.example.terminate().await.success());
    desk.example.start().await;
    desk.post("first", "missed").await;
    desk.post("second", "missed").await;
    desk.manager.is_told("second", 1).await;
    desk.queue_has(0).await;
    assert_eq!(desk.manager.told("first").len(), 2);
    assert!(desk.manager.told("second")[0].text.contains("Chat second"));
}

async fn reminders_are_sent(language: Language) {
    let mut desk = Desk::of(language).await;
    desk.example.set("REMIND_AFTER", "3");
    desk.example.start().await;
    let done = ["handled", "completed"].map(|status| session("done", status, json!({})));
    desk.bridge.post(array_of(&done)).await;
    desk.post("open", "handled").await;
    // Taken in, and not forgotten when it is killed.
    desk.post("taken-in", "missed").await;
    desk.manager.is_told("taken-in", 1).await;
    desk.queue_has(0).await;
    desk.example.kill().await;
    desk.manager.mood("open", Mood::Refuses);
    desk.example.start().await;
    desk.manager.is_told("open", 2).await;
    desk.manager.mood("open", Mood::Takes);
    let before = desk.manager.told("open").len();
    desk.manager.is_told("open", before + 1).await;
    assert_eq!(desk.manager.keys("open").len(), 1);

    // Told once, whatever comes of the session later; of the other one, never.
    desk.post("later", "handled").await;
    desk.manager.is_told("later", 1).await;
    let told = desk.manager.told("open").len();
    assert!(told <= before + 2, "{told} after {before}");
    assert_eq!(desk.manager.told("done"), []);

    // As a card for Teams.
    assert!(!desk.manager.told("later")[0].is_card);
    assert!(desk.example.terminate().await.success());
    desk.example.set("NOTIFY_FORMAT", "teams");
    desk.example.start().await;
    desk.post("card", "missed").await;
    desk.manager.is_told("card", 1).await;
    assert!(desk.manager.told("card")[0].is_card);
}

async fn what_is_refused_is_tried_again(language: Language) {
    let mut desk = Desk::of(language).await;
    desk.example.start().await;
    desk.manager.mood("bad", Mood::Refuses);
    for (id, status) in [("bad", "missed"), ("good", "missed")] {
        desk.post(id, status).await;
    }
    desk.manager.is_told("good", 1).await;
    eventually("the message is a dead letter", SOON * 2, || async {
        desk.vhost.message_count("chat-sessions.dead-letter").await == Some(1)
    })
    .await;
    assert!(desk.manager.told("bad").len() >= 5);
    assert_eq!(desk.manager.keys("bad").len(), 1);
    let letters = desk.vhost.messages("chat-sessions.dead-letter").await;
    assert_eq!(letters[0].header("session-id"), "bad");
    assert_eq!(letters[0].header("x-first-death-queue"), QUEUE);
    desk.queue_has(0).await;
}

async fn sessions_keep_their_order(language: Language) {
    let mut desk = Desk::of(language).await;
    desk.example.start().await;
    // The manager is slow with one event of a session: the next one waits, other sessions do not.
    desk.manager.mood("slow", Mood::Silent);
    let events =
        ["slow one", "slow two"].map(|name| session("slow", "missed", json!({ "name": name })));
    desk.bridge.post(array_of(&events)).await;
    desk.manager.is_told("slow one", 1).await;
    desk.post("other", "missed").await;
    desk.manager.is_told("other", 1).await;
    assert_eq!(desk.manager.told("slow two"), []);

    // Told to stop, it gives back what it could not finish.
    desk.example.signal(Signal::TERM);
    desk.example.exit().await;
    desk.queue_has(2).await;
    desk.manager.mood("slow", Mood::Takes);
    desk.example.start().await;
    desk.manager.is_told("slow two", 1).await;
    desk.queue_has(0).await;
    let order: Vec<_> = desk
        .manager
        .told("slow")
        .into_iter()
        .map(|told| told.text)
        .collect();
    assert_eq!(order.len(), 3, "{order:?}");
    assert!(order[2].contains("slow two"), "{order:?}");
}

/// The bridge has declared the queue, with arguments of its own.
async fn declared_queues_are_consumed(language: Language) {
    let vhost = Broker::shared().await.vhost().await;
    let queue = format!(
        "[[queues]]\nname = '{QUEUE}'\nkeys = ['chat-session.missed']\ndelivery_limit = 3\nretry_delay = '300ms'\n"
    );
    let bridge = BridgeBuilder::new(&vhost).with(&queue).connected().await;
    let manager = Manager::new();
    let mut example = Example::new(language, &vhost, &manager);
    let is_by_broker = bridge.status().await["broker"]["retries"][QUEUE] == "broker";
    example.set("REQUEUE", if is_by_broker { "1" } else { "0" });
    let mut desk = Desk {
        vhost,
        bridge,
        manager,
        example,
    };
    desk.manager.mood("bad", Mood::Refuses);
    desk.example.start().await;
    desk.post("bad", "missed").await;
    desk.post("good", "missed").await;
    desk.manager.is_told("good", 1).await;
    eventually("the message is a dead letter", SOON * 2, || async {
        desk.vhost.message_count("chat-sessions.dead-letter").await == Some(1)
    })
    .await;
    let letters = desk.vhost.messages("chat-sessions.dead-letter").await;
    assert_eq!(letters[0].header("session-id"), "bad");
    if is_by_broker {
        assert_eq!(letters[0].header("x-first-death-reason"), "delivery_limit");
    } else {
        assert_eq!(letters[0].header("attempts"), 3);
    }
    assert!(
        !desk.example.log().contains("406"),
        "{}",
        desk.example.log()
    );
}

/// `serve` and `tail`, as a user with what `check` recommends and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn recommended_permissions_suffice() {
    let vhost = Broker::shared().await.vhost().await;
    let user = format!("narrow-{}", uuid::Uuid::new_v4().simple());
    vhost.user(&user, "password").await;
    vhost.allow(&user, "", "", "").await;
    let toml = format!(
        "rabbitmq.management_url = {:?}\n[[queues]]\nname = 'crm'\nkeys = ['#']\nretry_delay = '1s'\n",
        vhost.management_url()
    );
    let mut bridge = BridgeBuilder::at(&vhost.amqp_url_as(&user, "password"))
        .with(&toml)
        .build();
    let output = bridge.run("check", &[]).await;
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let (_, command) = text
        .split_once(&format!("set_permissions -p '{}' '{user}' '", vhost.name))
        .unwrap_or_else(|| panic!("{text}"));
    let pattern = command.split('\'').next().unwrap();
    vhost.allow(&user, pattern, pattern, pattern).await;
    bridge.start().await;
    bridge.broker_is("connected").await;
    assert_eq!(bridge.status().await["broker"]["findings"], json!([]));
    let (tail, mut said) = super::output_pipes::following(&bridge, &["--json", "--count", "1"]);
    super::output_pipes::is_waiting(&mut said);
    bridge
        .post(array_of(&[session("seen", "missed", json!({}))]))
        .await;
    let shown = tokio::task::spawn_blocking(move || tail.wait_with_output().unwrap());
    let shown = tokio::time::timeout(SOON, shown).await;
    let shown = shown.expect("tail ends").unwrap();
    assert!(shown.status.success(), "{shown:?}");
    assert!(
        String::from_utf8_lossy(&shown.stdout).contains("seen"),
        "{shown:?}"
    );
}

macro_rules! in_both_languages {
    ($($name:ident: $python:ident $typescript:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $python() {
            $name(Language::Python).await;
        }

        #[tokio::test(flavor = "multi_thread")]
        async fn $typescript() {
            $name(Language::TypeScript).await;
        }
    )*};
}

in_both_languages! {
    missed_chats_are_told:
        python_reports_missed_chats_through_kill_9
        typescript_reports_missed_chats_through_kill_9
    reminders_are_sent:
        python_reminds_once_of_handled_sessions
        typescript_reminds_once_of_handled_sessions
    what_is_refused_is_tried_again:
        python_retries_then_dead_letters_refusals
        typescript_retries_then_dead_letters_refusals
    declared_queues_are_consumed:
        python_consumes_a_declared_queue
        typescript_consumes_a_declared_queue
    sessions_keep_their_order:
        python_keeps_session_order_and_requeues
        typescript_keeps_session_order_and_requeues
}

/// The program of `docs/consuming.md` that posts sessions to a flow, as it stands there.
#[tokio::test(flavor = "multi_thread")]
async fn documented_forwarder_posts_sessions() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/consuming.md")).unwrap();
    let mut programs = page.split("```python\n").skip(1);
    let program = programs.find_map(|rest| {
        let (program, _) = rest.split_once("```")?;
        program.contains("FLOW_URL").then_some(program)
    });
    let (vhost, bridge) = on_shared_broker("").await;
    let flow = Manager::new();
    let mut consumer = Command::new(root.join(".dev/python/bin/python"))
        .args(["-c", program.unwrap()])
        .env("PYTHONPATH", root.join("examples/consumers/python"))
        .env("AMQP_URL", &vhost.amqp_url)
        .env("FLOW_URL", &flow.url)
        .spawn()
        .unwrap();
    end_with_us(consumer.id());
    vhost.has_bindings("power-automate", 2).await;
    let session = session("1-1", "missed", json!({ "text": "the whole session" }));
    assert_eq!(bridge.post(array_of(&[session])).await.status, 202);
    flow.is_told("the whole session", 1).await;
    assert_eq!(flow.told("the whole session")[0].key.len(), 36);
    signal(consumer.id(), Signal::TERM);
    assert!(consumer.wait().unwrap().success());
    has_ended(consumer.id());
}

/// The README's program, as it stands there.
#[tokio::test(flavor = "multi_thread")]
async fn readme_consumer_prints_missed_chats() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let (_, program) = readme.split_once("```python\n").unwrap();
    let (program, _) = program.split_once("```").unwrap();
    assert!(program.lines().count() <= 18, "it is a short one");
    let (vhost, bridge) = on_shared_broker("").await;
    let mut consumer = Command::new(root.join(".dev/python/bin/python"))
        .args(["-c", program])
        .env("AMQP_URL", &vhost.amqp_url)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    end_with_us(consumer.id());
    vhost.has_bindings("missed-chats", 2).await;
    let other = session("first", "created", json!({}));
    assert_eq!(bridge.post(array_of(&[other])).await.status, 202);
    let sample = readme.split_once("send < ").unwrap().1;
    let (sample, _) = sample.split_once('\n').unwrap();
    let sample = root.join(sample).display().to_string();
    let sent = bridge.run("send", &[&sample]).await;
    assert!(sent.status.success(), "{sent:?}");
    let mut line = String::new();
    let printed = consumer.stdout.take().unwrap();
    BufReader::new(printed).read_line(&mut line).unwrap();
    signal(consumer.id(), Signal::KILL);
    let _ = consumer.wait();
    has_ended(consumer.id());
    let (message_id, session) = line.trim().split_once(' ').unwrap();
    assert!(readme.contains(&format!("`{session}`:\n")), "{line}");
    assert_eq!(message_id.len(), 36, "{line}");
}

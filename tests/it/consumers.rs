//! The examples of consumers, as processes against a real broker: the manager is told of every
//! missed chat and reminded of those that stay handled, through `kill -9`, redeliveries,
//! repetitions and refusals.

use rustix::process::Signal;
use serde_json::json;

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::example::{Example, Language, QUEUE};
use crate::support::manager::{Manager, Mood};
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
        let vhost = Broker::shared().await.vhost().await;
        let bridge = BridgeBuilder::new(&vhost).start().await;
        bridge.broker_is("connected").await;
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
    let bridge = BridgeBuilder::new(&vhost).with(&queue).start().await;
    bridge.broker_is("connected").await;
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
    let tail = bridge
        .command("tail", &["--json", "--count", "1"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let shown = tokio::task::spawn_blocking(move || tail.wait_with_output().unwrap());
    let posting = async {
        loop {
            bridge
                .post(array_of(&[session("seen", "missed", json!({}))]))
                .await;
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    let shown = tokio::select! {
        shown = tokio::time::timeout(SOON, shown) => shown.expect("tail ends").unwrap(),
        () = posting => unreachable!("it goes on"),
    };
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
        python_tells_of_every_missed_chat_through_kill_9_and_repetitions
        typescript_tells_of_every_missed_chat_through_kill_9_and_repetitions
    reminders_are_sent:
        python_reminds_once_of_a_session_that_stays_handled
        typescript_reminds_once_of_a_session_that_stays_handled
    what_is_refused_is_tried_again:
        python_tries_again_what_is_refused_and_then_lets_it_go_to_the_dead_letters
        typescript_tries_again_what_is_refused_and_then_lets_it_go_to_the_dead_letters
    declared_queues_are_consumed:
        python_consumes_a_queue_that_the_bridge_declared
        typescript_consumes_a_queue_that_the_bridge_declared
    sessions_keep_their_order:
        python_takes_the_messages_of_a_session_in_turn_and_gives_back_what_it_cannot_finish
        typescript_takes_the_messages_of_a_session_in_turn_and_gives_back_what_it_cannot_finish
}

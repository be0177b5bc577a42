//! SIGHUP: a new configuration is applied completely or not at all, and no request fails.

use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::bridge::builder::{BridgeBuilder, on_shared_broker};
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::load::Load;
use crate::support::message::Message;
use crate::support::proxy::Proxy;
use crate::support::sender::{array_of, array_of_new, session, sign};
use crate::support::wait::{SOON, eventually, eventually_some};

const OLD: &str = "the-secret-before-the-rotation";
const NEW: &str = "the-secret-after-the-rotation";

/// Sends SIGHUP and waits until `/status` shows the result of the reload.
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
async fn keys_that_need_a_restart_are_reported() {
    let (_vhost, mut bridge) = on_shared_broker("telemetry.log_level = 'error'").await;
    assert_eq!(reloaded(&bridge).await["waiting_for_restart"], json!([]));
    let log = bridge.stderr();
    assert!(!log.contains("configuration reloaded"), "{log}");
    bridge.reconfigure("retry.attempts_max = 7\njournal.retention = '1d'\nhttp.sessions_max = 7");
    bridge.reconfigure("sources.other.secrets = ['the-secret-of-another-source']");
    bridge.reconfigure("telemetry.log_level = 'info'");
    let reload = reloaded(&bridge).await;
    assert_eq!(reload["is_applied"], true, "{reload}");
    let waiting = json!(["http", "retry", "journal"]);
    assert_eq!(reload["waiting_for_restart"], waiting);
    bridge.says("configuration reloaded").await;
    // Reported for as long as it is true.
    let reload = reloaded(&bridge).await;
    assert_eq!(reload["waiting_for_restart"], waiting);
    let line = bridge.says("requires a restart").await;
    assert!(line.contains("http, retry, journal"), "{line}");
    assert_eq!(bridge.post(array_of_new("eight", 8)).await.status, 202);
    bridge.restart().await;
    assert_eq!(bridge.post(array_of_new("eight", 8)).await.status, 413);
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
async fn rewritten_secret_file_is_used_after_sighup() {
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
        "the new secret is not used before the reload"
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

    // No signal ends the process.
    let signals = [
        Signal::HUP,
        Signal::PIPE,
        Signal::USR1,
        Signal::USR2,
        Signal::ALARM,
        Signal::XFSZ,
    ];
    for signal in signals.repeat(3) {
        bridge.signal(signal);
        load.accepts(15).await;
    }
    let ledger = load.stop().await;
    assert!(ledger.is_without_failure(), "{ledger:?}");
    assert!(bridge.is_running());
    assert_eq!(bridge.status().await["reload"]["is_applied"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn secret_stays_in_use_while_its_file_has_none() {
    let builder = BridgeBuilder::without_broker();
    let [first, second] = ["first", "second"].map(|name| builder.dir().join(name));
    std::fs::write(&first, OLD).unwrap();
    std::fs::write(&second, "the-secret-of-the-other-webhook").unwrap();
    let toml = format!(
        "sources.deskdirector = {{secrets = [], await_secret = true, secret_files = [{first:?}, {second:?}]}}"
    );
    let bridge = builder.with(&toml).start().await;
    std::fs::write(&first, "\n").unwrap();
    for _ in 0..2 {
        assert_eq!(reloaded(&bridge).await["is_applied"], true);
        assert_eq!(status_with(&bridge, OLD).await, 202);
        let kept = json!([first.display().to_string()]);
        assert_eq!(bridge.status().await["sources"][0]["kept_secrets"], kept);
        let ready = bridge.admin("/readyz").await;
        assert_eq!(ready.status, 200);
        assert!(
            ready.text().contains("first has no secret; its last one"),
            "{}",
            ready.text()
        );
        bridge.says("its last secret stays in use").await;
        let _ = std::fs::remove_file(&first);
    }
    std::fs::write(&first, NEW).unwrap();
    reloaded(&bridge).await;
    assert_eq!(status_with(&bridge, OLD).await, 401);
    assert_eq!(status_with(&bridge, NEW).await, 202);
    assert_eq!(
        bridge.status().await["sources"][0]["kept_secrets"],
        json!([])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn default_file_that_appears_later_is_read() {
    let mut bridge = BridgeBuilder::without_broker()
        .under(&["sh", "-c", "exec \"$1\" \"$4\"", "without --config"])
        .build();
    for (key, value) in [
        ("HTTP__LISTEN", bridge.address().to_string()),
        ("ADMIN__LISTEN", bridge.admin_address().to_string()),
        ("JOURNAL__DIR", "journal".to_owned()),
        ("JOURNAL__DISK_FREE_MIN", "1MiB".to_owned()),
        ("SOURCES__DESKDIRECTOR__SECRETS", OLD.to_owned()),
    ] {
        bridge.set_environment(&format!("DESKBRIDGE__{key}"), Some(&value));
    }
    bridge.start().await;
    let file = bridge.dir().join("config/deskbridge.toml");
    std::fs::create_dir(file.parent().unwrap()).unwrap();
    std::fs::write(&file, format!("sources.later.secrets = [{NEW:?}]")).unwrap();
    assert_eq!(reloaded(&bridge).await["is_applied"], true);
    let sources = bridge.status().await["sources"].to_string();
    assert!(sources.contains("\"later\""), "{sources}");
}

fn pipe(path: &Path) {
    let _ = std::fs::remove_file(path);
    let made = Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn file_that_never_answers_delays_neither_webhooks_nor_stop() {
    let builder = BridgeBuilder::without_broker();
    let file = builder.dir().join("secret");
    std::fs::write(&file, OLD).unwrap();
    let mut bridge = builder
        .with(&format!("sources.deskdirector.secret_files = [{file:?}]"))
        .start()
        .await;
    pipe(&file);
    bridge.hang_up();
    assert_eq!(status_with(&bridge, OLD).await, 202);
    let reload = eventually_some("the reload is done", SOON, || async {
        let reload = bridge.status().await["reload"].clone();
        (reload != Value::Null).then_some(reload)
    })
    .await;
    assert_eq!(reload["is_applied"], false);
    let finding = reload["findings"][0].as_str().unwrap();
    assert!(
        finding.contains("/secret` took longer than 5s"),
        "{finding}"
    );
    assert_eq!(status_with(&bridge, OLD).await, 202);
    bridge.hang_up();
    assert_eq!(bridge.terminate().await.status.code(), Some(0));

    bridge.spawn();
    bridge.says("deskbridge: waiting for `").await;
    assert_eq!(bridge.terminate().await.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn new_login_and_new_broker_are_used() {
    let vhost = Broker::shared().await.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let user = format!("login-{}", vhost.name);
    let url = |password: &str| {
        let url = vhost.amqp_url_as(&user, password);
        url.replace(
            &vhost.amqp_address().to_string(),
            &proxy.address().to_string(),
        )
    };
    vhost.user(&user, "first-password").await;
    let builder = BridgeBuilder::without_broker();
    let file = builder.dir().join("url");
    std::fs::write(&file, url("first-password")).unwrap();
    let mut bridge = builder
        .environment(
            "DESKBRIDGE__RABBITMQ__URL_FILE",
            &file.display().to_string(),
        )
        .connected()
        .await;
    vhost.user(&user, "second-password").await;
    proxy.cut();
    bridge.broker_is("refused").await;
    std::fs::write(&file, url("second-password")).unwrap();
    bridge.broker_is("connected").await;

    let other = Broker::shared().await.vhost().await;
    std::fs::write(&file, &other.amqp_url).unwrap();
    let reload = reloaded(&bridge).await;
    assert_eq!(reload["is_applied"], true, "{reload}");
    assert_eq!(reload["waiting_for_restart"], json!([]));
    eventually("the exchange is declared", SOON, || {
        other.has_exchange("chat-sessions")
    })
    .await;
    let mut consumer = Consumer::subscribed(&other, "chat-sessions", "#").await;
    assert_eq!(bridge.post(array_of_new("moved", 1)).await.status, 202);
    assert_eq!(
        consumer.receive().await.correlation_id.as_deref(),
        Some("moved-0")
    );
    bridge.backlog_is_empty().await;
    assert_eq!(bridge.terminate().await.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn new_source_and_exchange_apply_after_sighup() {
    let (vhost, mut bridge) = on_shared_broker("").await;
    bridge.reconfigure("sources.open.signature = \"none\"\nrouting.exchange = \"second\"");
    assert_eq!(reloaded(&bridge).await["is_applied"], true);
    let body = array_of_new("unsigned", 1);
    let mut client = crate::support::http::Client::new(bridge.address());
    let answer = client
        .request(hyper::Method::POST, "/webhooks/open", &[], body)
        .await
        .unwrap();
    assert_eq!(answer.status, 202, "{}", answer.text());
    // The new exchange has been declared, without a subscriber.
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
async fn repeated_route_changes_keep_order_under_load() {
    let (vhost, mut bridge) = on_shared_broker("").await;
    let alternate = json!({"alternate-exchange": "chat-sessions.unrouted"});
    vhost.declare_exchange("second", "topic", alternate).await;
    vhost.queue_bound("everything", "chat-sessions", "#").await;
    vhost.bind("everything", "second", "#").await;
    let consumer = Consumer::of(&vhost, "everything").await;
    let load = Load::start(bridge.address(), 4);
    let arrives = async |exchange: &str, key: &str| {
        let has_arrived = |one: &Message| one.exchange == exchange && one.routing_key == key;
        let what = format!("a message of {exchange} with key {key}");
        eventually(&what, SOON, || async {
            consumer.all().iter().any(has_arrived)
        })
        .await;
    };
    arrives("chat-sessions", "chat-session.created").await;
    for round in 0..8 {
        load.accepts(60).await;
        let (exchange, of_handled) = [("second", "second"), ("chat-sessions", "second")][round % 2];
        bridge.reconfigure(&format!(
            "routing.exchange = {exchange:?}\nrouting.routing_key = 'v{round}.{{status}}'\n\
             routing.statuses.handled.exchange = {of_handled:?}"
        ));
        let reload = reloaded(&bridge).await;
        assert_eq!(reload["is_applied"], true, "{reload}");
        // An event that is pending at the next change gets the next route.
        arrives(exchange, &format!("v{round}.created")).await;
    }
    arrives("second", "v7.handled").await;
    load.accepts(60).await;
    let ledger = load.stop().await;
    assert!(ledger.is_without_failure(), "{ledger:?}");
    assert_eq!(ledger.arrives_at(&consumer).await, 0, "no duplicates");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_queue_is_declared_with_its_retries() {
    let (vhost, mut bridge) = on_shared_broker("").await;
    let load = Load::start(bridge.address(), 2);
    let crm = "[[queues]]\nname = 'crm'\nkeys = ['chat-session.missed']\ndelivery_limit = 2\n";
    bridge.reconfigure(&format!("{crm}retry_delay = '200ms'"));
    assert_eq!(reloaded(&bridge).await["is_applied"], true);
    vhost.has_bindings("crm", 3).await;
    let mut consumer = Consumer::rejecting(&vhost, "crm", |_| true).await;
    let missed = array_of(&[session("missed", "missed", json!({}))]);
    assert_eq!(bridge.post(missed.clone()).await.status, 202);
    consumer.receive_n(2).await;
    let mut dead = Consumer::of(&vhost, "chat-sessions.dead-letter").await;
    assert_eq!(dead.receive().await.header("attempts"), 2);

    // Queue arguments cannot be changed: the queue stays, and `/status` reports the difference.
    bridge.reconfigure(crm);
    assert_eq!(reloaded(&bridge).await["is_applied"], true);
    eventually("the difference is reported", SOON, || async {
        let findings = bridge.status().await["broker"]["findings"].to_string();
        findings.contains("queue `crm` exists with other arguments")
    })
    .await;
    bridge.says("exists with other arguments").await;
    assert_eq!(bridge.post(missed).await.status, 202);
    consumer.receive().await;
    let ledger = load.stop().await;
    assert!(ledger.is_without_failure(), "{ledger:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_declares_deleted_objects_again() {
    let (vhost, bridge) = on_shared_broker("[[queues]]\nname = 'crm'\nkeys = ['#']").await;
    vhost.delete_queue("crm").await;
    assert_eq!(vhost.message_count("crm").await, None);
    assert_eq!(reloaded(&bridge).await["is_applied"], true);
    eventually("the queue is there again", SOON, || async {
        vhost.message_count("crm").await.is_some()
    })
    .await;
    // Its binding was restored, too.
    eventually("an event arrives in it", SOON, || async {
        bridge.post(array_of_new("again", 1)).await;
        vhost.message_count("crm").await > Some(0)
    })
    .await;

    // The queue is declared with other arguments, and deleted again.
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
async fn invalid_reload_under_load_changes_nothing() {
    let (vhost, mut bridge) = on_shared_broker("").await;
    let valid = std::fs::read_to_string(bridge.config_file()).unwrap();
    let mut consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    let load = Load::start(bridge.address(), 4);
    load.accepts(60).await;
    // Three valid changes and three invalid ones.
    bridge.reconfigure(&format!(
        "sources.open.signature = 'none'\nsources.deskdirector.secrets = [{NEW:?}]\n\
         routing.routing_key = 'v2.{{status}}'\n\
         routing.statuses.missed.routing_key = '{{nonsense}}'\nretry.attempts_mix = 3\n\
         [[queues]]\nname = 'crm'\nkeys = []"
    ));
    let reload = reloaded(&bridge).await;
    assert_eq!(reload["is_applied"], false, "{reload}");
    let findings = reload["findings"].to_string();
    for part in ["queues[0].keys", "nonsense", "attempts_max"] {
        assert!(findings.contains(part), "no {part} in {findings}");
    }
    let line = bridge.says("attempts_mix").await;
    assert!(line.contains("rejected"), "{line}");
    load.accepts(60).await;
    assert_eq!(status_with(&bridge, NEW).await, 401, "the old secrets stay");
    let mut client = crate::support::http::Client::new(bridge.address());
    let open = client.request(hyper::Method::POST, "/webhooks/open", &[], "[]");
    assert_eq!(open.await.unwrap().status, 404, "no new source");
    assert_eq!(vhost.message_count("crm").await, None, "no new queue");
    for message in consumer.receive_n(90).await {
        let key = &message.routing_key;
        assert!(key.starts_with("chat-session."), "no new route: {key}");
    }
    std::fs::write(bridge.config_file(), "this is no TOML").unwrap();
    assert_eq!(reloaded(&bridge).await["is_applied"], false);
    assert!(bridge.ready().await);

    let with_queue = format!("{valid}\n[[queues]]\nname = 'crm'\nkeys = ['#']\n");
    std::fs::write(bridge.config_file(), with_queue).unwrap();
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

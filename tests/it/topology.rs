//! `topology`: the definitions that `print` writes can be imported, and `verify` finds nothing
//! missing then; `apply` declares what `serve` does, and says what it did.

use std::process::Output;

use hyper::Method;
use serde_json::{Value, json};

use crate::check::setup::{finds, unstarted};
use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::vhost::Vhost;
use crate::support::wait::{SOON, eventually};

/// One of everything that can be configured.
const ALL: &str = "
rabbitmq.topology = 'verify'
routing.statuses.missed.exchange = 'chat-alarms'
[[queues]]
name = 'crm'
keys = ['chat-session.#', 'a b']
delivery_limit = 3
retry_delay = '700ms'
[[queues]]
name = 'alarms'
exchange = 'chat-alarms'
keys = ['#']
ttl = '1h'
messages_max = 1000
bytes_max = '1MiB'
single_active_consumer = true
";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs `topology` and returns its output if it exits with this code.
async fn topology(bridge: &Bridge, line: &str, code: i32) -> Output {
    let words: Vec<_> = line.split_whitespace().collect();
    let output = bridge.run("topology", &words).await;
    assert_eq!(output.status.code(), Some(code), "{line}: {output:?}");
    assert!(!text(&output.stderr).contains("guest:guest"));
    output
}

async fn printed(bridge: &Bridge, line: &str) -> Value {
    let output = topology(bridge, line, 0).await;
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The lines of `apply --json`.
async fn applied(bridge: &Bridge, code: i32) -> Vec<Value> {
    let output = topology(bridge, "apply --json", code).await;
    let text = text(&output.stdout);
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn names(definitions: &Value, kind: &str) -> Vec<String> {
    let all = definitions[kind].as_array().unwrap();
    let name = |one: &Value| one["name"].as_str().unwrap().to_owned();
    all.iter().map(name).collect()
}

/// Waits for the end of an import, which is asynchronous and ends with the bindings.
async fn is_imported(vhost: &Vhost, definitions: &Value) {
    let count = |kind: &str| definitions[kind].as_array().unwrap().len();
    // Every queue is also bound to the default exchange.
    let expected = count("bindings") + count("queues");
    let path = format!("bindings/{}", vhost.name);
    eventually("the definitions are imported", SOON, || async {
        let found = vhost.management(Method::GET, &path, &Value::Null).await;
        found.json().as_array().unwrap().len() == expected
    })
    .await;
}

/// Starts the bridge: neither it nor `check` finds anything missing or different.
async fn has_no_finding(bridge: &mut Bridge) {
    bridge.start().await;
    bridge.broker_is("connected").await;
    let status = bridge.status().await;
    assert_eq!(status["broker"]["findings"], json!([]), "{status}");
    finds(bridge, 0, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn imported_definitions_satisfy_verify() {
    let broker = Broker::shared().await;
    for is_by_tool in [true, false] {
        let vhost = broker.vhost().await;
        let mut bridge = unstarted(&vhost, ALL).build();
        let definitions = printed(&bridge, "print").await;
        assert!(!vhost.has_exchange("chat-sessions").await, "print declares");
        if is_by_tool {
            let file = std::env::temp_dir().join(format!("{}.json", vhost.name));
            std::fs::write(&file, definitions.to_string()).unwrap();
            broker
                .ctl(&["import_definitions", file.to_str().unwrap()])
                .await;
            std::fs::remove_file(&file).unwrap();
        } else {
            let path = format!("definitions/{}", vhost.name);
            vhost.management(Method::POST, &path, &definitions).await;
        }
        is_imported(&vhost, &definitions).await;
        has_no_finding(&mut bridge).await;
        // Declaring finds the same arguments.
        let results = applied(&bridge, 0).await;
        let is_as_planned =
            |one: &Value| ["existed", "bound"].iter().any(|ok| one["result"] == *ok);
        assert!(results.iter().all(is_as_planned), "{results:#?}");
        assert!(
            results.iter().all(|one| one["detail"].is_null()),
            "{results:#?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn print_needs_no_broker_but_for_retries() {
    let mut bridge = BridgeBuilder::without_broker().build();
    let definitions = printed(&bridge, "print").await;
    let own = ["chat-sessions.dead-letter", "chat-sessions.unrouted"];
    assert_eq!(names(&definitions, "queues"), own);
    assert_eq!(definitions["queues"][0]["vhost"], "/");

    bridge.reconfigure(ALL);
    let told = text(&topology(&bridge, "print", 1).await.stderr);
    assert!(
        told.contains("error: asking the broker for its version: amqp://127."),
        "{told}"
    );
    assert!(told.contains("try: --broker-version"), "{told}");
    let old = printed(&bridge, "print --broker-version 3.13.7").await;
    assert!(
        names(&old, "queues").contains(&"crm.rejected".to_owned()),
        "{old}"
    );
    assert!(
        names(&old, "exchanges").contains(&"crm.retried".to_owned()),
        "{old}"
    );
    let new = printed(&bridge, "print --broker-version 4.3").await;
    assert_eq!(names(&new, "queues").len(), 4, "{new}");
    assert!(new.to_string().contains("x-delayed-retry-type"), "{new}");
    let told = text(
        &topology(&bridge, "print --broker-version new", 2)
            .await
            .stderr,
    );
    assert!(told.contains("such as 4.3"), "{told}");
    let told = text(&topology(&bridge, "apply", 1).await.stderr);
    assert!(
        told.contains("error: declaring the topology: amqp://127."),
        "{told}"
    );
    assert!(!bridge.journal_dir().exists(), "no journal is needed");
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_declares_what_serve_expects() {
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = unstarted(&vhost, ALL).build();
    let first = applied(&bridge, 0).await;
    let is_binding = |one: &Value| one["kind"] == "binding";
    for one in &first {
        let expected = if is_binding(one) { "bound" } else { "declared" };
        assert_eq!(one["result"], expected, "{one}");
    }
    let again = applied(&bridge, 0).await;
    assert_eq!(again.len(), first.len());
    for one in &again {
        let expected = if is_binding(one) { "bound" } else { "existed" };
        assert_eq!(one["result"], expected, "{one}");
    }
    assert!(!bridge.journal_dir().exists(), "no journal is needed");
    has_no_finding(&mut bridge).await;
    vhost.delete_queue("alarms").await;
    let told = text(&topology(&bridge, "apply", 0).await.stdout);
    assert!(told.contains("declared  queue `alarms`\n"), "{told}");
    assert!(told.contains("existed   queue `crm`\n"), "{told}");
    let bound = "bound     binding of queue `alarms` to exchange `chat-alarms` with key `#`\n";
    assert!(told.contains(bound), "{told}");
    finds(&bridge, 0, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn object_with_other_arguments_is_left() {
    let vhost = Broker::shared().await.vhost().await;
    vhost
        .declare_exchange("chat-sessions", "fanout", json!({}))
        .await;
    let bridge = BridgeBuilder::new(&vhost).build();
    let output = topology(&bridge, "apply", 1).await;
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    let line = "differs   exchange `chat-sessions` exists with other arguments and is left as it is: PRECONDITION_FAILED";
    assert!(out.contains(line), "{out}");
    assert!(
        out.contains("declared  queue `chat-sessions.unrouted`\n"),
        "{out}"
    );
    let why = "error: declaring the topology: 1 of 7 exist with other arguments";
    assert!(err.contains(why), "{err}");
    assert!(err.contains("try: `deskbridge check`"), "{err}");
    let found = vhost.describe("exchanges", "chat-sessions").await;
    assert_eq!(found["type"], "fanout");
}

async fn as_writer(vhost: &Vhost) -> Bridge {
    let user = format!("{}-writer", vhost.name);
    vhost.user(&user, "a-password").await;
    vhost.allow(&user, "^$", ".*", ".*").await;
    BridgeBuilder::at(&vhost.amqp_url_as(&user, "a-password")).build()
}

#[tokio::test(flavor = "multi_thread")]
async fn user_who_may_not_declare_is_told() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = as_writer(&vhost).await;
    let output = topology(&bridge, "apply", 1).await;
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    let line = "failed    exchange `chat-sessions` cannot be declared: ACCESS_REFUSED";
    assert!(out.contains(line), "{out}");
    assert!(err.contains("7 of 7 cannot be declared"), "{err}");
    let command = format!(
        "`rabbitmqctl set_permissions -p '{}' '{0}-writer'",
        vhost.name
    );
    assert!(err.contains(&command), "{err}");
    assert!(!err.contains("a-password") && !out.contains("a-password"));
    assert!(!vhost.has_exchange("chat-sessions").await);

    let owner = BridgeBuilder::new(&vhost).build();
    assert_eq!(applied(&owner, 0).await.len(), 7);
    let told = text(&topology(&bridge, "apply", 0).await.stdout);
    let line =
        "existed   exchange `chat-sessions`; its arguments were not compared: ACCESS_REFUSED";
    assert!(told.contains(line), "{told}");
}

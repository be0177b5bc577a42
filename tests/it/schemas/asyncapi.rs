//! `asyncapi`: the official parser accepts the document, it contains no password, and it describes
//! what is really published.

use serde_json::{Value, json};

use crate::support::bridge::builder::on_shared_broker;
use crate::support::consumer::Consumer;
use crate::support::message::Message;
use crate::support::sender::{array_of, session};
use crate::support::validator::{asyncapi, json_schema};

const CONFIG: &str = r#"
    [rabbitmq]
    urls = ["amqp://hidden-user:hidden-word@rabbit-1:5671/desk%2fchats", "amqps://hidden-user:hidden-word@[::1]/"]
    [routing.statuses.missed]
    exchange = "chat-alarms"
    routing_key = "{company}.{status}.{previous_status}"
    [routing.statuses."on hold"]
    routing_key = "held"
    [[queues]]
    name = "ticketing"
    keys = ["chat-session.missed", "chat-session.c*"]
    [[queues]]
    name = "alarms/all of them"
    exchange = "chat-alarms"
    keys = ["acme.*.#"]
    ttl = "1d"
"#;

fn printed(config: &str, arguments: &[&str]) -> std::process::Output {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("bridge.toml");
    std::fs::write(&file, config).unwrap();
    let mut command = assert_cmd::Command::cargo_bin("deskbridge").unwrap();
    let line = [&["asyncapi", "--config", file.to_str().unwrap()], arguments].concat();
    command.args(line).env_clear().output().unwrap()
}

fn document(config: &str) -> Value {
    let output = printed(config, &[]);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The validation errors of a message for the part of the document that the pointer names.
fn judge(document: &Value, part: &str, instance: &Value) -> Vec<String> {
    let mut schema = document.clone();
    schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    schema["allOf"] = json!([{ "$ref": format!("#{part}") }]);
    json_schema(&schema, std::slice::from_ref(instance)).remove(0)
}

fn is_as_described(document: &Value, name: &str, message: &Message) {
    let headers = judge(
        document,
        &format!("/components/messages/{name}/headers"),
        &json!(message.headers),
    );
    assert_eq!(headers, Vec::<String>::new(), "{:?}", message.headers);
    let payload = judge(
        document,
        &format!("/components/messages/{name}/payload"),
        &message.json(),
    );
    assert_eq!(payload, Vec::<String>::new(), "{}", message.text());
}

#[test]
fn document_is_valid_for_every_configuration() {
    let without_unrouted = "[unrouted]\nexchange = \"\"\n";
    let mut documents: Vec<_> = ["", without_unrouted, CONFIG].map(document).into();
    let mut broken = documents[0].clone();
    broken["operations"]["publish-session-missed"]["action"] = json!("shout");
    documents.push(broken);
    let mut errors = asyncapi(&documents);
    assert_ne!(errors.pop(), Some(Vec::new()), "the parser finds errors");
    assert_eq!(errors, [const { Vec::<String>::new() }; 3]);
}

#[test]
fn document_has_the_configuration_but_no_password() {
    let document = document(CONFIG);
    assert!(!document.to_string().contains("hidden-word"));
    assert!(!document.to_string().contains("hidden-user"));
    assert_eq!(document["servers"]["rabbitmq-1"]["host"], "rabbit-1:5671");
    assert_eq!(
        document["servers"]["rabbitmq-1"]["pathname"],
        "/desk%2fchats"
    );
    assert_eq!(document["servers"]["rabbitmq-2"]["host"], "[::1]:5671");
    assert_eq!(document["servers"]["rabbitmq-2"]["protocol"], "amqps");
    let missed = &document["channels"]["session-missed"];
    assert_eq!(missed["address"], "{company}.missed.{previous_status}");
    assert_eq!(
        missed["bindings"]["amqp"]["exchange"]["name"],
        "chat-alarms"
    );
    assert_eq!(
        missed["bindings"]["amqp"]["exchange"]["vhost"],
        "desk/chats"
    );
    assert_eq!(missed["parameters"].as_object().unwrap().len(), 2);
    assert_eq!(
        document["channels"]["session-unknown"]["address"],
        "chat-session.unknown"
    );
    let taken = |queue: &str| {
        let messages = document["channels"][queue]["messages"].as_object().unwrap();
        messages.keys().cloned().collect::<Vec<_>>()
    };
    // A `*` in a key matches exactly one word.
    assert!(taken("queue-ticketing").is_empty());
    assert_eq!(taken("queue-alarms-all-of-them"), ["missed"]);
    assert_eq!(taken("queue-chat-sessions-unrouted").len(), 7);
    assert_eq!(
        taken("queue-chat-sessions-dead-letter"),
        ["dead-letter", "given-up"]
    );
    let alarms = &document["channels"]["queue-alarms-all-of-them"];
    assert_eq!(alarms["x-arguments"]["x-message-ttl"], 86_400_000);
    assert_eq!(
        alarms["bindings"]["amqp"]["queue"]["name"],
        "alarms/all of them"
    );
}

#[test]
fn invalid_configuration_has_no_document() {
    let output = printed("[routing]\nrouting_key = \"{nobody}\"\n", &[]);
    assert_eq!(output.status.code(), Some(2));
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(complaint.contains("routing.routing_key"), "{complaint}");
    assert!(output.stdout.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn published_messages_match_the_document() {
    let (vhost, bridge) = on_shared_broker("").await;
    let output = bridge.run("asyncapi", &[]).await;
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    let odd = json!({"users": 7, "mood": "odd"});
    let sessions =
        ["created", "missed", "archived"].map(|status| session(status, status, odd.clone()));
    bridge.post(array_of(&sessions)).await;
    bridge.post("[{\"id\":\"no-status\"}]").await;
    for message in consumer.receive_n(3).await {
        // In this test the session id is the status.
        let id = message.correlation_id.as_deref().unwrap();
        let name = if id == "archived" { "unknown" } else { id };
        is_as_described(&document, name, &message);
        assert_eq!(
            document["components"]["messages"][name]["name"],
            *message.kind.as_ref().unwrap()
        );
        let channel = &document["channels"][format!("session-{name}")];
        assert_eq!(channel["address"], *message.routing_key);
        assert_eq!(
            channel["bindings"]["amqp"]["exchange"]["name"],
            *message.exchange
        );
    }
    let mut letters = Consumer::of(&vhost, "chat-sessions.dead-letter").await;
    let letter = letters.receive().await;
    is_as_described(&document, "dead-letter", &letter);
    // A message of another status does not match.
    let wrong = judge(
        &document,
        "/components/messages/missed/payload",
        &sessions[0],
    );
    assert_eq!(wrong.len(), 1, "{wrong:?}");
}

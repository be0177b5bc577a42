//! What the log and `/status` report about requests to a source.

use serde_json::{Value, json};

use super::{answer_to, bridge, request};
use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::proxy::Proxy;
use crate::support::sender::{SECRET, array_of, array_of_new, session};
use crate::support::wait::{SOON, eventually};

async fn source(bridge: &Bridge) -> Value {
    let status = bridge.status().await;
    let sources = status["sources"].as_array().unwrap();
    let ours = |source: &&Value| source["name"] == "deskdirector";
    sources.iter().find(ours).unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn log_distinguishes_missing_and_wrong_signatures() {
    let bridge = bridge()
        .with("sources.deskdirector.secrets = [\"the-first-secret-of-two\", \"the-second-secret-of-two\"]")
        .start()
        .await;
    let unsigned = bridge.post_with(&[], "[]").await.unwrap();
    let line = bridge.says("no signature header").await;
    assert!(line.contains("WARN") && line.contains("peer="), "{line}");
    let refused = source(&bridge).await["last_refused"].clone();
    assert_eq!(refused["reason"], "no signature header");
    assert_eq!(refused["code"], 401);

    let forged = bridge.post_signed_with("another secret", "[]").await;
    bridge.says("none of the 2 secrets matches").await;
    let refused = source(&bridge).await["last_refused"].clone();
    let reason = refused["reason"].as_str().unwrap();
    assert!(reason.starts_with("none of the 2 secrets"), "{reason}");

    // A monitor says nothing about the webhooks of the source.
    let probe = request("GET /webhooks/deskdirector", "");
    assert_eq!(answer_to(&bridge, probe).await.unwrap().status, 405);
    assert_eq!(source(&bridge).await["last_refused"], refused);
    let series = [("source", "deskdirector"), ("code", "405")];
    assert_eq!(
        bridge.metrics().await.sum_where("webhooks_total", &series),
        0.0
    );

    assert_eq!((unsigned.status, forged.status), (401, 401));
    assert_eq!(
        unsigned.body, forged.body,
        "the sender does not learn the reason"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_the_last_secret_and_its_time() {
    let builder = bridge();
    let file = builder.dir().join("rotated");
    std::fs::write(&file, "the-secret-after-the-rotation").unwrap();
    let missing = builder.dir().join("missing").display().to_string();
    let file = file.display().to_string();
    let bridge = builder
        .with("sources.deskdirector.await_secret = true")
        .with(&format!(
            "sources.deskdirector.secret_files = [{missing:?}, {file:?}]"
        ))
        .with("sources.quiet.secrets = [\"a-secret-that-signs-nothing\"]")
        .start()
        .await;
    let before = source(&bridge).await;
    let nothing = json!({
        "name": "deskdirector", "last_received": null, "last_secret": null, "kept_secrets": [], "last_refused": null,
    });
    assert_eq!(before, nothing);
    bridge.post("[]").await;
    bridge.says("first webhook from this source accepted").await;
    let first = source(&bridge).await;
    assert_eq!(first["last_secret"], "secrets[0]");
    assert!(first["last_received"].is_string(), "{first}");
    bridge
        .post_signed_with("the-secret-after-the-rotation", "[]")
        .await;
    assert_eq!(source(&bridge).await["last_secret"], file);
    let status = bridge.status().await.to_string();
    assert!(!status.contains(SECRET) && !status.contains("rotation\""));

    bridge.hang_up();
    bridge.says("configuration reloaded").await;
    assert_eq!(
        source(&bridge).await["last_secret"],
        file,
        "the last secret is remembered"
    );
    let log = bridge.stderr();
    assert_eq!(log.matches("first webhook from this source").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn webhook_without_session_has_a_probable_cause() {
    let bridge = bridge().start().await;
    let some = array_of(&[json!(7), session("1", "created", json!({}))]);
    assert_eq!(bridge.post(some).await.json()["accepted"], 1);
    assert_eq!(bridge.post("[]").await.status, 202);
    let log = bridge.stderr();
    assert!(!log.contains("has no valid session"), "{log}");
    let other_case = r#"[{"Id":"1","Status":"created"}]"#;
    assert_eq!(bridge.post(other_case).await.status, 202);
    let line = bridge.says("has no valid session").await;
    let cause = "`Id` instead of `id`";
    assert!(line.contains("WARN") && line.contains(cause), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn recovery_is_logged_without_a_webhook() {
    let vhost = Broker::shared().await.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    proxy.refuse();
    let bridge = BridgeBuilder::at(&vhost.amqp_url_through(proxy.address()))
        .with("http.body_bytes_max = \"64KiB\"\njournal.backlog_bytes_max = \"256KiB\"")
        .start()
        .await;
    eventually("the journal is full", SOON, || async {
        bridge.post(array_of_new("full", 50)).await.status == 503
    })
    .await;
    let refused = source(&bridge).await["last_refused"].clone();
    assert_eq!(refused["code"], 503, "{refused}");
    assert!(!bridge.stderr().contains("accepting webhooks again"));
    proxy.pass();
    let line = bridge.says("accepting webhooks again").await;
    assert!(line.contains("INFO"), "{line}");
    assert!(bridge.ready().await);
}

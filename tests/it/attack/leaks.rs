//! What must never come out: secrets anywhere, and what senders write in the log.

use serde_json::json;

use super::genuine::alone;
use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::http::get;
use crate::support::sender::{RawClient, SECRET, array_of, session};

const BROKER_PASSWORD: &str = "the-password-of-the-broker";
const FORGED_LINE: &str = "ERROR everything is lost";
const SAID: &str = "what the customer told the technician";

/// Everything hostile that can stand in a webhook, posted and refused in every way there is.
async fn provoke(bridge: &Bridge) {
    let odd = format!("\r\n{FORGED_LINE}\r\n\u{1b}[31mred\u{1b}]0;title\u{7}\u{2028}\u{0}");
    let long = format!("{odd}{}", "x".repeat(1 << 20));
    let note = json!({ "note": SAID });
    let bodies = [
        array_of(&[session("plain", "created", note.clone())]),
        array_of(&[session(&odd, &odd, note.clone())]),
        array_of(&[session(&long, "created", note.clone())]),
        array_of(&[
            json!({ &*odd: odd, "id": odd, "note": SAID }),
            json!(odd),
            json!(SAID),
        ]),
        format!("[{SAID}\r\n{FORGED_LINE}").into_bytes(),
    ];
    for body in &bodies {
        assert_eq!(bridge.post(body).await.status, 202);
        let refused = bridge
            .post_signed_with("not the secret of anybody", body)
            .await;
        assert_eq!(refused.status, 401);
        assert!(!refused.text().contains(SECRET));
    }
    for request in [
        "POST /webhooks/\x1b[31mred HTTP/1.1\r\nhost: b\r\n\r\n".to_owned(),
        format!(
            "POST /webhooks/%0d%0a{}%1b[31m HTTP/1.1\r\nhost: b\r\n\r\n",
            FORGED_LINE.replace(' ', "%20")
        ),
        format!("POST /webhooks/deskdirector HTTP/1.1\r\nhost: b\r\nx-dd-signature: {odd}\r\n\r\n"),
        format!(
            "POST /webhooks/deskdirector HTTP/1.1\r\nhost: b\r\ncontent-encoding: \x1b[31m{SAID}\r\n\r\n"
        ),
    ] {
        let mut client = RawClient::connect(bridge.address()).await;
        client.write(request).await;
        client.finish().await;
        client.read_to_end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_sender_writes_can_forge_a_log_line_or_stand_in_one() {
    for format in ["text", "json"] {
        let bridge = alone()
            .with(&format!(
                "telemetry.log_level = \"debug\"\ntelemetry.log_format = \"{format}\""
            ))
            .start()
            .await;
        provoke(&bridge).await;
        bridge.says("webhook held").await;
        bridge.says("webhook refused").await;
        let log = bridge.stderr();
        for line in log.lines() {
            assert!(!line.starts_with(FORGED_LINE), "{line}");
            assert!(line.len() < 4096, "{} bytes in one line", line.len());
            let is_control = |char: char| char.is_control() && char != '\t';
            assert!(!line.contains(is_control), "{line:?}");
        }
        assert!(!log.contains(SAID), "what a session says is in the log");
        assert!(!log.contains(SECRET));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_in_no_log_answer_metric_status_or_command() {
    let nobody = crate::support::bridge::builder::free_address();
    let url = format!("amqp://bridge:{BROKER_PASSWORD}@{nobody}/");
    let mut bridge = BridgeBuilder::at(&url).start().await;
    provoke(&bridge).await;
    bridge.hang_up();
    bridge.says("reload").await;
    let mut said = vec![("the log".to_owned(), bridge.stderr())];
    for path in ["/livez", "/readyz", "/status", "/metrics", "/nothing"] {
        let answer = get(bridge.admin_address(), path).await.unwrap();
        said.push((path.into(), answer.text()));
    }
    for (command, arguments) in [
        ("config", &["show"][..]),
        ("config", &["show", "--json"]),
        ("check", &[]),
        ("events", &["list", "--json"]),
        ("help", &[]),
        ("serve", &["--help"]),
        ("send", &["--help"]),
    ] {
        let output = bridge.run(command, arguments).await;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(!text.is_empty(), "{command} says nothing");
        said.push((format!("{command} {arguments:?}"), text));
    }
    // A configuration that is wrong beside the secret.
    bridge.terminate().await;
    bridge.reconfigure("http.body_bytes_max = \"much\"\nsources.deskdirector.secret = 5");
    let exit = bridge.run_to_exit().await;
    assert_ne!(exit.status.code(), Some(0));
    said.push(("a wrong configuration".into(), bridge.stderr()));
    for (place, text) in said {
        for secret in [SECRET, BROKER_PASSWORD] {
            assert!(!text.contains(secret), "`{secret}` is in {place}: {text}");
        }
    }
}

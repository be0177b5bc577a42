//! The text of senders forges no line of the log.

use serde_json::json;

use super::genuine_sender::alone;
use crate::support::bridge::run::Bridge;
use crate::support::sender::{RawClient, SECRET, array_of, session};

const FORGED_LINE: &str = "ERROR everything is lost";
const SAID: &str = "what the customer told the technician";

/// Posts hostile content in all parts of a webhook, and provokes every kind of refusal.
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
        "POST /webhooks/\u{202e}\u{2028} HTTP/1.1\r\nhost: b\r\n\r\n".to_owned(),
        "POST /nowhere HTTP/1.1\r\nhost: b\r\nx-forwarded-for: \u{202e}\u{9b}1m\r\n\r\n".to_owned(),
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
async fn sender_text_cannot_forge_log_lines() {
    for format in ["text", "json"] {
        let bridge = alone()
            .with(&format!(
                "telemetry.log_level = \"debug\"\ntelemetry.log_format = \"{format}\""
            ))
            .start()
            .await;
        provoke(&bridge).await;
        bridge.says("webhook accepted").await;
        bridge.says("webhook refused").await;
        let log = bridge.stderr();
        for line in log.lines() {
            assert!(!line.starts_with(FORGED_LINE), "{line}");
            assert!(line.len() < 4096, "{} bytes in one line", line.len());
            let is_control = |char: char| {
                char.is_control() && char != '\t' || ['\u{202e}', '\u{2028}'].contains(&char)
            };
            assert!(!line.contains(is_control), "{line:?}");
        }
        assert!(!log.contains(SAID), "text of a session is in the log");
        assert!(!log.contains(SECRET));
    }
}

//! Odd but valid sessions, sent through the real broker: everything that can be published arrives
//! byte for byte, everything else becomes a dead letter, and the events next to either arrive.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::bridge::builder::on_shared_broker;
use crate::support::consumer::Consumer;
use crate::support::wait::SOON;

/// One element with these members in addition to `id` and `status`.
fn element(id: &str, status: &str, more: &str) -> String {
    format!(r#"{{ "id":"{id}" ,"status":"{status}"{more} }}"#)
}

/// Elements that must be published, and their routed statuses.
fn odd_and_valid() -> Vec<(String, &'static str)> {
    let deep = |levels: usize| format!(r#","n":{}{}"#, "[".repeat(levels), "]".repeat(levels));
    let status = "s".repeat(200 << 10);
    let mut odd = vec![
        (element("status-of-200-kb", &status, ""), "unknown"),
        (element("half-a-pair", "\\ud800", ""), "unknown"),
        (
            element(
                "half-a-pair-passed",
                "created",
                r#","n":"\ud800\udfff \udc00","type":"\udbff""#,
            ),
            "created",
        ),
        (element("other-case", "Created", ""), "unknown"),
        (element("archived", "archived", ""), "unknown"),
        (element("escaped", "\\u0063reated", ""), "created"),
        (element("no-status-text", "", ""), "unknown"),
        (element("wildcards", "#.*\\u0000", ""), "unknown"),
        (element(&"i".repeat(255), "created", ""), "created"),
        (
            element(
                "numbers",
                "missed",
                r#","a":1e999,"b":-0,"c":10000000000000000999,"d":1.000000000000000005,"e":-1E-400"#,
            ),
            "missed",
        ),
        (
            element(
                "controls",
                "missed",
                "\t,\"n\":\"\\u0000\\u0007\u{7f}\u{2028}\u{2029}\u{feff}\"\r\n",
            ),
            "missed",
        ),
        (
            element(
                "framing",
                "missed",
                ",\"n\":\"AMQP\\u0000\\u0000\\u0009\\u0001\u{ce}SQLite format 3\\u0000\u{ce}\"",
            ),
            "missed",
        ),
        (
            element("as-deep-as-allowed", "missed", &deep(127)),
            "missed",
        ),
        (
            element(
                "two-of-another-field",
                "missed",
                r#","type":"a","type":"b","n":1,"n":2"#,
            ),
            "missed",
        ),
    ];
    let types = r#","type":null,"pastStatus":{"a":1},"creator":[[]]"#;
    odd.push((element("odd-shapes", "missed", types), "missed"));
    odd
}

/// Elements that must become dead letters.
fn invalid() -> Vec<String> {
    let too_deep = format!(r#","n":{}{}"#, "[".repeat(128), "]".repeat(128));
    let mut invalid = vec![
        element(&"i".repeat(256), "created", ""),
        element(&"i".repeat(10_000_000), "created", ""),
        element("", "created", ""),
        element("\\udc00", "created", ""),
        element("twice", "created", r#","id":"twice""#),
        element("twice", "created", r#","\u0073tatus":"created""#),
        element("deep", "created", &too_deep),
    ];
    let texts = [
        r#"{"id":1,"status":"created"}"#,
        r#"{"status":"created"}"#,
        "null",
        "7",
        "[]",
        "\"text\"",
        "{}",
        "true",
        r#"{"id":"1","status":null}"#,
    ];
    invalid.extend(texts.map(str::to_owned));
    invalid
}

#[tokio::test(flavor = "multi_thread")]
async fn unusual_sessions_arrive_and_invalid_do_not() {
    let (vhost, bridge) = on_shared_broker("").await;
    let mut everything = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    let mut letters = Consumer::of(&vhost, "chat-sessions.dead-letter").await;
    let (odd, invalid) = (odd_and_valid(), invalid());
    // Interleaved, so that each element has a neighbour of the other kind.
    let longest = odd.len().max(invalid.len());
    let turns =
        (0..longest).flat_map(|at| [odd.get(at).map(|(element, _)| element), invalid.get(at)]);
    let elements: Vec<_> = turns.flatten().cloned().collect();
    let answer = bridge
        .post(format!("[{}]", elements.join(" ,\n")))
        .await
        .json();
    assert_eq!(answer["accepted"], odd.len(), "{answer}");
    assert_eq!(answer["dead_lettered"], invalid.len(), "{answer}");

    let arrived = everything.receive_n(odd.len()).await;
    for (element, routed) in &odd {
        let message = arrived
            .iter()
            .find(|message| message.body == element.as_bytes());
        let message = message.unwrap_or_else(|| panic!("not byte for byte: {element:.200}"));
        assert_eq!(message.routing_key, format!("chat-session.{routed}"));
        let status = message.header("status").as_str().unwrap();
        assert!(status.len() <= 255, "{} bytes of status", status.len());
    }
    let half = arrived
        .iter()
        .find(|message| message.correlation_id.as_deref() == Some("half-a-pair"));
    assert_eq!(half.unwrap().header("status"), "\u{fffd}");
    let letters = letters.receive_n_within(invalid.len(), 3 * SOON).await;
    for element in &invalid {
        let letter = letters
            .iter()
            .find(|letter| letter.body == element.as_bytes());
        let letter = letter.unwrap_or_else(|| panic!("no dead letter: {element:.200}"));
        assert_eq!(letter.header("dead-letter-reason"), "invalid");
    }
    let most = bridge.rss_bytes_max();
    assert!(most <= 64 << 20, "{most} bytes");
}

/// Prints which of the files Python parses as a JSON array or object. Its extensions to RFC 8259
/// are disabled.
const PYTHON: &str = r"
import json, sys
def no(_): raise ValueError
for path in sys.stdin.read().split('\n'):
    try:
        text = open(path, 'rb').read().decode('utf-8')
        text = text[1:] if text.startswith('\ufeff') else text
        value = json.loads(text, parse_constant=no, parse_int=str, parse_float=str,
                           object_pairs_hook=dict)
        print(int(isinstance(value, (list, dict))))
    except (ValueError, RecursionError):
        print(0)
";

#[test]
fn bridge_and_python_agree_on_malformed_json() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/split");
    let files = std::fs::read_dir(dir).unwrap();
    let paths: Vec<_> = files
        .map(|file| file.unwrap().path().display().to_string())
        .collect();
    let python = Command::new("python3")
        .args(["-c", PYTHON])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut python) = python else {
        let test = "bridge_and_python_agree_on_malformed_json";
        return println!("SKIPPED {test}: there is no python3");
    };
    let mut stdin = python.stdin.take().unwrap();
    stdin.write_all(paths.join("\n").as_bytes()).unwrap();
    drop(stdin);
    let output = python.wait_with_output().unwrap();
    let verdicts = String::from_utf8(output.stdout).unwrap();
    let mut counts = [0, 0];
    for (path, verdict) in paths.iter().zip(verdicts.lines()) {
        let body = std::fs::read(path).unwrap();
        let webhook = crate::fuzz::checks::split::webhook(&body, 100).unwrap();
        let is_body = webhook.malformed().is_none();
        assert_eq!(is_body, verdict == "1", "{path}");
        counts[usize::from(is_body)] += 1;
    }
    assert!(
        counts.iter().all(|count| *count > 50),
        "{counts:?} of {}",
        paths.len()
    );
}

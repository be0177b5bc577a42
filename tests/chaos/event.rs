//! The content of every event: a pure function of seed, session and number, so that the sent bytes
//! of any message can be computed again for comparison. Knows no network.

use std::fmt::Write;

use ring::digest::{SHA256, digest};
use uuid::Uuid;

use crate::random::mix;

/// The source that all webhooks are posted to.
pub const SOURCE: &str = "deskdirector";

/// Sessions from this number on are in requests that were never sent completely.
pub const INCOMPLETE: u32 = 1 << 30;
/// Sessions from this number on are in requests without a valid signature.
pub const FORGED: u32 = 1 << 31;

/// The prefix of `id` in every forged request.
pub const FORGED_MARK: &str = "forged-by-nobody";

/// The exchanges. `bare` has no alternate exchange, so its unroutable messages are returned.
pub const EXCHANGES: [&str; 4] = ["chat-sessions", "agents", "alarms", "bare"];

const STATUSES: [&str; 6] = [
    "created",
    "handled",
    "missed",
    "completed",
    "callback",
    "archived",
];

/// One event of one session; the events of a session are numbered from 1 without gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Event {
    pub session: u32,
    pub seq: u32,
}

/// The events of one seed.
#[derive(Debug, Clone, Copy)]
pub struct Script {
    pub seed: u64,
}

impl Script {
    /// The bytes of an event as they are in the webhook.
    pub fn body(self, event: Event) -> Vec<u8> {
        let dice = self.dice(event);
        // White space, escapes, key order and spellings of numbers that a parser would not
        // preserve.
        let mut body = format!(
            r#"{{"id":"{}","name":"{}:{dice:016x}", "status" :"{}","type":"request","score":1.50e+{},"note":"caf\u00e9 \ud83d\ude00 é","#,
            self.session_id(event.session),
            event.seq,
            status(dice),
            dice % 7,
        );
        let padding = match dice >> 8 & 0x3f {
            0 => 2000 + (dice >> 16 & 0xfff),
            low => low * 6,
        };
        body.push_str(r#""text":""#);
        let mut word = dice;
        while body.len() < usize::try_from(padding).expect("small") {
            word = mix(word);
            let _ = write!(body, "{word:x} ");
        }
        let _ = write!(
            body,
            r#"","lastModifiedDateTime":"2026-02-03T04:05:{:02}.{:07}Z"}}"#,
            event.seq % 60,
            dice % 10_000_000
        );
        body.into_bytes()
    }

    /// The event that these bytes claim to be.
    pub fn read(self, body: &[u8]) -> Option<Event> {
        let text = str::from_utf8(body).ok()?;
        let rest = text.strip_prefix(r#"{"id":""#)?;
        let (id, rest) = rest.split_once('"')?;
        let rest = rest.strip_prefix(r#","name":""#)?;
        let (seq, _) = rest.split_once(':')?;
        let session = id.rsplit('-').next()?.parse().ok()?;
        (id == self.session_id(session)).then_some(())?;
        let seq = seq.parse().ok()?;
        Some(Event { session, seq })
    }

    pub fn session_id(self, session: u32) -> String {
        let seed = self.seed;
        if session >= FORGED {
            format!("{FORGED_MARK}-{seed}-{session}")
        } else {
            format!("chaos-{seed}-{session}")
        }
    }

    pub fn status(self, event: Event) -> &'static str {
        status(self.dice(event))
    }

    fn dice(self, event: Event) -> u64 {
        let position = u64::from(event.session) << 32 | u64::from(event.seq);
        mix(mix(self.seed) ^ position)
    }
}

fn status(dice: u64) -> &'static str {
    STATUSES[usize::try_from(dice >> 40).expect("64 bits") % STATUSES.len()]
}

/// The status with which it is routed.
pub fn routed(status: &str) -> &str {
    if status == "archived" {
        "unknown"
    } else {
        status
    }
}

/// The exchange for events with this status; [`ROUTES`] configures the bridge accordingly.
pub fn exchange_of(status: &str) -> &'static str {
    match status {
        "handled" => "agents",
        "missed" => "alarms",
        "callback" => "bare",
        _ => "chat-sessions",
    }
}

/// The routes in the bridge's configuration.
pub const ROUTES: &str = "
    handled = {exchange = 'agents', routing_key = 'agents.{status}'}
    missed = {exchange = 'alarms', routing_key = 'alarms.{status}'}
    callback = {exchange = 'bare', routing_key = 'bare.{status}'}";

/// The routing key of events with this status.
pub fn routing_key_of(status: &str) -> String {
    let prefix = match exchange_of(status) {
        "chat-sessions" => "chat-session",
        other => other,
    };
    format!("{prefix}.{}", routed(status))
}

/// The documented `message_id` (docs/consuming.md), computed without the bridge's code.
pub fn message_id(session_id: &str, body: &[u8]) -> Uuid {
    let mut bytes = Vec::new();
    for part in [SOURCE, session_id] {
        let length = u32::try_from(part.len()).expect("a short text");
        bytes.extend(length.to_be_bytes());
        bytes.extend(part.as_bytes());
    }
    bytes.extend(body);
    let mut first = [0; 16];
    first.copy_from_slice(&digest(&SHA256, &bytes).as_ref()[..16]);
    Uuid::new_v8(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: Script = Script { seed: 7 };

    #[test]
    fn events_are_json_and_identify_themselves() {
        for session in [0, 1, 99, INCOMPLETE + 3, FORGED + 5] {
            for seq in 1..200 {
                let event = Event { session, seq };
                let body = SCRIPT.body(event);
                let read: serde_json::Value = serde_json::from_slice(&body).unwrap();
                assert_eq!(read["status"], SCRIPT.status(event));
                assert_eq!(read["id"], SCRIPT.session_id(session));
                assert_eq!(SCRIPT.read(&body), Some(event));
                assert_eq!(SCRIPT.body(event), body, "the same at every call");
            }
        }
    }

    #[test]
    fn events_of_another_seed_are_not_recognised() {
        let other = Script { seed: 8 };
        let body = other.body(Event { session: 1, seq: 1 });
        assert_eq!(SCRIPT.read(&body), None);
    }
}

//! What every event looks like: a pure function of seed, session and number, so that whoever sees
//! a message can compute again what was sent, byte for byte. Knows no network.

use std::fmt::Write;

use aws_lc_rs::digest::{SHA256, digest};
use uuid::Uuid;

use crate::random::mix;

/// The source that all webhooks are posted to.
pub const SOURCE: &str = "deskdirector";

/// Sessions from here on are in requests that were never sent whole.
pub const INCOMPLETE: u32 = 1 << 30;
/// Sessions from here on are in requests that were not signed as they must be.
pub const FORGED: u32 = 1 << 31;

/// What `id` begins with in every forged request.
pub const FORGED_MARK: &str = "forged-by-nobody";

/// Exchanges; `bare` has no alternate exchange, so what it cannot route comes back.
pub const EXCHANGES: [&str; 4] = ["chat-sessions", "agents", "alarms", "bare"];

const STATUSES: [&str; 6] = [
    "created",
    "handled",
    "missed",
    "completed",
    "callback",
    "archived",
];

/// One state of one session, numbered from 1 without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Event {
    pub session: u32,
    pub seq: u32,
}

/// What all events of a seed look like.
#[derive(Debug, Clone, Copy)]
pub struct Script {
    pub seed: u64,
}

impl Script {
    /// The bytes of an event as they stand in the webhook.
    pub fn body(self, event: Event) -> Vec<u8> {
        let dice = self.dice(event);
        // White space, escapes, key order and number spellings that a parser would not keep.
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

    /// Which event these bytes claim to be.
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

/// The status it is routed as.
pub fn routed(status: &str) -> &str {
    if status == "archived" {
        "unknown"
    } else {
        status
    }
}

/// Where events of that status go; [`ROUTES`] says the same to the bridge.
pub fn exchange_of(status: &str) -> &'static str {
    match status {
        "handled" => "agents",
        "missed" => "alarms",
        "callback" => "bare",
        _ => "chat-sessions",
    }
}

/// The routes as the bridge is told them.
pub const ROUTES: &str = "
    handled = {exchange = 'agents', routing_key = 'agents.{status}'}
    missed = {exchange = 'alarms', routing_key = 'alarms.{status}'}
    callback = {exchange = 'bare', routing_key = 'bare.{status}'}";

/// The key they are published with.
pub fn routing_key_of(status: &str) -> String {
    let prefix = match exchange_of(status) {
        "chat-sessions" => "chat-session",
        other => other,
    };
    format!("{prefix}.{}", routed(status))
}

/// The `message_id` that the README promises, computed without the bridge's code.
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
    fn every_event_is_json_and_says_which_one_it_is() {
        for session in [0, 1, 99, INCOMPLETE + 3, FORGED + 5] {
            for seq in 1..200 {
                let event = Event { session, seq };
                let body = SCRIPT.body(event);
                let read: serde_json::Value = serde_json::from_slice(&body).unwrap();
                assert_eq!(read["status"], SCRIPT.status(event));
                assert_eq!(read["id"], SCRIPT.session_id(session));
                assert_eq!(SCRIPT.read(&body), Some(event));
                assert_eq!(SCRIPT.body(event), body, "the same at any time");
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

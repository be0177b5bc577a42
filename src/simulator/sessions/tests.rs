use std::collections::BTreeMap;

use super::*;

fn sessions(seed: u64, alive: u64, share: (u64, u64)) -> Sessions {
    Sessions::new(seed, "2026-03-01T08:00:00Z".parse().unwrap(), alive, share)
}

fn events(body: &[u8]) -> Vec<ChatSession> {
    serde_json::from_slice(body).unwrap()
}

#[test]
fn sessions_start_created_and_keep_their_history() {
    let mut sessions = sessions(1, 5, (0, 1));
    let mut lives: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut clock = String::new();
    for _ in 0..500 {
        let (kind, body) = sessions.webhook(1);
        let event = events(&body).pop().unwrap();
        let life = lives.entry(event.id.get().unwrap().clone()).or_default();
        let past = event.past_status.get().unwrap().iter();
        let past: Vec<String> = past
            .map(|status| status.get().unwrap().to_string())
            .collect();
        assert_eq!(past, *life);
        assert_eq!(kind == WebhookKind::New, life.is_empty());
        life.push(event.status.get().unwrap().to_string());
        let time = event.last_modified_date_time.get().unwrap();
        assert!(*time > clock, "{time} after {clock}");
        clock.clone_from(time);
    }
    assert!(lives.values().all(|life| life[0] == "created"));
    let ended =
        |life: &Vec<String>| ["completed", "missed"].contains(&life.last().unwrap().as_str());
    assert!(lives.values().filter(|life| !ended(life)).count() <= 5);
    for status in ["created", "handled", "missed", "completed", "callback"] {
        let is_there = |life: &Vec<String>| life.iter().any(|step| step == status);
        assert!(lives.values().any(is_there), "no {status}");
    }
}

#[test]
fn seed_determines_sessions_and_shares_are_disjoint() {
    let body = |seed, share| sessions(seed, 3, share).webhook(50);
    assert_eq!(body(7, (0, 2)), body(7, (0, 2)));
    assert_ne!(body(7, (0, 2)), body(8, (0, 2)));
    let ids = |share| -> Vec<String> {
        let events = events(&body(7, share).1);
        let ids = events.iter().map(|event| event.id.get().unwrap().clone());
        ids.collect()
    };
    let (one, other) = (ids((0, 2)), ids((1, 2)));
    assert!(one.iter().all(|id| !other.contains(id)));
}

#[test]
fn times_have_the_format_of_the_sender() {
    let time: Timestamp = "2018-06-28T05:18:26.9468948Z".parse().unwrap();
    assert_eq!(written(time), "2018-06-28T05:18:26.9468948Z");
    assert_eq!(
        written("2018-06-28T05:18:26Z".parse().unwrap()),
        "2018-06-28T05:18:26.0000000Z"
    );
}

//! What becomes of a message that died in a consumers' queue: again after the delay, or a dead
//! letter. Pure.
//!
//! Attempts are counted in a header of our own, and the broker's `x-death` is taken off for the
//! next round and put back at the end: 4.x does not count on in one that a client publishes, and 3.x
//! does. With a circle of the broker's own, a message that expired or crashed its consumer was gone
//! after one round (3.10.8 and 4.0.5, dead-lettered at least once), and a rejected one went for ever.

use jiff::Timestamp;
use lapin::types::{AMQPValue, FieldArray, FieldTable, ShortString};

use super::super::topology::Delayed;

/// Rejections so far; what consumers see at the second try and later.
const ATTEMPTS: &str = "retry-attempts";
/// The deaths of earlier rounds, latest first, in the shape of `x-death`.
const HISTORY: &str = "retry-history";
/// Where and how it died first: the broker's own `x-first-death-` would tell of the last round.
const FIRST_DEATH: &str = "retry-first-death";
const ORIGINAL_EXCHANGE: &str = "original-exchange";
const ORIGINAL_KEY: &str = "original-routing-key";
const DEATHS: &str = "x-death";
const FIRST: &str = "x-first-death-";
/// What the broker writes about deaths and deliveries.
const OF_BROKER: [&str; 4] = [DEATHS, FIRST, "x-last-death-", "x-delivery-count"];
/// Headers by which a publisher has the broker route a message to further queues: whoever may publish
/// into a consumers' queue would do so with the bridge's permissions.
const OF_SENDER: [&str; 2] = ["CC", "BCC"];
const REJECTED: &str = "rejected";

/// Where a message goes, and with which headers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Verdict {
    pub(super) exchange: String,
    pub(super) key: String,
    pub(super) headers: FieldTable,
}

/// Judges a message by the headers it has in `<queue>.rejected`, and the key it came with.
pub(super) fn judge(queue: &Delayed, headers: &FieldTable, key: &str, now: Timestamp) -> Verdict {
    let deaths = tables(headers, DEATHS);
    let last = deaths
        .iter()
        .find(|death| text(death, "queue").as_deref() == Some(queue.queue.as_str()));
    let reason = last.and_then(|death| text(death, "reason"));
    let reason = reason.unwrap_or_else(|| REJECTED.to_owned());
    let before = headers.inner().get(ATTEMPTS).and_then(integer);
    // A publisher may have forged it.
    let before = before.map(|attempts| attempts.max(0));
    let attempts = before.unwrap_or(0).saturating_add(1);
    let original = original(headers, last, before.is_some(), key);
    let first = first_death(headers, before.is_some(), &deaths);
    let history = merged(deaths.into_iter().chain(tables(headers, HISTORY)));
    let mut left = kept(headers);
    insert(&mut left, ORIGINAL_EXCHANGE, string(&original.0));
    insert(&mut left, ORIGINAL_KEY, string(&original.1));
    if reason == REJECTED && attempts < i64::from(queue.attempts_max) {
        insert(&mut left, ATTEMPTS, AMQPValue::LongLongInt(attempts));
        insert(&mut left, HISTORY, array(history));
        insert(&mut left, FIRST_DEATH, AMQPValue::FieldTable(first));
        return Verdict {
            exchange: queue.retry.clone(),
            key: key.to_owned(),
            headers: left,
        };
    }
    let tries = match (reason.as_str(), attempts) {
        (REJECTED, 1) => "rejected once".to_owned(),
        (REJECTED, times) => format!("rejected {times} times"),
        (other, times) => format!("{other} at try {times}"),
    };
    let detail = format!("{tries} in queue `{}`", queue.queue);
    for (name, value) in [
        ("dead-letter-reason", reason.as_str()),
        ("dead-letter-detail", &detail),
        ("dead-letter-at", &now.to_string()),
    ] {
        insert(&mut left, name, string(value));
    }
    insert(&mut left, "attempts", AMQPValue::LongLongInt(attempts));
    for (part, value) in &first {
        insert(&mut left, &format!("{FIRST}{part}"), value.clone());
    }
    insert(&mut left, DEATHS, array(history));
    Verdict {
        exchange: queue.dead_letter.clone(),
        key: original.1,
        headers: left,
    }
}

/// Exchange and key before the first death.
fn original(
    headers: &FieldTable,
    last: Option<&FieldTable>,
    is_known: bool,
    key: &str,
) -> (String, String) {
    let own = |name| text(headers, name).filter(|_| is_known);
    let exchange = own(ORIGINAL_EXCHANGE).or_else(|| text(last?, "exchange"));
    let routing_key = own(ORIGINAL_KEY).or_else(|| {
        let keys = last?.inner().get("routing-keys")?;
        match keys {
            AMQPValue::FieldArray(keys) => keys.as_slice().first().and_then(as_text),
            _ => None,
        }
    });
    (
        exchange.unwrap_or_default(),
        routing_key.unwrap_or_else(|| key.to_owned()),
    )
}

/// Queue, reason and exchange of its first death, under these names.
fn first_death(headers: &FieldTable, is_known: bool, deaths: &[FieldTable]) -> FieldTable {
    if let (true, Some(AMQPValue::FieldTable(first))) = (is_known, headers.inner().get(FIRST_DEATH))
    {
        return first.clone();
    }
    let mut first = FieldTable::default();
    for part in ["queue", "reason", "exchange"] {
        let said = text(headers, &format!("{FIRST}{part}"));
        if let Some(value) = said.or_else(|| text(deaths.last()?, part)) {
            insert(&mut first, part, string(&value));
        }
    }
    first
}

/// Without what the broker and we ourselves added in earlier rounds.
fn kept(headers: &FieldTable) -> FieldTable {
    let mut left = FieldTable::default();
    for (name, value) in headers {
        let is_brokers = OF_BROKER
            .iter()
            .any(|known| name.as_str().starts_with(known));
        let is_ours = [ATTEMPTS, HISTORY, FIRST_DEATH].contains(&name.as_str());
        if !is_brokers && !is_ours && !OF_SENDER.contains(&name.as_str()) {
            left.insert(name.clone(), value.clone());
        }
    }
    left
}

/// One entry for each queue and reason, as the broker has it: how often, and what was the first.
fn merged(deaths: impl Iterator<Item = FieldTable>) -> Vec<FieldTable> {
    let mut all: Vec<FieldTable> = Vec::new();
    for mut death in deaths {
        let of = |death: &FieldTable| (text(death, "queue"), text(death, "reason"));
        match all.iter_mut().find(|later| of(later) == of(&death)) {
            Some(later) => {
                let count = count(later).saturating_add(count(&death));
                insert(&mut death, "count", AMQPValue::LongLongInt(count));
                *later = death;
            }
            None => all.push(death),
        }
    }
    all
}

fn count(death: &FieldTable) -> i64 {
    death.inner().get("count").and_then(integer).unwrap_or(1)
}

fn tables(headers: &FieldTable, name: &str) -> Vec<FieldTable> {
    let Some(AMQPValue::FieldArray(array)) = headers.inner().get(name) else {
        return Vec::new();
    };
    let table = |value: &AMQPValue| match value {
        AMQPValue::FieldTable(table) => Some(table.clone()),
        _ => None,
    };
    array.as_slice().iter().filter_map(table).collect()
}

fn array(tables: Vec<FieldTable>) -> AMQPValue {
    let values: Vec<_> = tables.into_iter().map(AMQPValue::FieldTable).collect();
    AMQPValue::FieldArray(FieldArray::from(values))
}

fn insert(headers: &mut FieldTable, name: &str, value: AMQPValue) {
    let name = ShortString::try_new(name).expect("our headers have short names");
    headers.insert(name, value);
}

fn string(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

fn text(table: &FieldTable, name: &str) -> Option<String> {
    table.inner().get(name).and_then(as_text)
}

fn as_text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

fn integer(value: &AMQPValue) -> Option<i64> {
    match value {
        AMQPValue::LongLongInt(number) => Some(*number),
        AMQPValue::LongInt(number) => Some((*number).into()),
        AMQPValue::LongUInt(number) => Some((*number).into()),
        AMQPValue::ShortInt(number) => Some((*number).into()),
        AMQPValue::ShortShortInt(number) => Some((*number).into()),
        AMQPValue::Timestamp(number) => i64::try_from(*number).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crm() -> Delayed {
        Delayed {
            queue: "crm".into(),
            rejected: "crm.rejected".into(),
            retry: "crm.retry".into(),
            retried: "crm.retried".into(),
            attempts_max: 3,
            dead_letter: "dead".into(),
        }
    }

    fn death(queue: &str, reason: &str, exchange: &str) -> FieldTable {
        let mut table = FieldTable::default();
        for (name, value) in [("queue", queue), ("reason", reason), ("exchange", exchange)] {
            insert(&mut table, name, string(value));
        }
        insert(&mut table, "count", AMQPValue::LongLongInt(1));
        let keys = FieldArray::from(vec![string("chat-session.missed")]);
        insert(&mut table, "routing-keys", AMQPValue::FieldArray(keys));
        table
    }

    fn dying(verdict: Option<Verdict>, deaths: Vec<FieldTable>) -> Verdict {
        let mut headers = verdict.map_or_else(FieldTable::default, |verdict| verdict.headers);
        insert(&mut headers, "source", string("acme"));
        insert(&mut headers, "x-delivery-count", AMQPValue::LongLongInt(1));
        insert(&mut headers, DEATHS, array(deaths));
        judge(
            &crm(),
            &headers,
            "chat-session.missed",
            Timestamp::UNIX_EPOCH,
        )
    }

    #[test]
    fn forged_headers_neither_route_nor_prolong() {
        let mut forged = dying(None, vec![death("crm", "rejected", "chat-sessions")]);
        insert(
            &mut forged.headers,
            ATTEMPTS,
            AMQPValue::LongLongInt(i64::MIN),
        );
        for name in OF_SENDER {
            let queues = FieldArray::from(vec![string("payroll")]);
            insert(&mut forged.headers, name, AMQPValue::FieldArray(queues));
        }
        let next = dying(Some(forged), vec![death("crm", "rejected", "crm.retried")]);
        let headers = next.headers.inner();
        assert_eq!(headers.get(ATTEMPTS), Some(&AMQPValue::LongLongInt(1)));
        assert!(OF_SENDER.iter().all(|name| !headers.contains_key(*name)));
    }

    #[test]
    fn a_message_comes_again_until_it_was_rejected_too_often_and_then_has_its_history() {
        let mut last = dying(None, vec![death("crm", "rejected", "chat-sessions")]);
        for attempt in 1..3 {
            assert_eq!(
                (&*last.exchange, &*last.key),
                ("crm.retry", "chat-session.missed")
            );
            let headers = last.headers.inner();
            assert_eq!(
                headers.get(ATTEMPTS),
                Some(&AMQPValue::LongLongInt(attempt))
            );
            assert!(!headers.contains_key(DEATHS) && !headers.contains_key("x-delivery-count"));
            let round = vec![
                death("crm", "rejected", "crm.retried"),
                death("crm.retry", "expired", "crm.retry"),
            ];
            last = dying(Some(last), round);
        }
        assert_eq!(
            (&*last.exchange, &*last.key),
            ("dead", "chat-session.missed")
        );
        let said = |name| text(&last.headers, name).unwrap_or_default();
        assert_eq!(said("dead-letter-reason"), "rejected");
        assert_eq!(
            said("dead-letter-detail"),
            "rejected 3 times in queue `crm`"
        );
        assert_eq!(said("original-exchange"), "chat-sessions");
        assert_eq!(said("source"), "acme");
        assert_eq!(said("x-first-death-exchange"), "chat-sessions");
        assert_eq!(
            last.headers.inner().get("attempts"),
            Some(&AMQPValue::LongLongInt(3))
        );
        let history = tables(&last.headers, DEATHS);
        let counts: Vec<_> = history
            .iter()
            .map(|death| (text(death, "queue").unwrap(), count(death)))
            .collect();
        assert_eq!(counts, [("crm".into(), 3), ("crm.retry".into(), 2)]);
        assert_eq!(text(&history[0], "exchange").unwrap(), "chat-sessions");
        assert!(
            ![ATTEMPTS, HISTORY, FIRST_DEATH]
                .iter()
                .any(|own| last.headers.contains_key(own))
        );
    }

    #[test]
    fn what_did_not_die_of_a_rejection_does_not_come_again() {
        for reason in ["expired", "delivery_limit"] {
            let verdict = dying(None, vec![death("crm", reason, "chat-sessions")]);
            assert_eq!(verdict.exchange, "dead");
            assert_eq!(
                text(&verdict.headers, "dead-letter-reason").unwrap(),
                reason
            );
        }
    }

    #[test]
    fn a_letter_that_was_replayed_begins_anew() {
        let mut headers = FieldTable::default();
        insert(&mut headers, ORIGINAL_KEY, string("of an earlier life"));
        insert(
            &mut headers,
            DEATHS,
            array(vec![death("crm", "rejected", "chat-sessions")]),
        );
        let verdict = judge(&crm(), &headers, "key", Timestamp::UNIX_EPOCH);
        assert_eq!(verdict.exchange, "crm.retry");
        assert_eq!(
            text(&verdict.headers, ORIGINAL_KEY).unwrap(),
            "chat-session.missed"
        );
    }

    #[test]
    fn a_message_without_a_death_is_one_that_was_rejected() {
        let verdict = judge(
            &crm(),
            &FieldTable::default(),
            "some.key",
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(
            (&*verdict.exchange, &*verdict.key),
            ("crm.retry", "some.key")
        );
        assert_eq!(text(&verdict.headers, ORIGINAL_KEY).unwrap(), "some.key");
    }
}

//! Decides what happens to a message that was dead-lettered from a consumer queue: a retry after
//! the delay, or a dead letter. Pure.
//!
//! Attempts are counted in a header of our own. The broker's `x-death` is removed for each retry
//! and restored at the end, because versions treat an `x-death` that a client publishes
//! differently: 3.x continues its counts, 4.x does not. A dead-letter cycle of the broker alone
//! does not work (3.10.8 and 4.0.5, dead-lettering at least once): a message that expired or
//! crashed its consumer was lost after one round, and a rejected one cycled forever.

use jiff::Timestamp;
use lapin::types::{AMQPValue, FieldArray, FieldTable, ShortString};

use super::super::headers::{filtered, plain};
use super::super::topology::RetryTopology;

/// Rejections so far. Consumers see this header from the second attempt on.
const ATTEMPTS: &str = "retry-attempts";
/// The deaths of earlier rounds, latest first, in the format of `x-death`.
const HISTORY: &str = "retry-history";
/// Queue, reason and exchange of the first death. The broker's own `x-first-death-*` headers would
/// describe the last round.
const FIRST_DEATH: &str = "retry-first-death";
const ORIGINAL_EXCHANGE: &str = "original-exchange";
const ORIGINAL_KEY: &str = "original-routing-key";
const DEATHS: &str = "x-death";
const FIRST: &str = "x-first-death-";
/// Prefixes of the headers in which the broker records deaths and deliveries.
const OF_BROKER: [&str; 4] = [DEATHS, FIRST, "x-last-death-", "x-delivery-count"];
/// Headers with which a publisher makes the broker route a message to further queues. They are
/// removed: otherwise anyone who may publish to a consumer queue could use the bridge's
/// permissions.
const OF_SENDER: [&str; 2] = ["CC", "BCC"];
const REJECTED: &str = "rejected";

/// The exchange, key and headers with which a message is republished.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RetryDecision {
    pub(super) exchange: String,
    pub(super) key: String,
    pub(super) headers: FieldTable,
}

/// Decides about a message from its headers and its routing key in `<queue>.rejected`.
pub(super) fn decide(
    queue: &RetryTopology,
    headers: &FieldTable,
    key: &str,
    now: Timestamp,
) -> RetryDecision {
    let deaths = tables(headers, DEATHS);
    let last = deaths
        .iter()
        .find(|death| text(death, "queue").as_deref() == Some(queue.queue.as_str()));
    let reason = last.and_then(|death| text(death, "reason"));
    let reason = reason.unwrap_or_else(|| REJECTED.to_owned());
    let before = headers.inner().get(ATTEMPTS).and_then(integer);
    // A publisher may have forged the header.
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
        return RetryDecision {
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
    RetryDecision {
        exchange: queue.dead_letter.clone(),
        key: original.1,
        headers: left,
    }
}

/// Exchange and routing key before the first death. `is_known` says that an earlier round recorded
/// them in our headers.
fn original(
    headers: &FieldTable,
    last: Option<&FieldTable>,
    is_known: bool,
    key: &str,
) -> (String, String) {
    let own = |name| text(headers, name).filter(|_| is_known);
    let exchange = own(ORIGINAL_EXCHANGE).or_else(|| text(last?, "exchange"));
    let routing_key = own(ORIGINAL_KEY).or_else(|| {
        let keys = last?.inner().get("routing-keys")?.as_array()?;
        keys.as_slice().first().and_then(as_text)
    });
    (
        exchange.unwrap_or_default(),
        routing_key.unwrap_or_else(|| key.to_owned()),
    )
}

/// Queue, reason and exchange of the first death, in entries of these names.
fn first_death(headers: &FieldTable, is_known: bool, deaths: &[FieldTable]) -> FieldTable {
    let first = headers.inner().get(FIRST_DEATH);
    if is_known && let Some(first) = first.and_then(AMQPValue::as_field_table) {
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

/// The headers without those that the broker or the bridge added in earlier rounds, and without
/// [`OF_SENDER`].
fn kept(headers: &FieldTable) -> FieldTable {
    filtered(headers, |name| {
        let is_brokers = OF_BROKER.iter().any(|known| name.starts_with(known));
        let is_ours = [ATTEMPTS, HISTORY, FIRST_DEATH].contains(&name);
        !is_brokers && !is_ours && !OF_SENDER.contains(&name)
    })
}

/// Merges deaths, latest first, into one entry for each queue and reason, in the way of the broker:
/// the counts are added up, and the other fields are those of the earliest death.
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
    let array = headers.inner().get(name).and_then(AMQPValue::as_array);
    let values = array.map_or(&[][..], FieldArray::as_slice).iter();
    let tables = values.filter_map(AMQPValue::as_field_table);
    tables.cloned().collect()
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
    plain(value).as_i64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crm() -> RetryTopology {
        RetryTopology {
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

    fn dying(verdict: Option<RetryDecision>, deaths: Vec<FieldTable>) -> RetryDecision {
        let mut headers = verdict.map_or_else(FieldTable::default, |verdict| verdict.headers);
        insert(&mut headers, "source", string("acme"));
        insert(&mut headers, "x-delivery-count", AMQPValue::LongLongInt(1));
        insert(&mut headers, DEATHS, array(deaths));
        decide(
            &crm(),
            &headers,
            "chat-session.missed",
            Timestamp::UNIX_EPOCH,
        )
    }

    #[test]
    fn forged_headers_do_not_change_routing_or_attempts() {
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
    fn message_is_retried_until_the_limit() {
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
    fn only_rejected_messages_are_retried() {
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
    fn replayed_dead_letter_starts_counting_again() {
        let mut headers = FieldTable::default();
        insert(&mut headers, ORIGINAL_KEY, string("of an earlier life"));
        insert(
            &mut headers,
            DEATHS,
            array(vec![death("crm", "rejected", "chat-sessions")]),
        );
        let verdict = decide(&crm(), &headers, "key", Timestamp::UNIX_EPOCH);
        assert_eq!(verdict.exchange, "crm.retry");
        assert_eq!(
            text(&verdict.headers, ORIGINAL_KEY).unwrap(),
            "chat-session.missed"
        );
    }

    #[test]
    fn message_without_death_history_counts_as_rejected() {
        let verdict = decide(
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

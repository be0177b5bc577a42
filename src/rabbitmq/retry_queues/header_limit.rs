//! Limits the headers of a republished message to one frame: the broker closes a connection on
//! which they exceed it. Pure.

use jiff::Timestamp;
use lapin::types::FieldTable;

use super::super::headers::filtered;
use super::super::publisher::size::{HEADERS_BYTES_MAX, field_bytes, table_bytes};
use super::super::topology::RetryTopology;
use super::decision::{self, RetryDecision};

/// The decision for a message, and the names of the headers that were dropped because they do not
/// fit, largest first. A message that loses a header is not retried; it becomes a dead letter at
/// once.
pub(super) fn decide(
    queue: &RetryTopology,
    headers: &FieldTable,
    key: &str,
    now: Timestamp,
) -> (RetryDecision, Vec<String>) {
    let verdict = decision::decide(queue, headers, key, now);
    if table_bytes(&verdict.headers) <= HEADERS_BYTES_MAX {
        return (verdict, Vec::new());
    }
    let at_once = RetryTopology {
        attempts_max: 0,
        ..queue.clone()
    };
    let mut verdict = decision::decide(&at_once, headers, key, now);
    let mut sizes: Vec<_> = verdict
        .headers
        .into_iter()
        .map(|(name, value)| (field_bytes(name, value), name.to_string()))
        .collect();
    sizes.sort();
    let mut left_out = Vec::new();
    let mut bytes = table_bytes(&verdict.headers);
    while bytes > HEADERS_BYTES_MAX
        && let Some((size, name)) = sizes.pop()
    {
        bytes -= size;
        left_out.push(name);
    }
    verdict.headers = filtered(&verdict.headers, |name| {
        !left_out.iter().any(|left_out| left_out == name)
    });
    (verdict, left_out)
}

#[cfg(test)]
mod tests {
    use lapin::types::AMQPValue;

    use super::*;

    fn queue() -> RetryTopology {
        RetryTopology {
            queue: "crm".into(),
            rejected: "crm.rejected".into(),
            retry: "crm.retry".into(),
            retried: "crm.retried".into(),
            attempts_max: 3,
            dead_letter: "dead".into(),
        }
    }

    fn judged(bytes: usize) -> (RetryDecision, Vec<String>) {
        let mut headers = FieldTable::default();
        for (name, bytes) in [("small", 10), ("big", bytes)] {
            let text = "x".repeat(bytes);
            headers.insert(name.into(), AMQPValue::LongString(text.into()));
        }
        decide(&queue(), &headers, "key", Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn fitting_headers_are_kept() {
        let (verdict, left_out) = judged(100_000);
        assert_eq!((&*verdict.exchange, left_out), ("crm.retry", vec![]));
        assert!(verdict.headers.contains_key("big"));
    }

    #[test]
    fn oversized_headers_make_a_dead_letter() {
        let (verdict, left_out) = judged(130_950);
        assert_eq!(
            (&*verdict.exchange, left_out),
            ("dead", vec!["big".to_owned()])
        );
        assert!(verdict.headers.contains_key("small"));
        assert!(table_bytes(&verdict.headers) < HEADERS_BYTES_MAX);
    }
}

//! Headers that do not fit into the one frame they have to be published in: the broker would end
//! the connection. Pure.

use jiff::Timestamp;
use lapin::types::FieldTable;

use super::super::publisher::size::{HEADERS_BYTES_MAX, field_bytes, table_bytes};
use super::super::topology::Delayed;
use super::verdict::{self, Verdict};

/// The verdict on a message, and the names of headers that had to be left out. A message of which
/// something is left out is not retried, but becomes a dead letter at once.
pub(super) fn judge(
    queue: &Delayed,
    headers: &FieldTable,
    key: &str,
    now: Timestamp,
) -> (Verdict, Vec<String>) {
    let verdict = verdict::judge(queue, headers, key, now);
    if table_bytes(&verdict.headers) <= HEADERS_BYTES_MAX {
        return (verdict, Vec::new());
    }
    let at_once = Delayed {
        attempts_max: 0,
        ..queue.clone()
    };
    let mut verdict = verdict::judge(&at_once, headers, key, now);
    let mut sizes: Vec<_> = verdict
        .headers
        .into_iter()
        .map(|(name, value)| (field_bytes(name, value), name.clone()))
        .collect();
    sizes.sort();
    let mut kept = FieldTable::default();
    let mut left_out = Vec::new();
    let mut bytes = table_bytes(&verdict.headers);
    while bytes > HEADERS_BYTES_MAX
        && let Some((size, name)) = sizes.pop()
    {
        bytes -= size;
        left_out.push(name.to_string());
    }
    for (_, name) in sizes {
        if let Some(value) = verdict.headers.inner().get(&name) {
            kept.insert(name, value.clone());
        }
    }
    verdict.headers = kept;
    (verdict, left_out)
}

#[cfg(test)]
mod tests {
    use lapin::types::AMQPValue;

    use super::*;

    fn queue() -> Delayed {
        Delayed {
            queue: "crm".into(),
            rejected: "crm.rejected".into(),
            retry: "crm.retry".into(),
            retried: "crm.retried".into(),
            attempts_max: 3,
            dead_letter: "dead".into(),
        }
    }

    fn judged(bytes: usize) -> (Verdict, Vec<String>) {
        let mut headers = FieldTable::default();
        for (name, bytes) in [("small", 10), ("big", bytes)] {
            let text = "x".repeat(bytes);
            headers.insert(name.into(), AMQPValue::LongString(text.into()));
        }
        judge(&queue(), &headers, "key", Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn headers_that_fit_are_kept() {
        let (verdict, left_out) = judged(100_000);
        assert_eq!((&*verdict.exchange, left_out), ("crm.retry", vec![]));
        assert!(verdict.headers.contains_key("big"));
    }

    #[test]
    fn headers_too_large_make_a_dead_letter() {
        let (verdict, left_out) = judged(130_950);
        assert_eq!(
            (&*verdict.exchange, left_out),
            ("dead", vec!["big".to_owned()])
        );
        assert!(verdict.headers.contains_key("small"));
        assert!(table_bytes(&verdict.headers) < HEADERS_BYTES_MAX);
    }
}

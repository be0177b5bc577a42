//! In which order items are published. Items with the same key, such as the events of a session, go
//! one after the other, each when the one before it has an outcome. Pure.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crate::rabbitmq::OutgoingMessage;

/// Something to publish.
#[derive(Debug, Clone)]
pub struct Item<T> {
    /// What the caller knows it by.
    pub(super) token: T,
    /// Items with the same key wait for each other.
    pub key: Option<Arc<str>>,
    pub(super) message: OutgoingMessage,
    /// Whether it has to be published in a window of its own.
    pub is_alone: bool,
    /// Whether it was published before without a known outcome.
    pub(super) is_in_doubt: bool,
}

impl<T> Item<T> {
    /// An item; without a key, it waits for no other one.
    pub fn new(token: T, key: Option<Arc<str>>, message: OutgoingMessage) -> Self {
        Self {
            token,
            key,
            message,
            is_alone: false,
            is_in_doubt: false,
        }
    }
}

/// Removes the next window from the waiting items. All its messages go to one exchange and have
/// different keys, none of them in `busy`. If `is_strict`, the window ends at the first item that cannot
/// join it; otherwise that item stays, and later items may overtake it. `messages_max` is the limit for
/// an exchange, and may be 0. The window is empty if no item can be published now.
pub(super) fn window<T>(
    waiting: &mut VecDeque<Item<T>>,
    mut busy: HashSet<Arc<str>>,
    messages_max: impl Fn(&Arc<str>) -> usize,
    bytes_max: usize,
    is_strict: bool,
) -> Vec<Item<T>> {
    let (mut window, mut overtaken, mut bytes) = (Vec::<Item<T>>::new(), Vec::new(), 0);
    while let Some(item) = waiting.pop_front() {
        let exchange = &item.message.route().exchange;
        let messages_max = messages_max(exchange);
        let is_first = item.key.as_ref().is_none_or(|key| busy.insert(key.clone()));
        let is_free = is_first && messages_max > 0;
        let is_together = match window.first() {
            Some(first) => first.message.route().exchange == *exchange,
            None => true,
        };
        let is_next = is_free && is_together;
        let length = item.message.body().len();
        let fits = window.is_empty()
            || !item.is_alone && bytes + length <= bytes_max && window.len() < messages_max;
        if is_next && fits {
            let is_alone = item.is_alone;
            bytes += length;
            window.push(item);
            if is_alone {
                break;
            }
        } else {
            overtaken.push(item);
            if is_next || is_strict {
                break;
            }
        }
    }
    for item in overtaken.into_iter().rev() {
        waiting.push_front(item);
    }
    window
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::webhook::message::Message;
    use crate::webhook::routing::Route;

    fn item(number: u64, exchange: &str, key: Option<&str>) -> Item<u64> {
        let message = Message {
            route: Arc::new(Route {
                exchange: exchange.into(),
                routing_key: "key".into(),
            }),
            message_id: Uuid::nil(),
            correlation_id: None,
            message_type: String::new(),
            timestamp_seconds: 0,
            headers: Vec::new(),
            body: vec![b'x'; 10].into(),
        };
        Item::new(number, key.map(Into::into), message.into())
    }

    fn alone(number: u64, key: Option<&str>) -> Item<u64> {
        Item {
            is_alone: true,
            ..item(number, "e", key)
        }
    }

    fn waiting(items: &[(u64, &str, Option<&str>)]) -> VecDeque<Item<u64>> {
        let items = items.iter();
        items
            .map(|(number, to, key)| item(*number, to, *key))
            .collect()
    }

    fn take(waiting: &mut VecDeque<Item<u64>>, busy: &[&str], is_strict: bool) -> Vec<u64> {
        let busy = busy.iter().map(|key| (*key).into()).collect();
        let window = window(waiting, busy, |_| 10, 1000, is_strict);
        window.iter().map(|item| item.token).collect()
    }

    #[test]
    fn sessions_are_in_flight_once_and_stay_in_order() {
        let mut waiting = waiting(&[
            (1, "e", Some("a")),
            (2, "e", Some("b")),
            (3, "e", Some("a")),
            (4, "e", None),
            (5, "e", Some("a")),
        ]);
        assert_eq!(take(&mut waiting, &[], false), [1, 2, 4]);
        assert!(take(&mut waiting, &["a", "b"], false).is_empty());
        assert_eq!(take(&mut waiting, &["b"], false), [3]);
        assert_eq!(take(&mut waiting, &[], false), [5]);
        assert!(waiting.is_empty());
    }

    #[test]
    fn window_has_one_exchange_and_respects_limits() {
        let mut waiting = waiting(&[
            (1, "b", Some("a")),
            (2, "a", Some("b")),
            (3, "b", Some("b")),
            (4, "b", Some("c")),
            (5, "b", Some("d")),
            (6, "b", Some("e")),
        ]);
        let mut take = |messages_max, bytes_max| -> Vec<u64> {
            let none = HashSet::new();
            let window = window(&mut waiting, none, |_| messages_max, bytes_max, false);
            window.iter().map(|item| item.token).collect()
        };
        // The session of 3 waits for 2.
        assert_eq!(take(2, 1000), [1, 4]);
        assert_eq!(take(2, 1000), [2]);
        assert_eq!(take(2, 20), [3, 5]);
        assert_eq!(take(2, 5), [6], "one at least");
    }

    #[test]
    fn exchange_without_room_is_passed_over() {
        let mut waiting = waiting(&[
            (1, "a", Some("a")),
            (2, "b", Some("a")),
            (3, "b", Some("b")),
        ]);
        let messages_max = |exchange: &Arc<str>| usize::from(&**exchange == "b");
        let window = window(&mut waiting, HashSet::new(), messages_max, 1000, false);
        assert_eq!(window.len(), 1);
        assert_eq!(window[0].token, 3);
    }

    #[test]
    fn returned_events_go_out_first_and_alone() {
        let mut waiting = waiting(&[(3, "e", Some("a"))]);
        for number in [2, 1] {
            let key = ["a", "b"][number - 1];
            waiting.push_front(alone(number as u64, Some(key)));
        }
        assert_eq!(take(&mut waiting, &[], false), [1]);
        assert_eq!(take(&mut waiting, &[], false), [2]);
        assert_eq!(take(&mut waiting, &[], false), [3]);
    }

    #[test]
    fn strict_window_has_one_exchange_and_distinct_ids() {
        let mut waiting = waiting(&[
            (1, "e", Some("a")),
            (2, "e", Some("b")),
            (3, "f", Some("c")),
            (4, "e", Some("d")),
            (5, "e", Some("d")),
            (6, "e", Some("e")),
        ]);
        waiting.push_back(alone(7, None));
        waiting.push_back(item(8, "e", Some("f")));
        for expected in [&[1, 2][..], &[3], &[4], &[5, 6], &[7], &[8]] {
            assert_eq!(take(&mut waiting, &[], true), expected);
        }
    }
}

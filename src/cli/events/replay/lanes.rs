//! In which order events go out: those of one session one after the other, each when the one
//! before it has an outcome; different sessions together. Pure.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use deskbridge::journal::Seq;
use deskbridge::webhook::message::Message;

/// Source and session.
pub type Key = (Arc<str>, String);

/// An event on its way.
#[derive(Debug, Clone)]
pub struct Item {
    /// Its number.
    pub seq: Seq,
    /// Its session; none for a reject, which waits for nobody.
    pub key: Option<Key>,
    /// What is published.
    pub message: Message,
    /// Whether it is exempt from retention until it is replayed.
    pub is_kept: bool,
    /// Whether it is to travel in a window of its own.
    pub is_alone: bool,
    /// Whether it was published, nobody knows with what outcome.
    pub is_in_doubt: bool,
}

/// Events that are read and not yet published.
#[derive(Debug, Default)]
pub struct Lanes {
    /// What may go out, by exchange.
    ready: BTreeMap<Arc<str>, VecDeque<Item>>,
    /// Of each session of which one is ready or out: what follows.
    followers: HashMap<Key, VecDeque<Item>>,
    events: usize,
    bytes: usize,
}

impl Lanes {
    /// Events in hand.
    pub fn events(&self) -> usize {
        self.events
    }

    /// Bytes of their bodies.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Events that may go out now.
    pub fn ready(&self) -> usize {
        self.ready.values().map(VecDeque::len).sum()
    }

    /// Events that were published, nobody knows with what outcome.
    pub fn in_doubt(&self) -> usize {
        let ready = self.ready.values().flatten();
        ready.filter(|item| item.is_in_doubt).count()
    }

    /// Takes an event, behind those of its session.
    pub fn add(&mut self, item: Item) {
        self.events += 1;
        self.bytes += item.message.body.len();
        if let Some(key) = &item.key {
            if let Some(followers) = self.followers.get_mut(key) {
                followers.push_back(item);
                return;
            }
            self.followers.insert(key.clone(), VecDeque::new());
        }
        self.queue(&item).push_back(item);
    }

    /// The next window: events of one exchange, of different sessions; empty if none may go out.
    pub fn window(&mut self, events_max: usize, bytes_max: usize) -> Vec<Item> {
        let oldest = self
            .ready
            .iter()
            .filter_map(|(exchange, queue)| Some((queue.front()?.seq, exchange)))
            .min();
        let Some(exchange) = oldest.map(|(_, exchange)| exchange.clone()) else {
            return Vec::new();
        };
        let queue = self.ready.entry(exchange).or_default();
        let (mut window, mut bytes) = (Vec::new(), 0);
        while let Some(item) = queue.front() {
            bytes += item.message.body.len();
            let is_full = window.len() >= events_max || bytes > bytes_max || item.is_alone;
            if is_full && !window.is_empty() {
                break;
            }
            let is_alone = item.is_alone;
            window.extend(queue.pop_front());
            if is_alone {
                break;
            }
        }
        self.events -= window.len();
        self.bytes -= window
            .iter()
            .map(|item| item.message.body.len())
            .sum::<usize>();
        window
    }

    /// It has an outcome: the next of its session may go out.
    pub fn settled(&mut self, item: &Item) {
        let Some(key) = &item.key else { return };
        let next = self.followers.get_mut(key).and_then(VecDeque::pop_front);
        match next {
            Some(next) => self.queue(&next).push_back(next),
            None => drop(self.followers.remove(key)),
        }
    }

    /// It has none: it goes out again, before what follows in its session.
    pub fn put_back(&mut self, item: Item) {
        self.events += 1;
        self.bytes += item.message.body.len();
        self.queue(&item).push_front(item);
    }

    fn queue(&mut self, item: &Item) -> &mut VecDeque<Item> {
        let exchange = &item.message.route.exchange;
        self.ready.entry(exchange.clone()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use deskbridge::webhook::routing::Route;
    use uuid::Uuid;

    use super::*;

    fn item(seq: Seq, exchange: &str, session: Option<&str>) -> Item {
        let route = Arc::new(Route {
            exchange: exchange.into(),
            routing_key: "key".into(),
        });
        Item {
            seq,
            key: session.map(|session| ("acme".into(), session.to_owned())),
            message: Message {
                route,
                message_id: Uuid::nil(),
                correlation_id: None,
                message_type: String::new(),
                timestamp_seconds: 0,
                headers: Vec::new(),
                body: vec![b'x'; 10].into(),
            },
            is_kept: false,
            is_alone: false,
            is_in_doubt: false,
        }
    }

    fn lanes(items: &[(Seq, &str, Option<&str>)]) -> Lanes {
        let mut lanes = Lanes::default();
        for (seq, exchange, session) in items {
            lanes.add(item(*seq, exchange, *session));
        }
        lanes
    }

    fn seqs(window: &[Item]) -> Vec<Seq> {
        window.iter().map(|item| item.seq).collect()
    }

    #[test]
    fn no_session_is_twice_in_what_is_out_and_each_goes_on_in_order() {
        let mut lanes = lanes(&[
            (1, "e", Some("a")),
            (2, "e", Some("b")),
            (3, "e", Some("a")),
            (4, "e", None),
            (5, "e", Some("a")),
        ]);
        let first = lanes.window(10, 1000);
        assert_eq!(seqs(&first), [1, 2, 4]);
        assert_eq!(seqs(&lanes.window(10, 1000)), [] as [Seq; 0]);
        lanes.settled(&first[0]);
        let second = lanes.window(10, 1000);
        assert_eq!(seqs(&second), [3]);
        lanes.settled(&second[0]);
        assert_eq!(seqs(&lanes.window(10, 1000)), [5]);
        assert_eq!((lanes.events(), lanes.bytes()), (0, 0));
    }

    #[test]
    fn a_window_has_one_exchange_and_keeps_its_limits() {
        let mut lanes = lanes(&[
            (1, "b", Some("a")),
            (2, "a", Some("b")),
            (3, "b", Some("c")),
            (4, "b", Some("d")),
        ]);
        assert_eq!(seqs(&lanes.window(2, 1000)), [1, 3]);
        assert_eq!(seqs(&lanes.window(2, 1000)), [2]);
        assert_eq!(seqs(&lanes.window(2, 5)), [4], "one at least");
    }

    #[test]
    fn what_comes_back_goes_out_before_what_follows_and_alone_if_it_must() {
        let mut lanes = lanes(&[
            (1, "e", Some("a")),
            (2, "e", Some("b")),
            (3, "e", Some("a")),
        ]);
        let window = lanes.window(10, 1000);
        for mut item in window.into_iter().rev() {
            item.is_alone = true;
            lanes.put_back(item);
        }
        let again = lanes.window(10, 1000);
        assert_eq!(seqs(&again), [1]);
        lanes.settled(&again[0]);
        assert_eq!(seqs(&lanes.window(10, 1000)), [2]);
        assert_eq!(seqs(&lanes.window(10, 1000)), [3]);
    }
}

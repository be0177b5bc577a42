//! What would make a queue keep its promise, as commands to type. Pure.

use deskbridge::rabbitmq::existing::Queue;
use serde_json::{Map, Value, json};

use super::case::Case;
use super::finding::quoted;

/// `RabbitMQ` 4 drops after so many deliveries if nothing else is said.
const DELIVERY_LIMIT_DEFAULT: i64 = 20;
/// As good as none.
const DELIVERY_LIMIT_NONE: i64 = 1_000_000;

/// What would make a queue keep its promise.
pub struct Mend<'a> {
    /// What is judged.
    pub case: &'a Case<'a>,
    /// The queue.
    pub queue: &'a Queue,
}

impl Mend<'_> {
    /// Whether it is one of the two where events wait that nobody takes.
    pub fn is_holding(&self) -> bool {
        let plan = self.case.plan;
        let holding = [&plan.unrouted_queue, &plan.dead_letter_queue];
        holding
            .into_iter()
            .any(|name| name.as_ref() == Some(&self.queue.name))
    }

    /// Deliveries after which a message is dropped or dead-lettered.
    pub fn delivery_limit(&self) -> Option<i64> {
        let is_four = self.case.existing.major() >= 4;
        let default = is_four.then_some(DELIVERY_LIMIT_DEFAULT);
        let limit = self.queue.number("delivery-limit").or(default);
        // Below zero it means none to RabbitMQ 4, and to 3 that the first return is one too many.
        limit.filter(|limit| {
            self.queue.is_quorum() && *limit < DELIVERY_LIMIT_NONE && (*limit >= 0 || !is_four)
        })
    }

    /// Whether what it gives up is in another queue before it is gone from here.
    pub fn dead_letters_safely(&self) -> bool {
        self.queue.is_quorum()
            && self.queue.text("dead-letter-exchange").is_some()
            && self.queue.text("dead-letter-strategy") == Some("at-least-once")
            && self.queue.text("overflow") == Some("reject-publish")
    }

    /// A policy for everything at once, unless an argument stands against it: arguments win.
    pub fn by_policy(&self) -> String {
        let wanted = self.definition();
        let is_against = |(name, value): (&String, &Value)| {
            self.queue
                .argument(name)
                .is_some_and(|argument| argument != value)
        };
        if wanted.iter().any(is_against) || self.queue.argument("message-ttl").is_some() {
            return self.anew();
        }
        let definition = Value::from(wanted);
        match &self.queue.policy {
            Some(policy) => {
                let without = if self.is_holding() {
                    "no limit of age or length"
                } else {
                    "no `message-ttl`"
                };
                format!(
                    "in its policy `{policy}`: {definition}, and {without} (`rabbitmqctl list_policies -p {}`)",
                    quoted(self.case.vhost)
                )
            }
            None => self
                .case
                .set_policy("queues", &self.queue.name, &definition),
        }
    }

    /// Type and arguments cannot be changed.
    pub fn anew(&self) -> String {
        let arguments: Vec<_> = [("queue-type".to_owned(), json!("quorum"))]
            .into_iter()
            .chain(self.definition())
            .map(|(name, value)| format!("`x-{name}` {value}"))
            .collect();
        format!(
            "when it is empty: {}, then declare it anew, durable, with {}, or have the bridge do so with `[[queues]]`",
            delete(self.case, self.queue),
            arguments.join(", ")
        )
    }

    fn definition(&self) -> Map<String, Value> {
        let dead_letter = &self.case.config.dead_letter.exchange;
        let wanted = if self.is_holding() {
            json!({ "delivery-limit": 1_000_000_000 })
        } else {
            let exchange = self
                .queue
                .text("dead-letter-exchange")
                .unwrap_or(dead_letter);
            json!({
                "overflow": "reject-publish",
                "dead-letter-exchange": exchange,
                "dead-letter-strategy": "at-least-once",
            })
        };
        match wanted {
            Value::Object(wanted) => wanted,
            _ => Map::new(),
        }
    }
}

/// The command that takes an empty queue away.
pub fn delete(case: &Case<'_>, queue: &Queue) -> String {
    let (vhost, name) = (quoted(case.vhost), quoted(&queue.name));
    let command = format!("rabbitmqctl delete_queue -p {vhost} {name}");
    // Only classic queues know the flag.
    if queue.kind == "classic" {
        format!("`{command} --if-empty`")
    } else {
        format!("`{command}` (it deletes what is in it, too)")
    }
}

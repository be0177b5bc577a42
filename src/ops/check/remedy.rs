//! What to type: commands, and how to make a queue keep what it has confirmed. Pure.

use serde_json::{Map, Value, json};

use super::input::CheckInput;
use crate::rabbitmq::snapshot::{FoundExchange, FoundQueue};
use crate::rabbitmq::topology::DELIVERY_LIMIT_NONE;

/// The fix that makes `serve` declare what is missing.
pub const DECLARE: &str = "`pkill -HUP -f '^[^ ]*deskbridge .*serve'` while `serve` runs (`kill -HUP 1` in its container); otherwise start it";
/// The fix for an alarm of the broker.
pub const ALARMS: &str = "free the resource that the broker lacks; `rabbitmq-diagnostics alarms` and `rabbitmq-diagnostics memory_breakdown` show it";
/// The default delivery limit of RabbitMQ 4.
const DELIVERY_LIMIT_DEFAULT: i64 = 20;
/// From here on a delivery limit counts as unlimited.
const UNLIMITED_MIN: i64 = 1_000_000;

/// A word quoted for a shell.
pub fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A regular expression that matches exactly these names.
pub fn exactly<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.into_iter().map(regex::escape).collect();
    match names.as_slice() {
        [name] => format!("^{name}$"),
        _ => format!("^({})$", names.join("|")),
    }
}

/// The command that sets a policy for one object. Only for an object without a policy: RabbitMQ
/// applies one policy per object, so a second one would replace the first.
pub fn set_policy(
    input: &CheckInput<'_>,
    apply_to: &str,
    name: &str,
    definition: &Value,
) -> String {
    format!(
        "`rabbitmqctl set_policy -p {} --apply-to {apply_to} {} {} {}`",
        quoted(&input.user.vhost),
        quoted(&format!("deskbridge-{apply_to}-{name}")),
        quoted(&exactly([name])),
        quoted(&definition.to_string()),
    )
}

/// How to replace an exchange: its type and flags cannot be changed.
pub fn recreate_exchange(input: &CheckInput<'_>, exchange: &FoundExchange) -> String {
    format!(
        "delete it in the management pages or with `rabbitmqadmin --vhost={} delete exchange name={}`; \
         with `rabbitmq.topology = \"declare\"` `serve` declares it again: {DECLARE}; then bind your queues again",
        quoted(&input.user.vhost),
        quoted(&exchange.name)
    )
}

/// The command that deletes an empty queue.
pub fn delete(input: &CheckInput<'_>, queue: &FoundQueue) -> String {
    let (vhost, name) = (quoted(&input.user.vhost), quoted(&queue.name));
    let command = format!("rabbitmqctl delete_queue -p {vhost} {name}");
    // Only classic queues support `--if-empty`.
    if queue.kind == "classic" {
        format!("`{command} --if-empty`")
    } else {
        format!("`{command}` (this deletes its messages too)")
    }
}

/// The fix for a queue that can lose what it has confirmed.
pub struct Remedy<'a> {
    /// What the checks compare.
    pub input: &'a CheckInput<'a>,
    /// The queue.
    pub queue: &'a FoundQueue,
}

impl Remedy<'_> {
    /// Whether it is the queue of unrouted events or the dead-letter queue.
    pub fn is_holding(&self) -> bool {
        self.input
            .holding_queues()
            .contains(&self.queue.name.as_str())
    }

    /// Number of deliveries after which a message is dropped or dead-lettered; `None` if unlimited.
    pub fn delivery_limit(&self) -> Option<i64> {
        let is_four = self.input.existing.major() >= 4;
        let default = is_four.then_some(DELIVERY_LIMIT_DEFAULT);
        let limit = self.queue.number("delivery-limit").or(default);
        // A negative limit means unlimited in RabbitMQ 4; in RabbitMQ 3 it means that the first
        // return already exceeds it.
        limit.filter(|limit| {
            self.queue.is_quorum() && *limit < UNLIMITED_MIN && (*limit >= 0 || !is_four)
        })
    }

    /// Whether a dead letter is in another queue before it is removed from this one
    /// (`at-least-once`).
    pub fn dead_letters_safely(&self) -> bool {
        self.queue.is_quorum()
            && self.queue.text("dead-letter-exchange").is_some()
            && self.queue.text("dead-letter-strategy") == Some("at-least-once")
            && self.queue.text("overflow") == Some("reject-publish")
    }

    /// One policy that sets everything. If the queue is of another type, or an argument contradicts
    /// the policy, the queue has to be declared again, because arguments take precedence.
    pub fn by_policy(&self) -> String {
        let wanted = self.definition();
        let argument = |name: &str| self.queue.argument(name);
        let mut all = wanted.iter();
        if !self.queue.is_quorum()
            || argument("message-ttl").is_some()
            || all.any(|(name, value)| argument(name).is_some_and(|argument| argument != value))
        {
            return self.recreate_command();
        }
        let definition = Value::from(wanted);
        let Some(policy) = &self.queue.policy else {
            return set_policy(self.input, "queues", &self.queue.name, &definition);
        };
        let without = if self.is_holding() {
            "no limit of age or length"
        } else {
            "no `message-ttl`"
        };
        format!(
            "set in its policy `{policy}`: {definition}, and {without} (`rabbitmqctl list_policies -p {}`)",
            quoted(&self.input.user.vhost)
        )
    }

    /// How to replace the queue: its type and arguments cannot be changed.
    pub fn recreate_command(&self) -> String {
        let arguments = self.definition().into_iter();
        let arguments = arguments.map(|(name, value)| format!(", `x-{name}` {value}"));
        format!(
            "when it is empty: {}, then declare it again, durable, with `x-queue-type` \"quorum\"{}, or have the bridge do so with `[[queues]]`",
            delete(self.input, self.queue),
            arguments.collect::<String>()
        )
    }

    fn definition(&self) -> Map<String, Value> {
        let wanted = if self.input.plan.dead_letter_queue.as_ref() == Some(&self.queue.name) {
            json!({ "delivery-limit": DELIVERY_LIMIT_NONE, "overflow": "reject-publish" })
        } else if self.is_holding() {
            json!({ "delivery-limit": DELIVERY_LIMIT_NONE })
        } else {
            let exchange = self.queue.text("dead-letter-exchange");
            json!({
                "overflow": "reject-publish",
                "dead-letter-exchange": exchange.unwrap_or(&self.input.config.dead_letter.exchange),
                "dead-letter-strategy": "at-least-once",
            })
        };
        wanted.as_object().cloned().unwrap_or_default()
    }
}

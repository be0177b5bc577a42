//! Whether the bridge's user may do what `serve` has to do, and the command that grants it. No
//! suggested command takes away a permission that the user has: if these are unknown, the command
//! has placeholders for the operator to fill in. Pure.

use std::collections::BTreeSet;

use regex::Regex;
use serde::Deserialize;

use super::remedy::{exactly, quoted};
use crate::config::rabbitmq::TopologyMode;
use crate::rabbitmq::snapshot::key::KeyPattern;
use crate::rabbitmq::topology::{Object, Topology};
use crate::rabbitmq::url::BrokerUrl;

/// The permissions of a user in a virtual host: regular expressions for names. An empty one allows
/// nothing.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Permissions {
    /// Exchanges and queues that may be declared and deleted.
    pub configure: String,
    /// Exchanges that may be published to, and queues that may be bound.
    pub write: String,
    /// Queues that may be consumed, and exchanges that may be bound to.
    pub read: String,
}

/// The topic permissions of a user for one exchange: regular expressions for routing keys.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct TopicPermissions {
    /// The exchange.
    pub exchange: String,
    /// Keys with which the user may publish.
    pub write: String,
    /// Keys with which the user may bind.
    pub read: String,
}

/// A user with its permissions, as far as they are known.
#[derive(Debug, Clone, Default)]
pub struct User {
    /// Its name.
    pub name: String,
    /// The virtual host.
    pub vhost: String,
    /// Its permissions in the virtual host, if known.
    pub permissions: Option<Permissions>,
    /// Exchanges where only some keys are allowed, if known.
    pub topics: Option<Vec<TopicPermissions>>,
}

impl Permissions {
    /// What they do not allow and declaring the object needs, such as ``write `name` ``.
    pub fn lacking(&self, object: &Object) -> Option<String> {
        let (write, read) = (&self.write, &self.read);
        let configure = |name| ("configure", &self.configure, name);
        let needs = match object {
            Object::Exchange(exchange) => {
                let mut needs = vec![configure(&exchange.name)];
                if let Some(alternate) = &exchange.alternate {
                    needs.extend([("read", read, &exchange.name), ("write", write, alternate)]);
                }
                needs
            }
            Object::Queue(queue) => vec![configure(&queue.name)],
            Object::Binding(binding) => {
                let (queue, exchange) = (&binding.queue, &binding.exchange);
                vec![("write", write, queue), ("read", read, exchange)]
            }
        };
        let mut needs = needs.into_iter();
        let (verb, _, name) = needs.find(|(_, pattern, name)| !allows(pattern, name))?;
        Some(format!("{verb} `{name}`"))
    }
}

impl User {
    /// The user of a URL, with unknown permissions.
    pub fn of(url: &BrokerUrl) -> Self {
        Self {
            name: url.credentials().0.to_owned(),
            vhost: url.vhost().to_owned(),
            ..Self::default()
        }
    }

    /// The command that grants everything that the plan and `tail` need, and keeps what is granted
    /// already.
    pub fn grant(&self, plan: &Topology) -> String {
        let names = plan.objects.iter().filter_map(|object| match object {
            Object::Exchange(exchange) => Some(exchange.name.as_str()),
            Object::Queue(queue) => Some(queue.name.as_str()),
            Object::Binding(_) => None,
        });
        let names: BTreeSet<_> = names.collect();
        let (vhost, user) = (quoted(&self.vhost), quoted(&self.name));
        let Some(permissions) = &self.permissions else {
            return format!(
                "`rabbitmqctl list_user_permissions {user}` shows what it has; add {} to those of configure, write \
                 and read that do not allow this yet, and set all three: `rabbitmqctl set_permissions -p {vhost} {user} CONFIGURE WRITE READ`",
                granted("", &names)
            );
        };
        let declared = match plan.mode {
            TopologyMode::Declare => &names,
            TopologyMode::Verify => &BTreeSet::new(),
        };
        format!(
            "`rabbitmqctl set_permissions -p {vhost} {user} {} {} {}` (configure, write, read: what it has, and what is missing)",
            granted(&permissions.configure, declared),
            granted(&permissions.write, &names),
            granted(&permissions.read, &names)
        )
    }

    /// The command that also grants publishing to an exchange with these keys.
    pub fn grant_topics(&self, exchange: &str, keys: &[KeyPattern]) -> String {
        let (vhost, user) = (quoted(&self.vhost), quoted(&self.name));
        let keys: Vec<_> = keys.iter().map(pattern).collect();
        let wanted = format!("^({})$", keys.join("|"));
        let mut topics = self.topics.iter().flatten();
        let known = topics.find(|topic| topic.exchange == exchange);
        let exchange = quoted(exchange);
        let command = format!("rabbitmqctl set_topic_permissions -p {vhost} {user} {exchange}");
        match known {
            Some(topic) => format!(
                "`{command} {} {}` (write, read: what it has, and what is missing)",
                quoted(&joined(&topic.write, &wanted)),
                quoted(&topic.read)
            ),
            None => format!(
                "`rabbitmqctl list_user_topic_permissions -p {vhost} {user}` shows what it has; add {} to the keys it may write: \
                 `{command} WRITE READ`",
                quoted(&wanted)
            ),
        }
    }
}

/// The quoted pattern `allowed`, extended by those of these names that it does not allow, and by the
/// private queues of `tail`, whose names the broker generates.
fn granted(allowed: &str, names: &BTreeSet<&str>) -> String {
    let names = names.iter().copied();
    let lacking: Vec<_> = names.filter(|name| !allows(allowed, name)).collect();
    let mut granted = allowed.to_owned();
    if !lacking.is_empty() {
        granted = joined(&granted, &exactly(lacking));
    }
    if !allows(&granted, "amq.gen-0") {
        granted = joined(&granted, r"^amq\.gen-.*$");
    }
    quoted(&granted)
}

fn joined(allowed: &str, wanted: &str) -> String {
    match allowed {
        "" | "^$" => wanted.to_owned(),
        allowed => format!("{allowed}|{wanted}"),
    }
}

/// A routing key as a regular expression. A word that depends on the session matches any word.
fn pattern(key: &KeyPattern) -> String {
    let words = key.to_string();
    let words = words.split('.').map(|word| match word {
        "*" => "[^.]*".to_owned(),
        word => regex::escape(word),
    });
    words.collect::<Vec<_>>().join(r"\.")
}

/// Matches like the broker: anywhere in the name, unless the pattern is anchored. A pattern that
/// this regex library cannot parse counts as allowing the name.
fn allows(pattern: &str, name: &str) -> bool {
    let pattern = if pattern.is_empty() { "^$" } else { pattern };
    Regex::new(pattern).map_or(true, |regex| regex.is_match(name))
}

#[cfg(test)]
impl User {
    /// A user with these permissions: configure, write and read.
    pub fn with(permissions: [&str; 3]) -> Self {
        let [configure, write, read] = permissions.map(ToOwned::to_owned);
        Self {
            name: "bridge".into(),
            vhost: "/".into(),
            permissions: Some(Permissions {
                configure,
                write,
                read,
            }),
            topics: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn advice_keeps_existing_permissions() {
        let plan = Topology::plan(&Config::default());
        let granted = User::with([".*", "^chat-sessions$", "^$"]).grant(&plan);
        let expected = r"'.*' '^chat-sessions$|^(chat\-sessions\.dead\-letter|chat\-sessions\.unrouted)$|^amq\.gen-.*$' '^(chat\-sessions|chat\-sessions\.dead\-letter|chat\-sessions\.unrouted)$|^amq\.gen-.*$'`";
        assert!(granted.contains(expected), "{granted}");
        let mut unknown = User::with(["", "", ""]);
        unknown.permissions = None;
        let granted = unknown.grant(&plan);
        assert!(granted.contains(" CONFIGURE WRITE READ`"), "{granted}");
        let key = KeyPattern::template("chat.{company}.x");
        let topics = unknown.grant_topics("chat", std::slice::from_ref(&key));
        assert!(topics.contains(r"'^(chat\.[^.]*\.x)$'"), "{topics}");
        unknown.topics = Some(vec![TopicPermissions {
            exchange: "chat".into(),
            write: "^a$".into(),
            read: ".*".into(),
        }]);
        let topics = unknown.grant_topics("chat", &[key]);
        assert!(
            topics.contains(r"'chat' '^a$|^(chat\.[^.]*\.x)$' '.*'`"),
            "{topics}"
        );
    }
}

//! Whether our user may do what `serve` has to do, and the command that allows it. No command takes
//! away what the user has: where that is not known, the words are left for the operator to fill in.
//! Pure.

use deskbridge::config::rabbitmq::TopologyMode;
use deskbridge::rabbitmq::existing::Existing;
use deskbridge::rabbitmq::existing::key::Key;
use deskbridge::rabbitmq::topology::{Object, Topology};
use regex::Regex;
use serde::Deserialize;

use super::finding::{Finding, exactly, quoted};
use super::topology::subject;

/// Regular expressions for names, as the broker has them. An empty one allows nothing.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Permissions {
    /// What may be declared and deleted.
    pub configure: String,
    /// What may be published to and bound.
    pub write: String,
    /// What may be consumed and bound to.
    pub read: String,
}

/// Regular expressions for routing keys of one exchange.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct TopicPermissions {
    /// The exchange.
    pub exchange: String,
    /// Keys that may be published with.
    pub write: String,
    /// Keys that may be bound with.
    pub read: String,
}

/// A user, and what it may do where that is known.
#[derive(Debug, Clone, Default)]
pub struct User {
    /// Its name.
    pub name: String,
    /// The virtual host.
    pub vhost: String,
    /// What it may do there.
    pub permissions: Option<Permissions>,
    /// Exchanges where only some keys are allowed.
    pub topics: Option<Vec<TopicPermissions>>,
}

/// What `serve` would have to declare and may not, but for what is known to be denied;
/// `existing` is as it is, before that.
pub fn judge(user: &User, existing: &Existing, plan: &Topology, told: &[usize]) -> Vec<Finding> {
    let Some(permissions) = &user.permissions else {
        return Vec::new();
    };
    let objects = plan.objects.iter().enumerate();
    let missing = objects.filter(|(index, object)| !told.contains(index) && !existing.has(object));
    let denied = missing.filter_map(|(_, object)| Some((object, denied(permissions, object)?)));
    denied
        .map(|(object, what)| {
            Finding::error(format!(
                "{object} is missing, and user `{}` may not {what}",
                user.name
            ))
            .losing("`serve` cannot declare it: events that need it wait, or become dead letters")
            .trying(user.grant(plan))
            .about([subject(object)])
            .because([subject(object)])
        })
        .collect()
}

impl User {
    /// The command that allows everything the plan and `tail` need and leaves what is allowed already.
    pub fn grant(&self, plan: &Topology) -> String {
        let names = plan.objects.iter().filter_map(|object| match object {
            Object::Exchange(exchange) => Some(exchange.name.as_str()),
            Object::Queue(queue) => Some(queue.name.as_str()),
            Object::Binding(_) => None,
        });
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        names.dedup();
        let (vhost, user) = (quoted(&self.vhost), quoted(&self.name));
        let Some(Permissions {
            configure,
            write,
            read,
        }) = &self.permissions
        else {
            return format!(
                "`rabbitmqctl list_user_permissions {user}` shows what it has; add {} to what is too narrow of \
                 configure, write and read, and set all three: `rabbitmqctl set_permissions -p {vhost} {user} CONFIGURE WRITE READ`",
                quoted(&with_tail(exactly(names)))
            );
        };
        let configure = match plan.mode {
            TopologyMode::Declare => extended(configure, &names),
            TopologyMode::Verify => configure.clone(),
        };
        format!(
            "`rabbitmqctl set_permissions -p {vhost} {user} {} {} {}` (configure, write, read: what it has, and what is missing)",
            quoted(&with_tail(configure)),
            quoted(&with_tail(extended(write, &names))),
            quoted(&with_tail(extended(read, &names)))
        )
    }

    /// The command that allows publishing to an exchange with these keys too.
    pub fn grant_topics(&self, exchange: &str, keys: &[Key]) -> String {
        let (vhost, user) = (quoted(&self.vhost), quoted(&self.name));
        let shown: Vec<_> = keys.iter().map(pattern).collect();
        let wanted = format!("^({})$", shown.join("|"));
        let mut topics = self.topics.iter().flatten();
        let known = topics.find(|topic| topic.exchange == exchange);
        let command = format!("rabbitmqctl set_topic_permissions -p {vhost} {user}");
        let exchange = quoted(exchange);
        match known {
            Some(topic) => format!(
                "`{command} {exchange} {} {}` (write, read: what it has, and what is missing)",
                quoted(&joined(&topic.write, &wanted)),
                quoted(&topic.read)
            ),
            None => format!(
                "`rabbitmqctl list_user_topic_permissions -p {vhost} {user}` shows what it has; add {} to the keys it may write: \
                 `{command} {exchange} WRITE READ`",
                quoted(&wanted)
            ),
        }
    }
}

/// What was allowed, and these names.
fn extended(allowed: &str, names: &[&str]) -> String {
    let lacking = names.iter().filter(|name| !allows(allowed, name));
    let lacking: Vec<_> = lacking.copied().collect();
    if lacking.is_empty() {
        allowed.to_owned()
    } else {
        joined(allowed, &exactly(lacking))
    }
}

/// With the private queue of `tail`, which the broker names.
fn with_tail(allowed: String) -> String {
    if allows(&allowed, "amq.gen-0") {
        allowed
    } else {
        joined(&allowed, r"^amq\.gen-.*$")
    }
}

fn joined(allowed: &str, wanted: &str) -> String {
    match allowed {
        "" | "^$" => wanted.to_owned(),
        allowed => format!("{allowed}|{wanted}"),
    }
}

/// A routing key as a regular expression: a word that depends on the session may be any.
fn pattern(key: &Key) -> String {
    let words = key.to_string();
    let words = words.split('.').map(|word| match word {
        "*" => "[^.]*".to_owned(),
        word => regex::escape(word),
    });
    words.collect::<Vec<_>>().join(r"\.")
}

fn denied(permissions: &Permissions, object: &Object) -> Option<String> {
    let Permissions {
        configure,
        write,
        read,
    } = permissions;
    let needs: Vec<(&str, &String, &str)> = match object {
        Object::Exchange(exchange) => {
            let mut needs = vec![("configure", configure, exchange.name.as_str())];
            if let Some(alternate) = &exchange.alternate {
                needs.push(("read", read, &exchange.name));
                needs.push(("write", write, alternate));
            }
            needs
        }
        Object::Queue(queue) => vec![("configure", configure, &queue.name)],
        Object::Binding(binding) => vec![
            ("write", write, &binding.queue),
            ("read", read, &binding.exchange),
        ],
    };
    needs
        .into_iter()
        .find(|(_, pattern, name)| !allows(pattern, name))
        .map(|(verb, _, name)| format!("{verb} `{name}`"))
}

/// As the broker does: anywhere in the name, unless anchored. What is no regular expression to us
/// gets the benefit of the doubt.
fn allows(pattern: &str, name: &str) -> bool {
    let pattern = if pattern.is_empty() { "^$" } else { pattern };
    Regex::new(pattern).map_or(true, |regex| regex.is_match(name))
}

#[cfg(test)]
mod tests {
    use deskbridge::config::Config;

    use super::*;

    fn user(permissions: [&str; 3]) -> User {
        let [configure, write, read] = permissions.map(ToOwned::to_owned);
        User {
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

    fn lines(permissions: [&str; 3], existing: &Existing) -> Vec<String> {
        let plan = Topology::plan(&Config::default());
        let lines = judge(&user(permissions), existing, &plan, &[]);
        lines.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_missing_has_to_be_declared_by_somebody_who_may() {
        let nothing = Existing::default();
        assert_eq!(
            lines(["^chat-", "^chat-", "^chat-"], &nothing),
            Vec::<String>::new()
        );
        assert_eq!(
            lines([".*", "", ".*"], &nothing).len(),
            3,
            "two bindings and an alternate"
        );
        let denied = lines(["", ".*", ".*"], &nothing);
        assert_eq!(denied.len(), 5);
        assert!(
            denied[0].starts_with("error: exchange `chat-sessions.dead-letter` is missing, and user `bridge` may not configure `chat-sessions.dead-letter`"),
            "{denied:?}"
        );
        assert!(
            denied[0].contains(r"set_permissions -p '/' 'bridge' '^(chat\-sessions|chat\-sessions\.dead\-letter|chat\-sessions\.unrouted)$|^amq\.gen-.*$' '.*' '.*'`"),
            "{denied:?}"
        );
        let plan = Topology::plan(&Config::default());
        let all = Existing::default().with_missing_of(&plan);
        assert_eq!(lines(["", "", ""], &all), Vec::<String>::new());
    }

    #[test]
    fn no_advice_takes_away_what_a_user_has() {
        let plan = Topology::plan(&Config::default());
        let granted = user([".*", "^chat-sessions$", "^$"]).grant(&plan);
        let expected = r"'.*' '^chat-sessions$|^(chat\-sessions\.dead\-letter|chat\-sessions\.unrouted)$|^amq\.gen-.*$' '^(chat\-sessions|chat\-sessions\.dead\-letter|chat\-sessions\.unrouted)$|^amq\.gen-.*$'`";
        assert!(granted.contains(expected), "{granted}");
        let mut unknown = user(["", "", ""]);
        unknown.permissions = None;
        let granted = unknown.grant(&plan);
        assert!(granted.contains(" CONFIGURE WRITE READ`"), "{granted}");
        let key = Key::common("chat.none.x", "chat.some.x");
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

//! Whether our user may do what `serve` has to do. Pure.

use deskbridge::rabbitmq::existing::Existing;
use deskbridge::rabbitmq::topology::{Object, Topology};
use regex::Regex;
use serde::Deserialize;

use super::line::{Line, exactly, quoted};

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

/// What `serve` would have to declare and may not; `existing` is as it is, before that.
pub fn judge(
    permissions: &Permissions,
    existing: &Existing,
    plan: &Topology,
    (user, vhost): (&str, &str),
) -> Vec<Line> {
    let missing = plan.objects.iter().filter(|object| !existing.has(object));
    let denied = missing.filter_map(|object| Some((object, denied(permissions, object)?)));
    denied
        .map(|(object, what)| {
            Line::error(format!(
                "{object} is missing, and user `{user}` may not {what}"
            ))
            .losing("`serve` cannot declare it: events that need it wait, or become dead letters")
            .trying(grant(plan, (user, vhost)))
        })
        .collect()
}

/// The command that allows everything the plan needs, and nothing else.
pub fn grant(plan: &Topology, (user, vhost): (&str, &str)) -> String {
    let names = plan.objects.iter().filter_map(|object| match object {
        Object::Exchange(exchange) => Some(exchange.name.as_str()),
        Object::Queue(queue) => Some(queue.name.as_str()),
        Object::Binding(_) => None,
    });
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names.dedup();
    let pattern = quoted(&exactly(names));
    format!(
        "`rabbitmqctl set_permissions -p {} {} {pattern} {pattern} {pattern}` (configure, write, read; it replaces what `rabbitmqctl list_user_permissions` shows)",
        quoted(vhost),
        quoted(user)
    )
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

    fn lines(permissions: [&str; 3], existing: &Existing) -> Vec<String> {
        let [configure, write, read] = permissions.map(ToOwned::to_owned);
        let permissions = Permissions {
            configure,
            write,
            read,
        };
        let plan = Topology::plan(&Config::default());
        let lines = judge(&permissions, existing, &plan, ("bridge", "/"));
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
            denied[0].contains(r"set_permissions -p '/' 'bridge' '^(chat\-sessions|chat\-sessions\.dead\-letter|chat\-sessions\.unrouted)$'"),
            "{denied:?}"
        );
        let plan = Topology::plan(&Config::default());
        let all = Existing::default().with_missing_of(&plan);
        assert_eq!(lines(["", "", ""], &all), Vec::<String>::new());
    }
}

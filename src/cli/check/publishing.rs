//! What the broker says to a message of every status, in its words: a code means several things.
//! Pure.

use std::collections::{BTreeMap, BTreeSet};

use deskbridge::rabbitmq::existing::key::Key;
use deskbridge::rabbitmq::permitted::Permitted;
use deskbridge::rabbitmq::topology::Topology;
use deskbridge::rabbitmq::url::BrokerUrl;
use deskbridge::webhook::routing::Route;

use super::finding::{Finding, Subject};
use super::permissions::User;

/// Why we may not publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Denial {
    /// Not to this exchange.
    Exchange,
    /// Not with this key.
    Topic,
    /// Nobody may publish to this exchange.
    Internal,
    /// For another reason.
    Other,
}

impl Denial {
    fn read(text: &str) -> Self {
        if text.contains("internal exchange") {
            Self::Internal
        } else if text.contains("access to topic") {
            Self::Topic
        } else if text.contains("access to exchange") {
            Self::Exchange
        } else {
            Self::Other
        }
    }
}

/// A route, and what the keys of all its sessions have in common.
pub struct Asked {
    /// The route that was asked about.
    pub route: Route,
    /// Its keys.
    pub key: Key,
}

/// What the answers mean, one finding a cause.
pub fn judge(
    asked: &[Asked],
    answers: Vec<Permitted>,
    plan: &Topology,
    url: &BrokerUrl,
    user: &User,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut denied: BTreeMap<Denial, Vec<(&Asked, String)>> = BTreeMap::new();
    let mut told = BTreeSet::new();
    for (asked, answer) in asked.iter().zip(answers) {
        let what = format!("exchange `{}` (key `{}`)", asked.route.exchange, asked.key);
        match answer {
            // A missing exchange is reported elsewhere.
            Permitted::Yes | Permitted::No(404, _) => {}
            Permitted::No(403, text) => {
                let of_kind = denied.entry(Denial::read(&text)).or_default();
                of_kind.push((asked, text));
            }
            Permitted::No(code, text) => {
                if told.insert(format!("{code} {text}")) {
                    findings.push(refused(url, &what, code, &text));
                }
            }
            Permitted::Blocked => findings.push(blocked(url, "an alarm")),
            Permitted::Unknown(why) => findings.push(
                Finding::warning(format!(
                    "whether {url} would take a message for {what} could not be found out: {why}"
                ))
                .leaving_unseen(),
            ),
        }
    }
    let denied = denied
        .into_iter()
        .flat_map(|(denial, of_kind)| explain(denial, &of_kind, plan, url, user));
    findings.extend(denied);
    findings
}

/// No message is taken for as long as it lasts.
pub fn blocked(url: &BrokerUrl, reason: &str) -> Finding {
    Finding::error(format!("{url} takes no messages at the moment: {reason}"))
        .losing("events wait in the journal until it is over")
        .trying("free what the broker lacks; `rabbitmq-diagnostics alarms` says what")
        .about([Subject::Broker])
}

fn refused(url: &BrokerUrl, what: &str, code: u16, text: &str) -> Finding {
    Finding::error(format!(
        "{url} would not take a message for {what}: {code} {text}"
    ))
    .losing("its events wait in the journal, or become dead letters")
    .trying("what the broker says")
}

fn explain(
    denial: Denial,
    denied: &[(&Asked, String)],
    plan: &Topology,
    url: &BrokerUrl,
    user: &User,
) -> Vec<Finding> {
    const WAITING: &str = "its route is closed: events wait in the journal";
    let mut by_exchange: BTreeMap<&str, (Vec<Key>, &str)> = BTreeMap::new();
    for (asked, text) in denied {
        let entry = by_exchange.entry(&asked.route.exchange);
        let (keys, _) = entry.or_insert_with(|| (Vec::new(), text.as_str()));
        if !keys.contains(&asked.key) {
            keys.push(asked.key.clone());
        }
    }
    let publishing = |exchange: &str| Subject::Publishing(exchange.into());
    if denial == Denial::Exchange {
        let names: Vec<_> = by_exchange.keys().map(|name| format!("`{name}`")).collect();
        let exchanges = if names.len() == 1 {
            "exchange"
        } else {
            "exchanges"
        };
        let (name, text) = (&user.name, &denied[0].1);
        let problem = format!(
            "user `{name}` may not write to {exchanges} {}: {text}",
            names.join(", ")
        );
        let finding = Finding::error(problem)
            .losing(WAITING)
            .trying(user.grant(plan))
            .about(by_exchange.keys().map(|exchange| publishing(exchange)));
        return vec![finding];
    }
    let explain_one = |(exchange, (keys, text)): (&str, (Vec<Key>, &str))| {
        let shown: Vec<_> = keys.iter().map(|key| format!("`{key}`")).collect();
        let finding = match denial {
            Denial::Topic => Finding::error(format!(
                "user `{}` may not write to exchange `{exchange}` with the keys {}: {text}",
                user.name,
                shown.join(", ")
            ))
            .losing(WAITING)
            .trying(user.grant_topics(exchange, &keys)),
            Denial::Internal => Finding::error(format!(
                "exchange `{exchange}` is internal: nobody may publish to it, whatever the permissions ({text})"
            ))
            .losing(WAITING)
            .trying("configure another exchange, or delete this one and have `serve` declare it anew (`rabbitmq.topology = \"declare\"`), then bind your queues again")
            .because([publishing(exchange)]),
            Denial::Exchange | Denial::Other => {
                let what = format!("exchange `{exchange}` (key {})", shown.join(", "));
                refused(url, &what, 403, text)
            }
        };
        finding.about([publishing(exchange)])
    };
    by_exchange.into_iter().map(explain_one).collect()
}

#[cfg(test)]
mod tests {
    use deskbridge::config::Config;

    use super::*;

    fn findings(answers: &[(&str, &str, Permitted)]) -> Vec<Finding> {
        let asked: Vec<_> = answers
            .iter()
            .map(|(exchange, key, _)| Asked {
                route: Route {
                    exchange: (*exchange).into(),
                    routing_key: (*key).into(),
                },
                key: Key::literal(key),
            })
            .collect();
        let answers = answers
            .iter()
            .map(|(_, _, answer)| answer.clone())
            .collect();
        let url = BrokerUrl::parse("amqp://u:p@rabbit/v").unwrap();
        let user = User {
            name: "u".into(),
            vhost: "v".into(),
            ..User::default()
        };
        judge(
            &asked,
            answers,
            &Topology::plan(&Config::default()),
            &url,
            &user,
        )
    }

    #[track_caller]
    fn advises(text: &str, expected: &str, not: &str) {
        let refused = |key: &'static str| ("x", key, Permitted::No(403, text.replace("KEY", key)));
        let found = findings(&[refused("a"), refused("b")]);
        assert_eq!(found.len(), 1, "{found:#?}");
        let fix = found[0].fix.as_deref().unwrap();
        assert!(fix.contains(expected) && !fix.contains(not), "{fix}");
    }

    #[test]
    fn the_reply_text_decides_what_is_advised() {
        let [plain, topic] = ["set_permissions -p", "set_topic_permissions -p"];
        for write in ["access", "write access"] {
            let exchange = format!(
                "ACCESS_REFUSED - {write} to exchange 'x' in vhost 'v' refused for user 'u'"
            );
            advises(&exchange, plain, topic);
            let key = format!(
                "ACCESS_REFUSED - {write} to topic 'KEY' in exchange 'x' in vhost 'v' refused for user 'u'"
            );
            advises(&key, topic, plain);
        }
        let internal = "ACCESS_REFUSED - cannot publish to internal exchange 'x' in vhost 'v'";
        advises(internal, "another exchange", "permissions");
        advises(
            "ACCESS_REFUSED - of a later version",
            "what the broker says",
            "permissions",
        );
    }

    #[test]
    fn a_user_who_may_write_nowhere_is_one_finding() {
        let refused = |exchange: &'static str| {
            let text = format!(
                "ACCESS_REFUSED - access to exchange '{exchange}' in vhost 'v' refused for user 'u'"
            );
            (exchange, "k", Permitted::No(403, text))
        };
        let found = findings(&[refused("a"), refused("b"), refused("a")]);
        assert_eq!(found.len(), 1, "{found:#?}");
        let expected = "user `u` may not write to exchanges `a`, `b`: ";
        assert!(found[0].problem.starts_with(expected), "{found:#?}");
    }
}

//! What the broker answers to a probe for every status. The reply text decides, because one reply
//! code has several meanings. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::finding::{Findings, Subject, listed};
use super::input::CheckInput;
use super::remedy::ALARMS;
use crate::rabbitmq::publish_probe::ProbeAnswer;
use crate::rabbitmq::reply_code::{ACCESS_REFUSED, NOT_FOUND};
use crate::rabbitmq::snapshot::key::KeyPattern;
use crate::rabbitmq::url::BrokerUrl;
use crate::webhook::routing::Route;

/// By exchange: the keys that were denied, and the broker's first reply.
type Denied<'a> = BTreeMap<&'a str, (Vec<KeyPattern>, String)>;

/// Why the bridge's user may not publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Denial {
    /// No permission for this exchange.
    Exchange,
    /// No topic permission for this key.
    Topic,
    /// The exchange is internal: clients may not publish to it.
    Internal,
}

impl Denial {
    fn read(text: &str) -> Option<Self> {
        let known = [
            ("internal exchange", Self::Internal),
            ("access to topic", Self::Topic),
            ("access to exchange", Self::Exchange),
        ];
        let mut known = known.into_iter();
        known.find_map(|(words, denial)| text.contains(words).then_some(denial))
    }
}

/// What the answers for these routes mean, one finding per cause. Each route has the part that the
/// keys of all its sessions have in common.
pub fn judge(
    input: &CheckInput<'_>,
    url: &BrokerUrl,
    asked: &[(Route, KeyPattern)],
    answers: Vec<ProbeAnswer>,
    list: &mut Findings,
) {
    let mut denied: BTreeMap<Denial, Denied<'_>> = BTreeMap::new();
    let mut told = BTreeSet::new();
    for ((route, key), answer) in asked.iter().zip(answers) {
        let exchange = &*route.exchange;
        let what = format!("exchange `{exchange}` (key `{key}`)");
        match answer {
            // A missing exchange is reported by `topology`.
            ProbeAnswer::Yes | ProbeAnswer::No(NOT_FOUND, _) => {}
            ProbeAnswer::No(code, text) => {
                let denial = Denial::read(&text).filter(|_| code == ACCESS_REFUSED);
                if let Some(denial) = denial {
                    let of_kind = denied.entry(denial).or_default();
                    let (keys, _) = of_kind.entry(exchange).or_insert((Vec::new(), text));
                    if !keys.contains(key) {
                        keys.push(key.clone());
                    }
                } else if told.insert(format!("{code} {text}")) {
                    list.error(format!(
                        "{url} would not take a message for {what}: {code} {text}"
                    ))
                    .impact("its events wait in the journal, or become dead letters")
                    .fix("correct what the reply names: the exchange, the routing key or the broker's limits")
                    .about([Subject::Publishing(exchange.into())]);
                }
            }
            ProbeAnswer::Blocked => {
                list.error(format!("{url} takes no messages at the moment: an alarm"))
                    .impact("events wait in the journal until it is over")
                    .fix(ALARMS)
                    .about([Subject::Broker]);
            }
            ProbeAnswer::Unknown(why) => {
                list.warning(format!(
                    "it is unknown whether {url} would take a message for {what}: {why}"
                ))
                .not_inspected();
            }
        }
    }
    for (denial, of_kind) in denied {
        explain(input, denial, &of_kind, list);
    }
}

fn explain(input: &CheckInput<'_>, denial: Denial, denied: &Denied<'_>, list: &mut Findings) {
    const WAITING: &str =
        "its route is unavailable (`closed` in /status): events wait in the journal";
    let user = &input.user.name;
    let publishing = |exchange: &&str| Subject::Publishing((*exchange).into());
    if denial == Denial::Exchange
        && let Some((_, text)) = denied.values().next()
    {
        let plural = if denied.len() == 1 { "" } else { "s" };
        let names = listed(denied.keys());
        list.error(format!(
            "user `{user}` may not write to exchange{plural} {names}: {text}"
        ))
        .impact(WAITING)
        .fix(input.user.grant(&input.plan))
        .about(denied.keys().map(publishing));
        return;
    }
    for (exchange, (keys, text)) in denied {
        let shown = listed(keys);
        let finding = if denial == Denial::Internal {
            list.error(format!("exchange `{exchange}` is internal: clients may not publish to it, whatever their permissions ({text})"))
                .fix("configure another exchange, or delete this one and have `serve` declare it again (`rabbitmq.topology = \"declare\"`), then bind your queues again")
                .because([publishing(exchange)])
        } else {
            list.error(format!(
                "user `{user}` may not write to exchange `{exchange}` with the keys {shown}: {text}"
            ))
            .fix(input.user.grant_topics(exchange, keys))
        };
        finding.impact(WAITING).about([publishing(exchange)]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Finding;
    use super::*;
    use crate::config::Config;

    fn findings(answers: &[(&str, &str, ProbeAnswer)]) -> Vec<Finding> {
        let asked = answers.iter().map(|(exchange, key, _)| {
            let route = Route {
                exchange: (*exchange).into(),
                routing_key: (*key).into(),
            };
            (route, KeyPattern::literal(key))
        });
        let asked: Vec<_> = asked.collect();
        let answers = answers.iter().map(|(.., answer)| answer.clone());
        let url = BrokerUrl::parse("amqp://u:p@rabbit/v").unwrap();
        let mut list = Findings::default();
        let config = Config::default();
        judge(
            &CheckInput::of(&config),
            &url,
            &asked,
            answers.collect(),
            &mut list,
        );
        list.0
    }

    #[track_caller]
    fn advises(text: &str, expected: &str, not: &str) {
        let refused =
            |key: &'static str| ("x", key, ProbeAnswer::No(403, text.replace("KEY", key)));
        let found = findings(&[refused("a"), refused("b")]);
        assert_eq!(found.len(), 1, "{found:#?}");
        let fix = found[0].fix.as_deref().unwrap();
        assert!(fix.contains(expected) && !fix.contains(not), "{fix}");
    }

    #[test]
    fn advice_depends_on_the_reply_text() {
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
            "correct what the reply names",
            "permissions",
        );
    }

    #[test]
    fn user_without_any_write_permission_is_one_finding() {
        let refused = |exchange: &'static str| {
            let text = format!(
                "ACCESS_REFUSED - access to exchange '{exchange}' in vhost 'v' refused for user 'u'"
            );
            (exchange, "k", ProbeAnswer::No(403, text))
        };
        let found = findings(&[refused("a"), refused("b"), refused("a")]);
        assert_eq!(found.len(), 1, "{found:#?}");
        let expected = "user `bridge` may not write to exchanges `a`, `b`: ";
        assert!(found[0].problem.starts_with(expected), "{found:#?}");
    }
}

//! What the running bridge says of itself, as findings. Pure.

use deskbridge::rabbitmq::existing::Existing;
use deskbridge::rabbitmq::existing::key::Key;
use jiff::{SignedDuration, Timestamp};

use super::finding::{Finding, Subject, counted};
use super::running::{Retrying, Route, Status};

/// An event that nothing holds up is published within a moment.
const WAITING_SECONDS_MAX: f64 = 10.0;
/// A connection younger than that is not taken to last.
const SETTLED: SignedDuration = SignedDuration::from_secs(10);

/// Everything that is wrong with it. `existing` is what the management API told.
pub fn judge(status: &Status, existing: Option<&Existing>, now: Timestamp) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(accepting(status));
    findings.extend(connection(status, now));
    let routes = status.routes.iter().filter(|route| route.state != "open");
    findings.extend(routes.map(|route| not_open(route, existing)));
    findings.extend(status.retrying.iter().map(|one| retrying(one, existing)));
    if findings.is_empty() {
        findings.extend(waiting(status));
    }
    // The management API has told of these, and of today's.
    if existing.is_none() {
        let found = status.broker.findings.iter();
        findings.extend(found.map(|finding| declared(finding)));
    }
    findings.extend(reload(status));
    if status.journal.lost_events > 0 {
        findings.push(Finding::note(format!(
            "{} lost with a damaged database, ever",
            counted(status.journal.lost_events, "event")
        )));
    }
    let version = env!("CARGO_PKG_VERSION");
    if status.version != version {
        findings.push(Finding::note(format!(
            "the running bridge is version {}, this is {version}",
            status.version
        )));
    }
    findings
}

fn accepting(status: &Status) -> Option<Finding> {
    let reasons = status.not_ready.join("; ");
    (!reasons.is_empty()).then(|| {
        Finding::error(format!("the running bridge accepts no webhooks: {reasons}"))
            .losing("they are answered 503, and DeskDirector pauses them")
            .trying("what it says; `/status` and the log tell more")
    })
}

fn connection(status: &Status, now: Timestamp) -> Option<Finding> {
    let broker = &status.broker;
    let reason = broker.reason.as_deref().unwrap_or("no answer yet");
    let waiting = "events wait in the journal";
    let finding = match broker.state.as_str() {
        "connected" => {
            let is_young = broker
                .since
                .is_some_and(|since| now.duration_since(since) < SETTLED);
            if !is_young || broker.reconnects == 0 {
                return None;
            }
            let problem = format!(
                "the running bridge has just connected to the broker, and has lost its connection {} times in {} s",
                broker.reconnects, status.uptime_seconds
            );
            let finding = if status.backlog.events > 0 {
                Finding::error(problem)
            } else {
                Finding::warning(problem)
            };
            finding.trying("its log says why; run `check` again in a minute")
        }
        "blocked" => Finding::error(format!(
            "the broker has blocked the running bridge: {reason}"
        ))
        .trying("free what the broker lacks; `rabbitmq-diagnostics alarms` says what"),
        state => Finding::error(format!(
            "the running bridge is not connected to the broker ({state}): {reason}"
        ))
        .trying("what it says; restart the bridge if its configuration has changed since"),
    };
    Some(finding.losing(waiting).because([Subject::Broker]))
}

fn not_open(route: &Route, existing: Option<&Existing>) -> Finding {
    let Route {
        exchange,
        routing_key,
        state,
        reason,
    } = route;
    let reason = reason.as_deref().unwrap_or("it does not say why");
    Finding::error(format!(
        "the running bridge publishes nothing to exchange `{exchange}` with key `{routing_key}`: its route is {state}: {reason}"
    ))
    .losing("its events wait in the journal")
    .trying("what the broker says; the route opens by itself when a probe gets through")
    .because(causes(exchange, routing_key, existing))
}

fn retrying(one: &Retrying, existing: Option<&Existing>) -> Finding {
    let mut problem = format!(
        "{} for exchange `{}` with key `{}` refused ({}) and tried again",
        counted(one.events, "event"),
        one.exchange,
        one.routing_key,
        one.reason
    );
    if let Some(since) = one.since {
        problem = format!("{problem} since {since:.0}");
    }
    if let Some(last) = &one.last_refusal {
        problem = format!("{problem}; last: {last}");
    }
    let fix = match one.reason.as_str() {
        "unroutable" => "bind a durable queue to that exchange for that key".to_owned(),
        _ => format!(
            "a queue bound to `{}` is full or down: let a consumer drain it, raise its limit, or bring its nodes back",
            one.exchange
        ),
    };
    Finding::error(problem)
        .losing(
            "their sessions wait behind them; after `retry.attempts_max` they become dead letters",
        )
        .trying(fix)
        .because(causes(&one.exchange, &one.routing_key, existing))
}

/// What may keep events of a route.
fn causes(exchange: &str, key: &str, existing: Option<&Existing>) -> Vec<Subject> {
    let mut causes = vec![
        Subject::Broker,
        Subject::Exchange(exchange.into()),
        Subject::Publishing(exchange.into()),
    ];
    if let Some(existing) = existing {
        let reach = existing.reach(exchange, &Key::literal(key));
        let queues = reach.queues.into_iter();
        causes.extend(queues.map(|name| Subject::Queue(name.into())));
    }
    causes
}

/// Something holds events up that the bridge does not name.
fn waiting(status: &Status) -> Option<Finding> {
    let backlog = &status.backlog;
    (backlog.events > 0 && backlog.oldest_seconds > WAITING_SECONDS_MAX).then(|| {
        Finding::warning(format!(
            "{} waiting in the running bridge, the oldest for {:.0} s, although it is connected and every route is open",
            counted(backlog.events, "event"),
            backlog.oldest_seconds
        ))
        .losing("nothing yet: they are refused and tried again, or are many after an outage")
        .trying("run it again in a moment; if the oldest stays, `deskbridge events list --state pending` and the log say why")
    })
}

fn declared(finding: &str) -> Finding {
    Finding::warning(format!(
        "the running bridge has found with its last connect: {finding}"
    ))
    .losing("what it is for may not arrive as configured")
    .trying("what the broker says; SIGHUP has the bridge look again")
}

fn reload(status: &Status) -> Vec<Finding> {
    let Some(reload) = &status.reload else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    if !reload.is_applied {
        findings.push(
            Finding::warning(format!(
                "the running bridge has refused the last SIGHUP: {}",
                reload.findings.join("; ")
            ))
            .losing("nothing: it works with the configuration from before")
            .trying("correct the configuration, then SIGHUP again"),
        );
    }
    if !reload.waiting_for_restart.is_empty() {
        findings.push(Finding::note(format!(
            "changed, and in use only after a restart: {}",
            reload.waiting_for_restart.join(", ")
        )));
    }
    findings
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    #[track_caller]
    fn check(with: &Value, expected: &[&str]) {
        let mut status = json!({
            "version": env!("CARGO_PKG_VERSION"), "uptime_seconds": 1000, "not_ready": [],
            "broker": {"state": "connected", "since": "2026-06-01T12:00:00Z", "findings": []},
            "backlog": {"events": 0, "bytes": 0, "oldest_seconds": 0.0},
            "routes": [{"exchange": "x", "routing_key": "k", "state": "open", "reason": null}],
            "journal": {"refusal": null, "lost_events": 0}, "reload": null
        });
        for (key, value) in with.as_object().unwrap() {
            status[key] = value.clone();
        }
        let status: Status = from_value(status).unwrap();
        let now = "2026-06-01T12:00:05Z".parse().unwrap();
        let findings = judge(&status, None, now);
        let found: Vec<_> = findings.iter().map(ToString::to_string).collect();
        let fits = found.len() == expected.len()
            && found
                .iter()
                .zip(expected)
                .all(|(one, other)| one.starts_with(other));
        assert!(fits, "{found:#?}\nexpected {expected:#?}");
    }

    #[test]
    fn each_complaint_of_the_bridge_is_a_finding() {
        check(&json!({}), &[]);
        check(
            &json!({"not_ready": ["the journal is full"]}),
            &["error: the running bridge accepts no webhooks: the journal is full"],
        );
        for state in ["connecting", "refused"] {
            check(
                &json!({"broker": {"state": state, "reason": "no"}}),
                &[&format!(
                    "error: the running bridge is not connected to the broker ({state}): no"
                )],
            );
        }
        check(
            &json!({"broker": {"state": "blocked", "reason": "low on memory"}}),
            &["error: the broker has blocked the running bridge: low on memory"],
        );
        let route =
            json!({"exchange": "x", "routing_key": "k", "state": "closed", "reason": "404"});
        check(
            &json!({"routes": [route]}),
            &[
                "error: the running bridge publishes nothing to exchange `x` with key `k`: its route is closed: 404",
            ],
        );
        check(
            &json!({"reload": {"is_applied": false, "findings": ["bad"], "waiting_for_restart": []}}),
            &["warning: the running bridge has refused the last SIGHUP: bad"],
        );
        check(
            &json!({"version": "0.0.0"}),
            &["note: the running bridge is version 0.0.0"],
        );
    }

    #[test]
    fn refused_events_are_an_error_with_their_route() {
        let one = json!({
            "exchange": "x", "routing_key": "k", "reason": "nacked", "events": 13,
            "since": "2026-06-01T11:59:20Z", "last_refusal": "refused by a queue"
        });
        check(
            &json!({"retrying": [one], "backlog": {"events": 13, "oldest_seconds": 45.0}}),
            &[
                "error: 13 events for exchange `x` with key `k` refused (nacked) and tried again since 2026-06-01T11:59:20Z; last: refused by a queue",
            ],
        );
        // A bridge that does not say so shows it by what waits.
        check(
            &json!({"backlog": {"events": 13, "oldest_seconds": 45.0}}),
            &["warning: 13 events waiting in the running bridge, the oldest for 45 s, "],
        );
    }

    #[test]
    fn a_connection_that_does_not_last_is_found() {
        let young =
            json!({"state": "connected", "since": "2026-06-01T12:00:04Z", "reconnects": 40});
        let lost = "the running bridge has just connected to the broker, and has lost its connection 40 times in 1000 s";
        check(&json!({"broker": young}), &[&format!("warning: {lost}")]);
        check(
            &json!({"broker": young, "backlog": {"events": 1, "oldest_seconds": 3.0}}),
            &[&format!("error: {lost}")],
        );
        let old = json!({"state": "connected", "since": "2026-06-01T11:00:00Z", "reconnects": 40});
        check(&json!({"broker": old}), &[]);
    }
}

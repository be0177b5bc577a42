//! The status of the running bridge, as findings. Pure.

use jiff::{SignedDuration, Timestamp};

use super::finding::{Findings, Severity, Subject};
use super::remedy::ALARMS;
use crate::ops::counted;
use crate::ops::running_bridge::{Retrying, RunningRoute, RunningStatus};
use crate::rabbitmq::REJECTED_WAIT;
use crate::rabbitmq::snapshot::BrokerSnapshot;
use crate::rabbitmq::snapshot::key::KeyPattern;

/// Age of the oldest pending event, in seconds, above which something must be delaying it.
const WAITING_SECONDS_MAX: f64 = 10.0;
/// A connection younger than this does not count as stable.
const SETTLED: SignedDuration = SignedDuration::from_secs(10);

/// Everything that is wrong with the running bridge. `existing` is the snapshot of the management
/// API, if there is one.
pub fn judge(
    status: &RunningStatus,
    existing: Option<&BrokerSnapshot>,
    now: Timestamp,
    list: &mut Findings,
) {
    let before = list.0.len();
    if !status.not_ready.is_empty() {
        let reasons = status.not_ready.join("; ");
        list.error(format!("the running bridge accepts no webhooks: {reasons}"))
            .impact("they are answered 503, and DeskDirector pauses them")
            .fix("remove what the reason names: free disk space, end the program that locks `journal.db`, add the secret, or reconnect the broker if the backlog is at its limit");
    }
    connection(status, now, list);
    for pause in &status.paused {
        list.warning(format!(
            "{} is paused since {:.0}",
            pause.subject(),
            pause.since
        ))
        .impact("its events wait in the journal")
        .fix("`deskbridge resume`, if consumers are ready");
    }
    let is_broken = |route: &&RunningRoute| !["open", "paused"].contains(&&*route.state);
    for route in status.routes.iter().filter(is_broken) {
        not_open(route, existing, list);
    }
    for one in &status.retrying {
        retrying(one, existing, list);
    }
    if list.0.len() == before {
        waiting(status, list);
    }
    let found = status.broker.findings.iter();
    let (waiting, found): (Vec<_>, Vec<_>) =
        found.partition(|finding| finding.starts_with(REJECTED_WAIT));
    for finding in waiting {
        list.error(finding)
            .impact("they are not delivered again")
            .fix("remove what the reason names; look at them with `deskbridge dead-letters list --queue QUEUE.rejected`");
    }
    for finding in found {
        // The management API reports these more recently, and so does the own connection the
        // version.
        if existing.is_some() || list.0.iter().any(|one| one.problem == *finding) {
            continue;
        }
        list.warning(format!(
            "the running bridge found at its last connect: {finding}"
        ))
        .impact("its events may not arrive as configured")
        .fix("correct that object or the configuration, then send SIGHUP: the bridge checks again; with `rabbitmq.management_url`, `check` names the command");
    }
    reload(status, list);
    if status.journal.lost_events > 0 {
        let events = counted(status.journal.lost_events, "event");
        list.note(format!("{events} lost so far with a damaged database"));
    }
    let (running, this) = (&status.version, env!("CARGO_PKG_VERSION"));
    if running != this {
        list.note(format!(
            "the running bridge is version {running}, this is {this}"
        ));
    }
}

fn connection(status: &RunningStatus, now: Timestamp, list: &mut Findings) {
    let broker = &status.broker;
    let reason = broker.reason.as_deref().unwrap_or("no answer yet");
    let finding = match broker.state.as_str() {
        "connected" => {
            let is_young = |since| now.duration_since(since) < SETTLED;
            if broker.reconnects == 0 || !broker.since.is_some_and(is_young) {
                return;
            }
            let severity = Severity::of(status.backlog.events > 0);
            let (times, seconds) = (broker.reconnects, status.uptime_seconds);
            list.add(severity, format!("the running bridge has just connected to the broker, and has lost its connection {times} times in {seconds} s"))
                .fix("its log says why; run `check` again in a minute")
        }
        "blocked" => list
            .error(format!(
                "the broker has blocked the running bridge: {reason}"
            ))
            .fix(ALARMS),
        state => list
            .error(format!(
                "the running bridge is not connected to the broker ({state}): {reason}"
            ))
            .fix("start the broker, or correct what the reason names; restart the bridge if `rabbitmq` in its configuration has changed"),
    };
    finding
        .impact("events wait in the journal")
        .because([Subject::Broker]);
}

fn not_open(route: &RunningRoute, existing: Option<&BrokerSnapshot>, list: &mut Findings) {
    let (exchange, key, state) = (&route.exchange, &route.routing_key, &route.state);
    let reason = route.reason.as_deref();
    let reason = reason.unwrap_or("it does not say why");
    list.error(format!("the running bridge publishes nothing to exchange `{exchange}` with key `{key}` (route `{state}` in /status): {reason}"))
        .impact("its events wait in the journal")
        .fix("NOT_FOUND: declare the exchange; ACCESS_REFUSED: let the bridge's user write to it; no confirm: start the nodes of its queues; the route then recovers by itself")
        .because(causes(exchange, key, existing));
}

fn retrying(one: &Retrying, existing: Option<&BrokerSnapshot>, list: &mut Findings) {
    let (exchange, key, reason) = (&one.exchange, &one.routing_key, &one.reason);
    let events = counted(one.events, "event");
    let since = one.since.map(|since| format!(" since {since:.0}"));
    let refusal = one.last_refusal.as_ref();
    let refusal = refusal.map(|text| format!("; last: {text}"));
    let (since, refusal) = (since.unwrap_or_default(), refusal.unwrap_or_default());
    let fix = match reason.as_str() {
        "unroutable" => "bind a durable queue to that exchange for that key".to_owned(),
        _ => format!(
            "a queue bound to `{exchange}` is full or down: let a consumer drain it, raise its limit, or bring its nodes back"
        ),
    };
    list.error(format!("{events} for exchange `{exchange}` with key `{key}` rejected by the broker ({reason}) and retried{since}{refusal}"))
        .impact("later events of their sessions wait; after `retry.attempts_max` attempts they become dead letters")
        .fix(fix)
        .because(causes(exchange, key, existing));
}

/// The subjects whose findings may be the cause of a problem with a route.
fn causes(exchange: &str, key: &str, existing: Option<&BrokerSnapshot>) -> Vec<Subject> {
    let mut causes = vec![
        Subject::Broker,
        Subject::Exchange(exchange.into()),
        Subject::Publishing(exchange.into()),
    ];
    let reach = existing.map(|existing| existing.reach(exchange, &KeyPattern::literal(key)));
    let queues = reach.into_iter().flat_map(|reach| reach.queues);
    causes.extend(queues.map(|name| Subject::Queue(name.into())));
    causes
}

/// Adds a finding if events wait although the bridge reports no problem.
fn waiting(status: &RunningStatus, list: &mut Findings) {
    let (events, oldest) = (status.backlog.events, status.backlog.oldest_seconds);
    if events > 0 && oldest > WAITING_SECONDS_MAX {
        let events = counted(events, "event");
        list.warning(format!("{events} waiting in the running bridge, the oldest for {oldest:.0} s, although it is connected and every route is healthy"))
            .impact("nothing yet: the broker rejects them and they are retried, or there are many after an outage")
            .fix("run `check` again in a moment; if the oldest event stays, `deskbridge events list --state pending` and the log say why");
    }
}

fn reload(status: &RunningStatus, list: &mut Findings) {
    let Some(reload) = &status.reload else {
        return;
    };
    if !reload.is_applied {
        let findings = reload.findings.join("; ");
        list.warning(format!(
            "the running bridge rejected its last reload: {findings}"
        ))
        .impact("nothing: it goes on with the previous configuration")
        .fix("correct the configuration, then send SIGHUP again");
    }
    if !reload.waiting_for_restart.is_empty() {
        let changed = reload.waiting_for_restart.join(", ");
        list.note(format!("changed, but used only after a restart: {changed}"));
    }
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
        let status: RunningStatus = from_value(status).unwrap();
        let now = "2026-06-01T12:00:05Z".parse().unwrap();
        let mut list = Findings::default();
        judge(&status, None, now, &mut list);
        list.begin_with(expected);
    }

    #[test]
    fn every_problem_of_the_bridge_is_a_finding() {
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
                "error: the running bridge publishes nothing to exchange `x` with key `k` (route `closed` in /status): 404",
            ],
        );
        check(
            &json!({"reload": {"is_applied": false, "findings": ["bad"], "waiting_for_restart": []}}),
            &["warning: the running bridge rejected its last reload: bad"],
        );
        check(
            &json!({"version": "0.0.0"}),
            &["note: the running bridge is version 0.0.0"],
        );
    }

    #[test]
    fn refused_events_are_an_error_with_route() {
        let one = json!({
            "exchange": "x", "routing_key": "k", "reason": "nacked", "events": 13,
            "since": "2026-06-01T11:59:20Z", "last_refusal": "refused by a queue"
        });
        check(
            &json!({"retrying": [one], "backlog": {"events": 13, "oldest_seconds": 45.0}}),
            &[
                "error: 13 events for exchange `x` with key `k` rejected by the broker (nacked) and retried since 2026-06-01T11:59:20Z; last: refused by a queue",
            ],
        );
        // A bridge without `retrying` in its status shows it by its backlog.
        check(
            &json!({"backlog": {"events": 13, "oldest_seconds": 45.0}}),
            &["warning: 13 events waiting in the running bridge, the oldest for 45 s, "],
        );
    }

    #[test]
    fn unstable_connection_is_found() {
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

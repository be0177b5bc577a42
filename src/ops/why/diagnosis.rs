//! From the evidence to the cause. Pure.

use std::time::Duration;

use jiff::Timestamp;

use crate::config::units::format_duration;
use crate::journal::FinalState;
use crate::journal::archive::{Entry, StateDetails};
use crate::ops::check::finding::Findings;
use crate::ops::check::{Finding, running_status};
use crate::ops::counted;
use crate::ops::running_bridge::{RunningSource, RunningStatus};
use crate::rabbitmq::snapshot::key::KeyPattern;
use crate::rabbitmq::snapshot::{BrokerSnapshot, FoundQueue};
use crate::webhook::DeadLetterReason;
use crate::webhook::routing::{Route, Routing};

/// What is known about the events of a session.
#[derive(Debug)]
pub struct Evidence {
    /// The events, in the order of receipt.
    pub entries: Vec<Entry>,
    /// The status of the bridge; `None` if none is running. Otherwise the problem and its fix.
    pub running: Result<Option<RunningStatus>, (String, &'static str)>,
    /// What exists on the broker, if its management API could be queried.
    pub snapshot: Option<BrokerSnapshot>,
    /// How long the journal keeps published events.
    pub retention: Duration,
}

/// The answer.
#[derive(Debug)]
pub struct Diagnosis {
    /// Where each event is, in the order of the entries.
    pub places: Vec<String>,
    /// What is wrong, the first cause first; notes at the end.
    pub findings: Vec<Finding>,
}

impl Diagnosis {
    /// Finds the causes. `asked` is what the operator has named.
    #[must_use]
    pub fn of(asked: &str, evidence: &Evidence, routing: &Routing, now: Timestamp) -> Self {
        let mut list = Findings::default();
        if evidence.entries.is_empty() {
            evidence.nothing_found(asked, &mut list);
        }
        let mut places = Vec::new();
        let mut is_waiting = false;
        for entry in &evidence.entries {
            places.push(evidence.place(entry, routing));
            match &entry.details {
                // The first pending event of a session holds back the others.
                StateDetails::Pending { .. } if is_waiting => {}
                StateDetails::Pending { .. } => {
                    is_waiting = true;
                    evidence.pending(entry, routing, now, &mut list);
                }
                StateDetails::Completed { final_state, .. } => match final_state {
                    Ok(FinalState::Published) => {
                        evidence.published(&routing.original_route(&entry.event), &mut list);
                    }
                    Ok(FinalState::DeadLettered(reason)) => {
                        dead_lettered(entry, *reason, &mut list);
                    }
                    Err(_) => {}
                },
            }
        }
        let mut findings: Vec<Finding> = Vec::new();
        for finding in list.grouped() {
            if !findings
                .iter()
                .any(|known| known.problem == finding.problem)
            {
                findings.push(finding);
            }
        }
        Self { places, findings }
    }
}

impl Evidence {
    fn place(&self, entry: &Entry, routing: &Routing) -> String {
        match &entry.details {
            StateDetails::Pending {
                dead_letter_cause: Some(cause),
                ..
            } => format!("waits to become a dead letter: {}", cause.reason.as_str()),
            StateDetails::Pending { attempts: 0, .. } => "waits in the journal".into(),
            StateDetails::Pending { attempts, .. } => {
                format!(
                    "waits in the journal, rejected {}",
                    counted(*attempts, "time")
                )
            }
            StateDetails::Completed {
                final_state: Ok(FinalState::Published),
                ..
            } => match self.queues(&routing.original_route(&entry.event)) {
                Some(queues) if queues.is_empty() => "published, no queue is bound".into(),
                Some(queues) => {
                    let names: Vec<_> = queues.iter().map(|queue| &*queue.name).collect();
                    format!("published to {}", names.join(", "))
                }
                None => "published".into(),
            },
            StateDetails::Completed {
                final_state: Ok(FinalState::DeadLettered(reason)),
                ..
            } => format!("dead letter: {}", reason.as_str()),
            StateDetails::Completed { .. } => "completed, the outcome is damaged".into(),
        }
    }

    /// The queues that keep messages of a route, as the broker is now.
    fn queues(&self, route: &Route) -> Option<Vec<&FoundQueue>> {
        let snapshot = self.snapshot.as_ref()?;
        let key = KeyPattern::literal(&route.routing_key);
        let reach = snapshot.reach(&route.exchange, &key);
        Some(snapshot.durable(&reach).collect())
    }

    fn nothing_found(&self, asked: &str, list: &mut Findings) {
        let retention = format_duration(self.retention);
        let missing =
            format!("the journal has no event of session `{asked}`, and none with that message_id");
        let status = match &self.running {
            Ok(Some(status)) => status,
            Ok(None) => {
                list.error(format!(
                    "{missing}; no bridge is running, so no webhook is accepted"
                ))
                .fix("start the bridge (`deskbridge serve`)");
                return;
            }
            Err((problem, fix)) => {
                list.error(format!("{missing}; {problem}")).fix(*fix);
                return;
            }
        };
        if !status.not_ready.is_empty() {
            let reasons = status.not_ready.join("; ");
            list.error(format!("{missing}; webhooks are not accepted: {reasons}"))
                .fix("remove what the reason names; `deskbridge check` says how");
            return;
        }
        if let Some((source, reason)) = status.sources.iter().find_map(refused_last) {
            list.error(format!("{missing}; the last webhook of source `{source}` was refused: {reason}"))
                .fix("`deskbridge verify` finds the secret of a signature; DeskDirector pauses a webhook for 30 minutes after a refusal and never sends what happens meanwhile");
            return;
        }
        let received = status
            .sources
            .iter()
            .filter_map(|source| source.last_received)
            .max();
        let arrived = match received {
            Some(at) => format!("the last webhook arrived at {at:.0}"),
            None => format!(
                "no webhook has arrived since the bridge started {} s ago",
                status.uptime_seconds
            ),
        };
        list.error(format!("{missing}; {arrived}")).fix(format!(
            "search by name with `deskbridge events list --name NAME`. Published events are kept for {retention} (`journal.retention`). Otherwise DeskDirector has not sent it: look whether its webhook is active"
        ));
    }

    fn pending(&self, head: &Entry, routing: &Routing, now: Timestamp, list: &mut Findings) {
        let status = match &self.running {
            Ok(Some(status)) => status,
            Ok(None) => {
                list.error("no bridge is running, so nothing is published")
                    .impact("events wait in the journal")
                    .fix("start the bridge (`deskbridge serve`)");
                return;
            }
            Err((problem, fix)) => {
                list.error(problem.clone()).fix(*fix);
                return;
            }
        };
        let route = match &head.details {
            StateDetails::Pending {
                dead_letter_cause: Some(cause),
                ..
            } => routing.dead_letter_route(cause.reason),
            _ => routing.route(&head.event),
        };
        let before = list.0.len();
        let status = about(status, &route);
        running_status::judge(&status, self.snapshot.as_ref(), now, list);
        if list.0.len() == before {
            let events = counted(status.backlog.events, "event");
            list.note(format!(
                "event {} waits for its turn: {events} pending, the oldest for {:.0} s, and nothing is wrong with exchange `{}` and key `{}`",
                head.seq, status.backlog.oldest_seconds, route.exchange, route.routing_key
            ));
        }
    }

    fn published(&self, route: &Route, list: &mut Findings) {
        let (exchange, key) = (&route.exchange, &route.routing_key);
        let Some(snapshot) = &self.snapshot else {
            list.note(format!(
                "published to exchange `{exchange}` with key `{key}`; its queues were not inspected"
            ))
            .fix("set `rabbitmq.management_url = \"http://HOST:15672\"`");
            return;
        };
        let reach = snapshot.reach(exchange, &KeyPattern::literal(key));
        if let Some(alternate) = reach.alternate {
            list.error(format!("no queue is bound to exchange `{exchange}` for key `{key}`: its messages go to exchange `{alternate}`"))
                .impact("no consumer receives them")
                .fix("bind a durable queue, then run `deskbridge dead-letters replay --queue chat-sessions.unrouted`; `deskbridge check` names the command");
            return;
        }
        for queue in snapshot.durable(&reach) {
            consumed(queue, list);
        }
    }
}

/// The part of a status that concerns a route.
fn about(status: &RunningStatus, route: &Route) -> RunningStatus {
    let is_it =
        |exchange: &str, key: &str| *route.exchange == *exchange && *route.routing_key == *key;
    let mut part = status.clone();
    // An accepted event does not depend on these.
    part.not_ready.clear();
    part.reload = None;
    part.broker.findings.clear();
    part.journal.lost_events = 0;
    part.routes
        .retain(|one| is_it(&one.exchange, &one.routing_key));
    part.retrying
        .retain(|one| is_it(&one.exchange, &one.routing_key));
    part.paused
        .retain(|pause| pause.covers(&route.exchange, &route.routing_key));
    part
}

/// Whether the latest request to a source was refused, and why.
fn refused_last(source: &RunningSource) -> Option<(&str, String)> {
    let refused = source.last_refused.as_ref()?;
    let is_last = source
        .last_received
        .is_none_or(|received| refused.at > Some(received));
    is_last.then(|| {
        (
            &*source.name,
            format!("{} {}", refused.code, refused.reason),
        )
    })
}

fn consumed(queue: &FoundQueue, list: &mut Findings) {
    let name = &queue.name;
    let messages = queue.messages.unwrap_or(0);
    let waiting = counted(messages.unsigned_abs(), "message");
    let consumers = queue.consumers.unwrap_or(0);
    if messages == 0 {
        list.note(format!("queue `{name}` is empty: a consumer has acknowledged its messages, or rejected them (`deskbridge dead-letters list`)"));
    } else if consumers == 0 {
        list.error(format!(
            "queue `{name}` has no consumer, and {waiting} in it"
        ))
        .impact("its messages are not processed")
        .fix(format!(
            "start the consumer of `{name}`, and look into its log"
        ));
    } else {
        let held = queue.messages_unacknowledged.unwrap_or(0);
        let consumers = counted(consumers.unsigned_abs(), "consumer");
        list.warning(format!(
            "queue `{name}` has {waiting} and {consumers}, which hold {held} unacknowledged"
        ))
        .impact("a message may wait behind others")
        .fix(format!(
            "look into the log of the consumers of `{name}`: they are slow, or do not acknowledge"
        ));
    }
}

fn dead_lettered(entry: &Entry, reason: DeadLetterReason, list: &mut Findings) {
    let id = entry.event.message_id;
    let (problem, fix) = match reason {
        DeadLetterReason::Invalid | DeadLetterReason::Malformed => (
            "DeskDirector sent something that is no valid session",
            format!(
                "`deskbridge dead-letters show {id}` says what is wrong; send a corrected one with `deskbridge dead-letters replay --body FILE {id}`"
            ),
        ),
        DeadLetterReason::Unroutable => (
            "no queue was bound for it",
            format!("bind a durable queue, then run `deskbridge dead-letters replay {id}`"),
        ),
        DeadLetterReason::Nacked => (
            "a queue rejected it: it was full or its nodes were down",
            format!(
                "let a consumer drain the queue or raise its limit, then run `deskbridge dead-letters replay {id}`"
            ),
        ),
        DeadLetterReason::TooLarge => (
            "it is larger than the broker accepts",
            format!(
                "raise `rabbitmq.message_bytes_max` and the broker's `max_message_size`, then run `deskbridge events replay {}`",
                entry.event.message_id
            ),
        ),
        DeadLetterReason::Damaged => (
            "its stored body is damaged",
            "look up the session in DeskDirector, and check the disk".to_owned(),
        ),
    };
    let reason = reason.as_str();
    list.error(format!(
        "event {} is a dead letter ({reason}): {problem}",
        entry.seq
    ))
    .impact("its consumers have not received it, unless somebody has replayed it since")
    .fix(fix);
}

//! Whether the exchanges of the plan have the planned type, durability and alternate. Pure.

use serde_json::json;

use super::finding::{Findings, Subject};
use super::input::CheckInput;
use super::remedy::{recreate_exchange, set_policy};
use crate::rabbitmq::snapshot;
use crate::rabbitmq::topology::{Object, PlannedExchange};

/// Findings about every exchange of the plan that exists.
pub fn judge(input: &CheckInput<'_>, list: &mut Findings) {
    for object in &input.plan.objects {
        if let Object::Exchange(planned) = object
            && let Some(found) = input.existing.exchange(&planned.name)
        {
            properties(input, planned, found, list);
            alternate(input, planned, found, list);
        }
    }
}

fn properties(
    input: &CheckInput<'_>,
    planned: &PlannedExchange,
    found: &snapshot::FoundExchange,
    list: &mut Findings,
) {
    let name = &found.name;
    let (wanted, kind) = (planned.kind.name(), &found.kind);
    if wanted != kind {
        list.error(format!(
            "exchange `{name}` is of type {kind}, not {wanted}, and is left as it is"
        ))
        .impact("binding keys mean something else there: events do not reach their queues")
        .fix(recreate_exchange(input, found))
        .about([Subject::Exchange(name.clone())]);
    }
    let transient = match (found.durable, found.auto_delete) {
        (true, false) => None,
        (true, true) => Some("is auto-delete: it is deleted with its last binding"),
        (false, _) => Some("is not durable: a restart of the broker deletes it"),
    };
    if let Some(how) = transient {
        list.error(format!("exchange `{name}` {how}"))
            .impact(
                "the bindings of your queues are deleted with it: from then on they get no events",
            )
            .fix(recreate_exchange(input, found));
    }
    if found.internal {
        list.error(format!(
            "exchange `{name}` is internal: clients may not publish to it"
        ))
        .impact("its route is unavailable (`closed` in /status): events wait in the journal")
        .fix(recreate_exchange(input, found))
        .about([Subject::Publishing(name.clone())]);
    }
}

fn alternate(
    input: &CheckInput<'_>,
    planned: &PlannedExchange,
    found: &snapshot::FoundExchange,
    list: &mut Findings,
) {
    let (name, policy) = (&found.name, found.policy.as_deref());
    let Some(wanted) = planned.alternate.as_deref() else {
        return;
    };
    match (input.existing.alternate(found), policy) {
        (Some(alternate), _) if alternate == wanted => {}
        (Some(other), _) => {
            list.warning(format!(
                "exchange `{name}` has the alternate exchange `{other}`, not `{wanted}`"
            ))
            .impact(format!("events that match no binding go to `{other}`"));
        }
        (None, Some(policy)) if !input.existing.knows_policies => {
            list.warning(format!("it is unknown whether exchange `{name}` has an alternate exchange: its policy `{policy}` may not be read"))
                .fix("use a user with the tag `policymaker` in `rabbitmq.management_url`");
        }
        (None, policy) => {
            let definition = json!({ "alternate-exchange": wanted });
            list.error(format!("exchange `{name}` has no alternate exchange"))
                .impact("events that match no binding are not kept: they are returned and become dead letters (`unroutable`)")
                .fix(match policy {
                    Some(policy) => format!("set {definition} in its policy `{policy}`"),
                    None => set_policy(input, "exchanges", name, &definition),
                });
        }
    }
}

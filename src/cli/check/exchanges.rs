//! Whether the exchanges we publish to are of the kind that was planned. Pure.

use deskbridge::rabbitmq::existing::{self, Existing};
use deskbridge::rabbitmq::topology::{Exchange, Object, Topology};
use serde_json::json;

use super::case::Case;
use super::finding::{DECLARE, Finding, Subject, quoted};
use super::topology::subject;

/// Every exchange of the plan that exists.
pub fn judge(case: &Case<'_>) -> Vec<Finding> {
    let planned = case.plan.objects.iter().filter_map(|object| match object {
        Object::Exchange(planned) => Some(planned),
        _ => None,
    });
    planned
        .filter_map(|planned| Some((planned, case.existing.exchange(&planned.name)?)))
        .flat_map(|(planned, found)| {
            let lines = [
                kind(case, planned, found),
                durability(case, found),
                internal(case, found),
                alternate(case, planned, found),
            ];
            lines.into_iter().flatten()
        })
        .collect()
}

/// Bindings that nobody has made. AMQP cannot ask for them.
pub fn unbound(existing: &Existing, plan: &Topology, declares: bool) -> Vec<Finding> {
    let objects = plan.objects.iter();
    let missing = objects.filter(|object| match object {
        Object::Binding(binding) => {
            // What is missing itself is told of already.
            existing.exchange(&binding.exchange).is_some()
                && existing.queue(&binding.queue).is_some()
                && !existing.has(object)
        }
        Object::Exchange(_) | Object::Queue(_) => false,
    });
    let line = |binding: &Object| {
        let problem = format!("{binding} is missing");
        let line = if declares {
            Finding::warning(format!(
                "{problem}; `serve` declares it when it starts, after a reconnect, or on SIGHUP"
            ))
            .losing("until then what it is for goes elsewhere")
            .trying(DECLARE)
        } else {
            Finding::error(problem)
                .losing("with rabbitmq.topology = \"verify\" nobody makes it, and what it is for goes elsewhere")
                .trying("bind it, or `rabbitmq.topology = \"declare\"`")
        };
        line.about([subject(binding)]).because([subject(binding)])
    };
    missing.map(line).collect()
}

fn kind(case: &Case<'_>, planned: &Exchange, found: &existing::Exchange) -> Option<Finding> {
    let (wanted, kind) = (planned.kind.name(), &found.kind);
    (wanted != kind).then(|| {
        let problem = format!(
            "exchange `{}` is of type {kind}, not {wanted}, and is left as it is",
            found.name
        );
        Finding::error(problem)
            .losing(
                "binding keys mean something else there: events miss the queues they are meant for",
            )
            .trying(anew(case, found))
            .about([Subject::Exchange(found.name.clone())])
    })
}

fn durability(case: &Case<'_>, found: &existing::Exchange) -> Option<Finding> {
    let what = match (found.durable, found.auto_delete) {
        (true, false) => return None,
        (true, true) => "is auto-delete: it goes with its last binding",
        (false, _) => "is not durable: it goes with a restart of the broker",
    };
    let problem = format!("exchange `{}` {what}", found.name);
    Some(
        Finding::error(problem)
            .losing("with it go the bindings of your queues: events miss them from then on")
            .trying(anew(case, found)),
    )
}

fn internal(case: &Case<'_>, found: &existing::Exchange) -> Option<Finding> {
    let problem = format!(
        "exchange `{}` is internal: nobody may publish to it",
        found.name
    );
    found.internal.then(|| {
        Finding::error(problem)
            .losing("its route is closed: events wait in the journal")
            .trying(anew(case, found))
            .about([Subject::Publishing(found.name.clone())])
    })
}

fn alternate(case: &Case<'_>, planned: &Exchange, found: &existing::Exchange) -> Option<Finding> {
    let wanted = planned.alternate.as_deref()?;
    let alternate = case.existing.alternate(found);
    if alternate == Some(wanted) {
        return None;
    }
    let lost = "events nobody has subscribed to are not kept there: they are returned and become dead letters (`unroutable`)";
    if let Some(other) = alternate {
        let problem = format!(
            "exchange `{}` has the alternate exchange `{other}`, not `{wanted}`",
            found.name
        );
        return Some(
            Finding::warning(problem)
                .losing(format!("events nobody has subscribed to go to `{other}`")),
        );
    }
    if let Some(policy) = found
        .policy
        .as_ref()
        .filter(|_| !case.existing.knows_policies)
    {
        let problem = format!(
            "whether exchange `{}` has an alternate exchange cannot be seen: its policy `{policy}` may not be read",
            found.name
        );
        return Some(
            Finding::warning(problem)
                .trying("a user with the tag `policymaker` in `rabbitmq.management_url`"),
        );
    }
    let problem = format!("exchange `{}` has no alternate exchange", found.name);
    let definition = json!({ "alternate-exchange": wanted });
    let advice = match &found.policy {
        Some(policy) => format!("{definition} in its policy `{policy}`"),
        None => case.set_policy("exchanges", &found.name, &definition),
    };
    Some(Finding::error(problem).losing(lost).trying(advice))
}

/// What an exchange is cannot be changed.
fn anew(case: &Case<'_>, found: &existing::Exchange) -> String {
    format!(
        "delete it in the management pages or with `rabbitmqadmin --vhost={} delete exchange name={}`; \
         with `rabbitmq.topology = \"declare\"` `serve` declares it anew: {DECLARE}; then bind your queues again",
        quoted(case.vhost),
        quoted(&found.name)
    )
}

//! The run as a whole: bounds (I10), liveness after the last fault (I11), the bridge's own counters
//! (I12), and whether the run is valid (I13).

use super::{Caps, Findings, Index, Invariant, UNCERTAIN, is_genuine};
use crate::ledger::{Account, Outcome};
use crate::schedule::{Kind, Lane};

pub(super) fn judge(index: &Index, caps: &Caps, findings: &mut Findings) {
    bounds(index, caps, findings);
    life(index, findings);
    books(index, findings);
    counts(index, findings);
    for complaint in &index.history.complaints {
        findings.add(Invariant::Complaint, None, complaint.clone());
    }
}

fn bounds(index: &Index, caps: &Caps, findings: &mut Findings) {
    let peaks = &index.history.peaks;
    for (what, seen, cap) in [
        ("bytes of memory", peaks.rss_bytes, caps.rss_bytes),
        ("descriptors", peaks.descriptors, caps.descriptors),
        ("bytes of journal", peaks.journal_bytes, caps.journal_bytes),
    ] {
        if seen > cap {
            let text = format!("{seen} {what}, {cap} at most");
            findings.add(Invariant::I10Bounded, None, text);
        }
    }
    let (before, after) = index.history.ending.descriptors;
    if after > before + DESCRIPTORS_MORE {
        let text = format!("{before} descriptors before the first fault, {after} after the last");
        findings.add(Invariant::I10Bounded, None, text);
    }
}

/// For connections to the broker that are being opened or closed.
const DESCRIPTORS_MORE: u64 = 8;

fn life(index: &Index, findings: &mut Findings) {
    let ending = &index.history.ending;
    match ending.probe {
        None => findings.add(
            Invariant::I11Liveness,
            None,
            "an event sent after the last fault never came",
        ),
        Some(took) if took > ending.probe_limit => {
            let what = format!("an event sent after the last fault arrived only after {took} µs");
            findings.add(Invariant::I11Liveness, None, what);
        }
        Some(_) => {}
    }
    if ending.account.backlog > 0 {
        let what = format!("{} events are still pending", ending.account.backlog);
        findings.add(Invariant::I11Liveness, None, what);
    }
}

fn books(index: &Index, findings: &mut Findings) {
    let ending = &index.history.ending.account;
    for account in index.history.accounts.iter().chain([ending]) {
        let Account {
            accepted,
            published,
            dead_lettered,
            backlog,
            at,
        } = *account;
        if accepted != published + dead_lettered + backlog {
            let what = format!(
                "at {at}: {accepted} accepted, but {published} published + {dead_lettered} \
                 dead-lettered + {backlog} waiting"
            );
            findings.add(Invariant::I12Accounting, None, what);
        }
    }
    let (mut least, mut most) = (0, 0);
    for request in &index.history.requests {
        let events = request.events.len() as u64;
        for attempt in &request.attempts {
            let is_ok = attempt.outcome == Outcome::Ok;
            let may = attempt.outcome == Outcome::Info
                || index.is_during(attempt.begin, attempt.end, UNCERTAIN);
            least += if is_ok { events } else { 0 };
            most += if is_ok || may { events } else { 0 };
        }
    }
    if !(least..=most).contains(&ending.accepted) {
        let what = format!(
            "the bridge counts {} accepted events, the answers {least} to {most}",
            ending.accepted
        );
        findings.add(Invariant::I12Accounting, None, what);
    }
}

fn counts(index: &Index, findings: &mut Findings) {
    let mut attempted = std::collections::BTreeSet::new();
    for injection in &index.history.injections {
        attempted.insert(injection.kind);
        if injection.evidence.is_ok() {
            *findings
                .counts
                .injections
                .entry(injection.kind)
                .or_default() += 1;
        } else {
            findings.counts.unseen += 1;
        }
    }
    for kind in attempted.iter().copied() {
        if !findings.counts.injections.contains_key(&kind) {
            let what = format!("`{}` never took effect", kind.name());
            findings.voids.push(what);
        }
    }
    let has = |kind| findings.counts.injections.contains_key(&kind);
    let faults = findings.counts.injections.values().sum::<u64>();
    let strangers = &index.history.strangers;
    let genuine = index.stories.keys().any(|event| is_genuine(*event));
    for (is_missing, what) in [
        (
            !genuine || findings.counts.accepted < 100,
            "fewer than 100 events were accepted",
        ),
        (
            faults > 20 && findings.counts.duplicates == 0,
            "no event came twice",
        ),
        (
            has(Kind::BridgeKill) && findings.counts.infos == 0,
            "no request was hit by a kill",
        ),
        (
            attempted.iter().any(|kind| kind.lane() == Lane::Strangers)
                && (strangers.opened == 0 || strangers.refused == 0),
            "no stranger came in, or none was refused",
        ),
        (
            has(Kind::BindingDeleted) && findings.counts.unrouted == 0,
            "nothing was unrouted",
        ),
        (
            has(Kind::BacklogFull) && !findings.counts.refusals.contains_key(&503),
            "nothing was answered 503",
        ),
    ] {
        if is_missing {
            findings.voids.push(what.to_owned());
        }
    }
}

//! The report at the end of a run, as text and as `verdict.json`. After a failure, everything that
//! helps to understand it is kept.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::judge::{Findings, Invariant, story};
use crate::ledger::History;
use crate::schedule::Kind;
use crate::settings::Settings;

const STORIES_MAX: usize = 5;

/// What was tested: commit and broker.
pub fn versions() -> String {
    let ask = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (!text.is_empty()).then_some(text)
    };
    let root = env!("CARGO_MANIFEST_DIR");
    let commit = ask("git", &["-C", root, "describe", "--always", "--dirty"]);
    let profile = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    format!(
        "deskbridge {} ({}, {profile})",
        env!("CARGO_PKG_VERSION"),
        commit.unwrap_or_else(|| "no commit".into())
    )
}

/// Prints the results of a run.
pub fn print(seed: u64, took: Duration, history: &History, findings: &Findings) {
    let counts = &findings.counts;
    let mut text = String::new();
    let injections: u64 = counts.injections.values().sum();
    let _ = writeln!(
        text,
        "{injections} injections of {} kinds took effect ({} did not):",
        counts.injections.len(),
        counts.unseen
    );
    for (kind, count) in &counts.injections {
        let copies = counts.causes.get(kind).copied().unwrap_or(0);
        let _ = writeln!(
            text,
            "  {count:>5}  {:<38} {copies:>7} copies meanwhile",
            kind.name()
        );
    }
    for unseen in history
        .injections
        .iter()
        .filter(|one| one.evidence.is_err())
    {
        let why = unseen.evidence.as_ref().unwrap_err();
        let _ = writeln!(text, "      -  {}: {why}", unseen.kind.name());
    }
    let violations = |invariant| findings.count(invariant);
    let mut answers = history.answers.clone();
    answers.sort_unstable();
    let answered = |percent: usize| {
        let position = answers.len() * percent / 100;
        answers
            .get(position.min(answers.len().saturating_sub(1)))
            .copied()
            .unwrap_or(0)
            / 1000
    };
    let forged: BTreeMap<_, _> = history.forged.iter().collect();
    let _ = writeln!(
        text,
        "{} sessions acknowledged in {} requests, {} not answered, refused {:?}\n\
         answers: median {} ms, 99 % {} ms, longest {} ms ({} ms while the bridge itself was left alone); \
         forged requests: {forged:?}\n\
         strangers: {} connections opened, {} times refused; {} genuine requests cut off\n\
         {} deliveries, {} of them again by the broker, {} copies by the bridge ({} sent twice), {} unrouted\n\
         lost {}, out of order {}, id drift {}, non-2xx without excuse {}\n\
         at most {:.1} MiB resident, {} descriptors, {:.1} MiB of journal, {} events waiting; \
         a fresh event came after {:?} ms",
        counts.accepted,
        counts.requests,
        counts.infos,
        counts.refusals,
        answered(50),
        answered(99),
        answered(100),
        counts.answer_max / 1000,
        history.strangers.opened,
        history.strangers.refused,
        counts.cut_off,
        counts.deliveries,
        counts.redeliveries,
        counts.duplicates,
        counts.sent_twice,
        counts.unrouted,
        violations(Invariant::I1NoLoss),
        violations(Invariant::I4Order),
        violations(Invariant::I5Identity),
        violations(Invariant::Answers),
        mib(history.peaks.rss_bytes),
        history.peaks.descriptors,
        mib(history.peaks.journal_bytes),
        history.peaks.backlog,
        history.ending.probe.map(|took| took / 1000),
    );
    for void in &findings.voids {
        let _ = writeln!(text, "void: {void}");
    }
    let _ = writeln!(
        text,
        "seed {seed}: {} after {:.0?}",
        findings.verdict(),
        took
    );
    println!("{text}");
}

/// Prints one line about all runs.
pub fn print_totals(all: &[Findings]) {
    let sum = |of: fn(&Findings) -> u64| all.iter().map(of).sum::<u64>();
    let mut kinds: BTreeMap<Kind, u64> = BTreeMap::new();
    for (kind, count) in all.iter().flat_map(|one| &one.counts.injections) {
        *kinds.entry(*kind).or_default() += count;
    }
    let count = |invariant| all.iter().map(|one| one.count(invariant)).sum::<usize>();
    let verdicts: Vec<_> = all.iter().map(Findings::verdict).collect();
    println!(
        "total of {} runs: {} injections of {} kinds, {} sessions acknowledged, {} deliveries, \
         {} copies; lost {}, out of order {}, id drift {}, non-2xx without excuse {}, \
         violations {}; {}",
        all.len(),
        kinds.values().sum::<u64>(),
        kinds.len(),
        sum(|one| one.counts.accepted),
        sum(|one| one.counts.deliveries),
        sum(|one| one.counts.duplicates),
        count(Invariant::I1NoLoss),
        count(Invariant::I4Order),
        count(Invariant::I5Identity),
        count(Invariant::Answers),
        sum(|one| one.violations.len() as u64),
        verdicts.join(" "),
    );
}

/// Writes `verdict.json`; unless the run passed, also the logs, the stories and the bridge's files.
pub fn keep(seed: u64, settings: &Settings, history: &History, findings: &Findings, bridge: &Path) {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("chaos/seed-{seed}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("target/ can be written");
    let verdict = serde_json::to_vec_pretty(&verdict(seed, findings)).expect("plain values");
    fs::write(dir.join("verdict.json"), verdict).expect("target/ can be written");
    if findings.verdict() == "PASS" {
        return;
    }
    write_logs(&dir, history).expect("target/ can be written");
    let _ = Command::new("cp")
        .arg("-a")
        .arg(bridge)
        .arg(dir.join("bridge"))
        .status();
    let mut stories = String::new();
    for violation in findings.violations.iter().take(100) {
        let _ = writeln!(stories, "{:?}: {}", violation.invariant, violation.what);
        if let Some(event) = violation.event {
            stories.push_str(&story(history, event));
        }
    }
    fs::write(dir.join("stories.txt"), &stories).expect("target/ can be written");
    for violation in findings.violations.iter().take(STORIES_MAX) {
        println!("{:?}: {}", violation.invariant, violation.what);
        if let Some(event) = violation.event {
            println!("{}", story(history, event));
        }
    }
    println!(
        "{} violations; logs, journal and stories are in {}\nrepeat with: {}",
        findings.violations.len(),
        dir.display(),
        settings.command(seed)
    );
}

fn verdict(seed: u64, findings: &Findings) -> Value {
    let counts = &findings.counts;
    let by_name = |map: &BTreeMap<Kind, u64>| -> BTreeMap<&str, u64> {
        map.iter()
            .map(|(kind, count)| (kind.name(), *count))
            .collect()
    };
    let violations: Vec<_> = findings
        .violations
        .iter()
        .map(|one| {
            let event = one.event.map(|event| [event.session, event.seq]);
            json!({"invariant": format!("{:?}", one.invariant), "what": one.what, "event": event})
        })
        .collect();
    json!({
        "seed": seed,
        "version": versions(),
        "verdict": findings.verdict(),
        "injections": by_name(&counts.injections),
        "unseen": counts.unseen,
        "acknowledged": counts.accepted,
        "requests": counts.requests,
        "not_answered": counts.infos,
        "cut_off": counts.cut_off,
        "refused": counts.refusals,
        "deliveries": counts.deliveries,
        "redelivered": counts.redeliveries,
        "copies": counts.duplicates,
        "copies_beside": by_name(&counts.causes),
        "unrouted": counts.unrouted,
        "violations": violations,
        "void": findings.voids,
    })
}

fn write_logs(dir: &Path, history: &History) -> std::io::Result<()> {
    let file = |name: &str| fs::File::create(dir.join(name)).map(std::io::BufWriter::new);
    let mut requests = file("requests.jsonl")?;
    for request in &history.requests {
        let events: Vec<_> = request.events.iter().map(|e| [e.session, e.seq]).collect();
        let attempts: Vec<_> = request
            .attempts
            .iter()
            .map(|one| json!([one.begin, one.end, format!("{:?}", one.outcome)]))
            .collect();
        writeln!(
            requests,
            "{}",
            json!({"events": events, "attempts": attempts})
        )?;
    }
    let mut deliveries = file("deliveries.jsonl")?;
    for one in &history.deliveries {
        let line = json!({
            "at": one.at,
            "queue": format!("{:?}", one.queue),
            "event": one.event.map(|event| [event.session, event.seq]),
            "message_id": format!("{:032x}", one.message_id),
            "redelivered": one.is_redelivered,
            "flaw": one.flaw,
        });
        writeln!(deliveries, "{line}")?;
    }
    let mut injections = file("injections.jsonl")?;
    for one in &history.injections {
        let line = json!({
            "begin": one.begin,
            "end": one.end,
            "kind": one.kind.name(),
            "evidence": format!("{:?}", one.evidence),
        });
        writeln!(injections, "{line}")?;
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

//! Runs the simulation with a progress bar, and prints its result.

use std::fmt::Write;

use deskbridge::config::units::format_duration;
use deskbridge::foreign;
use deskbridge::simulator::{self, Plan, Progress, Tally, Target};
use serde_json::{Map, json};

use crate::cli::output::{ignore_closed_output, print_as, say};
use crate::cli::{Exit, interrupt, progress};

/// Percentiles of the latencies, by name and in per mille.
const SHARES: [(&str, usize); 5] = [
    ("p50", 500),
    ("p90", 900),
    ("p99", 990),
    ("p99.9", 999),
    ("max", 1000),
];

/// Posts until the count is reached or Ctrl-C, and prints the summary.
pub async fn run(plan: &Plan, target: &Target, is_json: bool) -> anyhow::Result<Exit> {
    let bar = progress::bar(plan.count, "webhooks");
    let report = |progress: Progress<'_>| match progress {
        Progress::Handled => bar.inc(1),
        Progress::Paused(kind, failure) => bar.suspend(|| {
            let length = format_duration(plan.pause.unwrap_or_default());
            let webhook = kind.name();
            say(format_args!("{webhook} is paused for {length}: {failure}"));
        }),
    };
    let interrupted = interrupt::listen()?.cancelled_owned();
    let tally = simulator::run(plan, target, interrupted, &report).await?;
    bar.finish_and_clear();
    let summary = if is_json { json(&tally) } else { text(&tally)? };
    ignore_closed_output(print_as(is_json, &summary))?;
    Ok(Exit::of(tally.all_accepted()))
}

fn text(tally: &Tally) -> Result<String, std::fmt::Error> {
    let mut text = format!(
        "{} webhooks in {:.2} s, {} sessions accepted: {:.0} sessions/s\n",
        tally.webhooks(),
        tally.seconds,
        tally.accepted_sessions,
        tally.per_second(),
    );
    for (status, count) in &tally.answers {
        writeln!(text, "answer {status}: {count}")?;
    }
    for (failure, count) in &tally.failures {
        writeln!(text, "no answer, {}: {count}", foreign::line(failure))?;
    }
    if tally.unsent > 0 {
        writeln!(text, "not sent, because nothing answered: {}", tally.unsent)?;
    }
    if tally.resent > 0 {
        writeln!(text, "sent again: {}", tally.resent)?;
    }
    if tally.pauses > 0 {
        writeln!(
            text,
            "paused: {} times; never sent: {} webhooks, {} sessions",
            tally.pauses, tally.lost_webhooks, tally.lost_sessions
        )?;
    }
    if !tally.answers.is_empty() {
        text.push_str("latency");
        for (name, share) in SHARES {
            write!(text, "  {name} {:.1} ms", tally.within(share))?;
        }
        text.push('\n');
    }
    Ok(text)
}

fn json(tally: &Tally) -> String {
    let latency = |(name, share): (&str, usize)| (name.to_owned(), tally.within(share).into());
    let summary = json!({
        "seconds": tally.seconds,
        "webhooks": tally.webhooks(),
        "sessions_accepted": tally.accepted_sessions,
        "sessions_per_second": tally.per_second(),
        "answers": tally.answers,
        "failures": tally.failures,
        "not_sent": tally.unsent,
        "resent": tally.resent,
        "pauses": tally.pauses,
        "lost_in_pauses": { "webhooks": tally.lost_webhooks, "sessions": tally.lost_sessions },
        "latency_ms": Map::from_iter(SHARES.map(latency)),
    });
    format!("{summary}\n")
}

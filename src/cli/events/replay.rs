//! `events replay`: publishes events of the journal again, with the same ids, in order per session.

mod report;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

use clap::Args;
use deskbridge::config::Config;
use deskbridge::journal::archive::{Archive, Selection, Survey};
use deskbridge::journal::{ControlOutbox, ControlRequest};
use deskbridge::ops::replay::{self, Notice, Rendering, ReplayCounts};
use deskbridge::ops::{leave_requests, routing};
use deskbridge::webhook::routing::Route;
use jiff::Timestamp;

use super::filters::{Filters, Id, after_help};
use super::{find, line, open, open_outbox, say_lag, unreadable};
use crate::cli::failure::{failed, usage_error};
use crate::cli::output::{ignore_closed_output, print_as, say, say_lines};
use crate::cli::time::{Clock, Zone};
use crate::cli::{ConfigArguments, Exit, interrupt, progress, queue_name, runtime};

const AFTER_HELP: &str = "\
Each event is published with the same message_id, properties and headers as before, and with the header \
`replayed-at`, in order per session. It goes to the exchange and key that the current configuration gives, so \
every subscriber of that route receives it, unless --to-queue is given. Invalid and malformed events go to the \
dead-letter exchange; --to-queue leaves them out.

Pending events are left to the bridge, which may be running. A replayed event may arrive after newer events of \
the same session. Running a replay again is safe: the same events have the same message_id.

Exits with 1 if an event was not confirmed, if none was selected, or if it was interrupted; it says how many \
events were confirmed.

Examples:
  deskbridge events replay --session 1530162945-9852
  deskbridge events replay --since 2h --status missed --dry-run
  deskbridge events replay --all --to-queue new-consumer
  deskbridge events replay 17 53d46ec3-435e-8633-874a-52aaacb9ecc7";

/// Arguments of `events replay`.
#[derive(Debug, Args)]
#[command(after_help = after_help(AFTER_HELP))]
pub struct Arguments {
    /// Only these events, by their numbers or message ids; not with filters
    #[arg(value_name = "SEQ|MESSAGE_ID")]
    ids: Vec<Id>,
    #[command(flatten)]
    filters: Filters,
    /// All events in the journal
    #[arg(long)]
    all: bool,
    /// Publish into this queue alone, whatever it is bound to
    #[arg(long, value_name = "NAME", value_parser = queue_name)]
    to_queue: Option<String>,
    /// Print what would be published, and publish nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    zone: Zone,
    /// Print the result as JSON, or with --dry-run one JSON object per event
    #[arg(long)]
    json: bool,
}

impl Arguments {
    fn check(&self) -> anyhow::Result<()> {
        let ways = [!self.ids.is_empty(), !self.filters.are_empty(), self.all];
        let problem = match ways.iter().filter(|is_used| **is_used).count() {
            0 => "no events are selected: give ids, a filter or --all",
            1 => return Ok(()),
            _ => "ids, filters and --all cannot be combined",
        };
        let advice = "`deskbridge events replay --help` shows examples";
        Err(usage_error(problem, advice))
    }

    fn selection(
        &self,
        config: &Config,
        archive: &Archive,
        clock: &Clock,
    ) -> anyhow::Result<Selection> {
        let mut selection = self.filters.selection(&routing(config)?, clock)?;
        if !self.ids.is_empty() {
            let seqs = find(archive, &self.ids)?;
            selection.seqs = Some(BTreeSet::from_iter(seqs));
        }
        // Events received from now on are not selected; they would make the replay endless.
        selection.seq_max = Some(archive.newest().map_err(unreadable)?);
        Ok(selection)
    }
}

/// Publishes the selected events.
pub fn run(layering: &ConfigArguments, arguments: &Arguments) -> anyhow::Result<Exit> {
    arguments.check()?;
    let clock = arguments.zone.clock()?;
    let config = layering.peek()?;
    let archive = open(&config)?;
    let selection = arguments.selection(&config, &archive, &clock)?;
    say_lag(&archive, &selection)?;
    let survey = archive.survey(&selection).map_err(unreadable)?;
    check_survey(&survey)?;
    let rendering = Rendering {
        routing: Arc::new(routing(&config)?),
        to_queue: arguments.to_queue.as_deref().map(|queue| {
            Arc::new(Route {
                exchange: "".into(),
                routing_key: queue.into(),
            })
        }),
        message_bytes_max: config.rabbitmq.message_bytes_max,
        replayed_at: Timestamp::now(),
    };
    if arguments.dry_run {
        return dry_run(&archive, &selection, &rendering, arguments.json, &clock);
    }
    // Opened before anything is published: if it cannot be opened, replayed events would not be
    // counted.
    let outbox = open_outbox(&config)?;
    let progress = progress::bar(Some(survey.events - survey.pending), "events");
    let notify = |notice| match notice {
        Notice::Done => progress.inc(1),
        Notice::Blocked => progress.suspend(|| {
            say("the broker accepts no messages (an alarm); waiting until it does");
        }),
    };
    let counts = runtime()?.block_on(async {
        let interrupted = interrupt::listen()?;
        let delivery = tokio::select! {
            delivery = replay::connect(&config, arguments.to_queue.as_deref()) => delivery?,
            () = interrupted.cancelled() => {
                let advice = "nothing was published";
                return Err(failed("connecting to the broker", "interrupted", advice));
            }
        };
        let feed = replay::feed(archive, selection, rendering);
        Ok(replay::publish(delivery, feed, notify, &interrupted).await)
    })?;
    progress.finish_and_clear();
    leave_counts(outbox, &counts, arguments)?;
    let text = if arguments.json {
        counts.json()
    } else {
        report::confirmed(&counts)
    };
    ignore_closed_output(print_as(arguments.json, &text))?;
    say_lines(&report::unconfirmed(&counts));
    Ok(Exit::of(counts.is_done()))
}

fn check_survey(survey: &Survey) -> anyhow::Result<()> {
    let why = match survey {
        Survey { events: 0, .. } => "no event of the journal is selected",
        Survey { events, pending } if events == pending => {
            "all selected events are pending: the bridge has still to publish them"
        }
        _ => return Ok(()),
    };
    let advice = "`deskbridge events list` with the same filters";
    Err(failed("replaying events", why, advice))
}

/// Prints what would be published, and publishes nothing.
fn dry_run(
    archive: &Archive,
    selection: &Selection,
    rendering: &Rendering,
    is_json: bool,
    clock: &Clock,
) -> anyhow::Result<Exit> {
    let table = line::table();
    let mut counts = ReplayCounts::default();
    let mut would = 0_u64;
    for entries in archive.pages(selection, 0, false) {
        let (mut text, mut rows) = (String::new(), Vec::new());
        for entry in &entries.map_err(unreadable)? {
            if let Some(obstacle) = rendering.obstacle(entry) {
                counts.skipped(entry.seq, obstacle);
                continue;
            }
            if is_json {
                let route = rendering.route(entry);
                let mut object = line::json(entry, false);
                object["exchange"] = (*route.exchange).into();
                object["routing_key"] = (*route.routing_key).into();
                let _ = writeln!(text, "{object}");
            } else {
                rows.push(line::row(entry, clock));
            }
            would += 1;
        }
        let is_first = would == rows.len() as u64;
        text += &table.page(&rows, is_first);
        print_as(is_json, &text)?;
    }
    say_lines(&report::unconfirmed(&counts));
    say(format_args!("{would} would be published; nothing was"));
    Ok(Exit::of(would > 0))
}

/// Asks the bridge to count the confirmed events, and to make those that were exempt from retention
/// subject to it again.
fn leave_counts(
    mut outbox: ControlOutbox,
    counts: &ReplayCounts,
    arguments: &Arguments,
) -> anyhow::Result<()> {
    if counts.confirmed == 0 {
        return Ok(());
    }
    let mut requests = vec![ControlRequest::Replayed(counts.confirmed)];
    // With `--to-queue`, the event is still missing in all other queues, so it stays exempt.
    if arguments.to_queue.is_none() {
        requests.extend(counts.released.iter().copied().map(ControlRequest::Release));
    }
    let is_applied = leave_requests(&mut outbox, requests).map_err(|why| {
        let confirmed = counts.confirmed;
        let advice = format!("{confirmed} events were confirmed; check the journal's disk");
        failed("counting the replayed events", why, advice)
    })?;
    if !is_applied {
        say(
            "no running bridge has counted the replayed events yet; the next one to run adds them to replayed_total",
        );
    }
    Ok(())
}

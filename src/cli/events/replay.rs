//! `events replay`: publishes events of the journal again, with their ids, in order per session.

mod delivery;
mod feed;
mod lanes;
mod tally;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::io::IsTerminal;
use std::sync::Arc;

use clap::Args;
use deskbridge::config::Config;
use deskbridge::config::rabbitmq::TopologyMode;
use deskbridge::journal::archive::{Archive, Selection, Survey};
use deskbridge::journal::{Wish, WishList};
use deskbridge::rabbitmq::Settings;
use deskbridge::rabbitmq::topology::{Object, Queue, Topology};
use deskbridge::webhook::routing::Route;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use self::delivery::{Connection, Delivery};
use self::feed::{Fed, Making};
use self::tally::Tally;
use super::filters::{Filters, Id};
use super::{find, leave, line, open, open_wishes, routing, unreadable};
use crate::cli::failure::{failed, misused};
use crate::cli::output::{even_unread, print, print_json, say, say_lines};
use crate::cli::time::{Clock, Zone};
use crate::cli::{Exit, Layering, runtime};

/// Bytes of a routing key.
const QUEUE_NAME_BYTES_MAX: usize = 255;

const AFTER_HELP: &str = "\
Events go out again with the same message_id, properties and headers and the header `replayed-at`, to the \
exchange and key that the configuration of now gives them, in order per session; invalid and malformed \
ones to the dead-letter exchange. Every subscriber gets them: with --to-queue only that queue does. What \
the bridge has still to publish is left to it. It may run meanwhile. Exits with 1 if any event was not \
confirmed; interrupted, it says how many were.

Examples:
  deskbridge events replay --session 1530162945-9852
  deskbridge events replay --since 2h --status missed --dry-run
  deskbridge events replay --all --to-queue new-consumer
  deskbridge events replay 17 53d46ec3-435e-8633-874a-52aaacb9ecc7";

/// Arguments of `events replay`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// Numbers of events or message ids, instead of filters
    #[arg(value_name = "SEQ|MESSAGE_ID")]
    ids: Vec<Id>,
    #[command(flatten)]
    filters: Filters,
    /// Everything that the journal still holds
    #[arg(long)]
    all: bool,
    /// Into this queue alone, whatever it is bound to
    #[arg(long, value_name = "NAME", value_parser = queue_name)]
    to_queue: Option<String>,
    /// Print what would be published, and publish nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    zone: Zone,
    /// Print JSON: what came of it, or with --dry-run one object an event
    #[arg(long)]
    json: bool,
}

impl Arguments {
    fn check(&self) -> anyhow::Result<()> {
        let ways = [!self.ids.is_empty(), !self.filters.are_empty(), self.all];
        let advice = "`deskbridge events replay --help` shows examples";
        match ways.iter().filter(|is_used| **is_used).count() {
            0 => Err(misused(
                "nothing says which events: give ids, a filter or --all",
                advice,
            )),
            1 => Ok(()),
            _ => Err(misused("ids, filters and --all do not go together", advice)),
        }
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
        // What is received from now on is not meant, and would make this endless.
        selection.seq_max = Some(archive.newest().map_err(unreadable)?);
        Ok(selection)
    }
}

/// Publishes what is selected.
pub fn run(layering: &Layering, arguments: &Arguments) -> anyhow::Result<Exit> {
    arguments.check()?;
    let clock = arguments.zone.clock()?;
    let config = layering.peek()?;
    let archive = open(&config)?;
    let selection = arguments.selection(&config, &archive, &clock)?;
    let survey = archive.survey(&selection).map_err(unreadable)?;
    check_survey(&survey)?;
    let making = Making {
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
        return rehearse(&archive, &selection, &making, arguments.json, &clock);
    }
    // Before anything is published: a journal without a place for it would not count it.
    let wishes = open_wishes(&config)?;
    let settings = settings(&config, arguments.to_queue.as_deref())?;
    let progress = progress(survey.events - survey.unsettled);
    let tally = runtime()?.block_on(async {
        let interrupted = CancellationToken::new();
        let listening = tokio::spawn(interrupt(interrupted.clone()));
        let feed = || feed::start(archive, selection, making);
        let tally = publish(&config, settings, arguments, feed, progress, interrupted).await;
        listening.abort();
        tally
    })?;
    count(wishes, &tally, arguments)?;
    tell(&tally, arguments.json)
}

fn check_survey(survey: &Survey) -> anyhow::Result<()> {
    let why = match survey {
        Survey { events: 0, .. } => "no event of the journal is selected",
        Survey { events, unsettled } if events == unsettled => {
            "the bridge has still to publish all that is selected"
        }
        _ => return Ok(()),
    };
    let advice = "`deskbridge events list` with the same filters";
    Err(failed("replaying events", why, advice))
}

async fn publish(
    config: &Config,
    settings: Settings,
    arguments: &Arguments,
    feed: impl FnOnce() -> tokio::sync::mpsc::Receiver<Result<Vec<Fed>, deskbridge::journal::TakeError>>,
    progress: ProgressBar,
    interrupted: CancellationToken,
) -> anyhow::Result<Tally> {
    let opened = tokio::select! {
        opened = Connection::open(settings) => opened,
        () = interrupted.cancelled() => Err("interrupted".into()),
    };
    let mut connection = opened.map_err(|why| {
        let advice = "nothing was published; is the broker up (`deskbridge check`)?";
        failed("connecting to the broker", why, advice)
    })?;
    let findings = connection.findings();
    if let (Some(queue), Some(finding)) = (&arguments.to_queue, findings.first()) {
        let why = finding.clone();
        connection.close().await;
        let advice =
            "nothing was published; declare the queue first, or look for a slip in its name";
        return Err(failed(format!("looking for queue `{queue}`"), why, advice));
    }
    let delivery = Delivery::new(&mut connection, config, progress.clone());
    let tally = delivery.run(feed(), interrupted).await;
    progress.finish_and_clear();
    connection.close().await;
    Ok(tally)
}

/// A queue is only looked for; without one, the topology is treated as the bridge does.
fn settings(config: &Config, to_queue: Option<&str>) -> anyhow::Result<Settings> {
    let mut settings = Settings::from_config(config)
        .map_err(|why| failed("reading `rabbitmq.urls`", why, "`deskbridge config show`"))?;
    if let Some(queue) = to_queue {
        settings.topology = Topology {
            mode: TopologyMode::Verify,
            objects: vec![Object::Queue(Queue {
                name: queue.into(),
                arguments: Vec::new(),
            })],
            unrouted_queue: None,
            dead_letter_queue: None,
            delayed: Vec::new(),
            by_broker: Vec::new(),
        };
    }
    Ok(settings)
}

/// Shows what would go where.
fn rehearse(
    archive: &Archive,
    selection: &Selection,
    making: &Making,
    is_json: bool,
    clock: &Clock,
) -> anyhow::Result<Exit> {
    let table = line::table();
    let mut tally = Tally::default();
    let mut would = 0_u64;
    let mut next = Some(0);
    while let Some(after) = next {
        let page = archive.page(selection, after, false).map_err(unreadable)?;
        let (mut text, mut rows) = (String::new(), Vec::new());
        for entry in &page.entries {
            match making.obstacle(entry) {
                Some(Fed::Unsettled) => tally.unsettled += 1,
                Some(Fed::Reject) => tally.rejects += 1,
                Some(Fed::Unfit(seq, why)) => tally.failed(seq, why),
                Some(Fed::Item(_)) | None => {
                    let route = making.route(entry);
                    if is_json {
                        let mut object = line::json(entry);
                        object["exchange"] = (*route.exchange).into();
                        object["routing_key"] = (*route.routing_key).into();
                        let _ = writeln!(text, "{object}");
                    } else {
                        rows.push(line::row(entry, clock));
                    }
                    would += 1;
                }
            }
        }
        if is_json {
            print_json(&text)?;
        } else {
            let is_first = would == rows.len() as u64;
            print(&table.page(&rows, is_first))?;
        }
        next = page.next;
    }
    say_lines(&tally.complaints());
    say(format_args!("{would} would be published; nothing was"));
    Ok(if would > 0 { Exit::Done } else { Exit::No })
}

/// Leaves it to the bridge to count what was confirmed, and to give up what was exempt for it.
fn count(mut wishes: WishList, tally: &Tally, arguments: &Arguments) -> anyhow::Result<()> {
    if tally.confirmed == 0 {
        return Ok(());
    }
    let mut wanted = vec![Wish::Replayed(tally.confirmed)];
    // Into one queue, it is still missing in all others.
    if arguments.to_queue.is_none() {
        wanted.extend(tally.released.iter().copied().map(Wish::Release));
    }
    match leave(&mut wishes, wanted) {
        Ok(true) => {}
        Ok(false) => {
            say(
                "no running bridge has seen it yet; they are counted in replayed_total when one looks or starts",
            );
        }
        Err(why) => {
            let confirmed = tally.confirmed;
            let advice = format!("{confirmed} events were confirmed; look at the journal's disk");
            return Err(failed("counting what was replayed", why, advice));
        }
    }
    Ok(())
}

fn tell(tally: &Tally, is_json: bool) -> anyhow::Result<Exit> {
    even_unread(if is_json {
        print_json(&tally.json())
    } else {
        print(&tally.text())
    })?;
    say_lines(&tally.complaints());
    Ok(if tally.is_done() {
        Exit::Done
    } else {
        Exit::No
    })
}

fn progress(events: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = "{elapsed_precise} {wide_bar} {pos}/{len} events, {per_sec}, {eta} left";
    let style =
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    let target = ProgressDrawTarget::stderr_with_hz(5);
    ProgressBar::with_draw_target(Some(events), target).with_style(style)
}

/// Until Ctrl-C or SIGTERM.
async fn interrupt(interrupted: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminated) => {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminated.recv() => {}
            }
        }
        Err(_) => drop(tokio::signal::ctrl_c().await),
    }
    interrupted.cancel();
}

fn queue_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > QUEUE_NAME_BYTES_MAX {
        return Err(format!("expected 1 to {QUEUE_NAME_BYTES_MAX} bytes"));
    }
    Ok(text.to_owned())
}

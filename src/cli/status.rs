//! `status`: the running bridge on one screen.

use std::collections::BTreeMap;
use std::io::{IsTerminal, stdout};
use std::time::Duration;

use clap::Args;
use console::Style;
use deskbridge::config::Config;
use deskbridge::ops::counted;
use deskbridge::ops::running_bridge::{RunningSource, RunningStatus};
use deskbridge::ops::status::{Health, Overview, overview};
use indicatif::{HumanBytes, HumanCount};
use jiff::Timestamp;
use serde_json::json;

use super::failure::usage_error;
use super::output::{Screen, Watched, print_document};
use super::time::{Clock, Zone, age};
use super::{ConfigArguments, Exit, interrupt, runtime};

/// Time between two queries of `--watch`.
const REFRESH: Duration = Duration::from_secs(2);

const AFTER_HELP: &str = "\
Queries /status of the running bridge (admin.listen). Shows whether webhooks are accepted and when each source \
sent its last one, the events by status, the backlog and its age, the connection to the broker, the routes, \
rejected events, dead letters and the disk. Anything wrong is at the top, with what to do about it. Times and \
refusals of sources are since the start of the bridge; the numbers of events since its journal was created.

`NO_COLOR` turns colours off. Elsewhere than on a terminal nothing is truncated.

Exit codes, as monitoring plugins expect: 0 healthy, 1 degraded (something is wrong, but nothing is lost), 2 \
webhooks are not accepted or no bridge answers; also 2 wrong usage, or findings in the configuration.

Examples:
  deskbridge status
  deskbridge status --watch
  deskbridge status --json | jq .status.backlog";

/// Arguments of `status`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// Show it every 2 s until Ctrl-C
    #[arg(long, conflicts_with = "json")]
    watch: bool,
    /// Print one JSON object: the health, the findings, and the document of /status
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    zone: Zone,
}

/// Prints the status once, or until Ctrl-C.
pub fn run(layering: &ConfigArguments, arguments: &Arguments) -> anyhow::Result<Exit> {
    let config = layering.peek()?;
    if arguments.watch {
        if !stdout().is_terminal() {
            return Err(usage_error(
                "--watch needs a terminal",
                "leave it out; each run prints the status once",
            ));
        }
        return runtime()?.block_on(watch(&config, arguments));
    }
    let overview = runtime()?.block_on(overview(&config));
    if arguments.json {
        print_document(&json!({
            "health": overview.health,
            "findings": overview.findings,
            "status": overview.running.map(|answered| answered.document),
        }))?;
    } else {
        screen(&overview, &arguments.zone.clock()?).print()?;
    }
    Ok(match overview.health {
        Health::Healthy => Exit::Done,
        Health::Degraded => Exit::No,
        Health::NotAccepting => Exit::Usage,
    })
}

async fn watch(config: &Config, arguments: &Arguments) -> anyhow::Result<Exit> {
    let interrupted = interrupt::listen()?;
    let watched = Watched::begin()?;
    loop {
        let shown = async {
            let overview = overview(config).await;
            screen(&overview, &arguments.zone.clock()?).redraw(&watched)?;
            tokio::time::sleep(REFRESH).await;
            anyhow::Ok(())
        };
        tokio::select! {
            shown = shown => shown?,
            () = interrupted.cancelled() => return Ok(Exit::Done),
        }
    }
}

/// Everything that is shown.
fn screen(overview: &Overview, clock: &Clock) -> Screen {
    let now = clock.now();
    let mut screen = Screen::new();
    let running = overview.running.as_ref().map(|answered| &answered.status);
    let title = match running {
        Some(status) => {
            let up = duration(status.uptime_seconds);
            format!("deskbridge {}, running for {up}", status.version)
        }
        None => "deskbridge".into(),
    };
    screen.ends(&title, &clock.show(now));
    let (style, word) = match overview.health {
        Health::Healthy => (Style::new().green(), "healthy"),
        Health::Degraded => (Style::new().yellow(), "degraded"),
        Health::NotAccepting => (Style::new().red(), "not accepting webhooks"),
    };
    let sentence = running.map_or_else(String::new, |status| {
        format!(": {}, {}", last_webhook(status, now), pending(status))
    });
    screen.line(&style.bold(), &format!("● {word}{sentence}"));
    for finding in &overview.findings {
        screen.finding("  ", finding);
    }
    if let Some(status) = running {
        screen.gap();
        webhooks(&mut screen, status, now);
        events(&mut screen, status);
        broker(&mut screen, status, now);
        disk(&mut screen, status);
    }
    screen
}

fn webhooks(screen: &mut Screen, status: &RunningStatus, now: Timestamp) {
    let mut label = "Webhooks";
    for source in &status.sources {
        screen.labelled(label, &Style::new(), &received(source, now));
        label = "";
        for file in &source.kept_secrets {
            let text = format!("  {file} has no secret; its last one stays in use");
            screen.labelled(label, &Style::new().yellow(), &text);
        }
        if let Some(refused) = &source.last_refused {
            let at = refused.at.map_or_else(|| "?".into(), |at| age(at, now));
            let text = format!(
                "  last refused {at} ago with {}: {}",
                refused.code, refused.reason
            );
            screen.labelled(label, &Style::new().yellow(), &text);
        }
    }
}

fn received(source: &RunningSource, now: Timestamp) -> String {
    let name = &source.name;
    let Some(at) = source.last_received else {
        return format!("{name}: none since the start");
    };
    let secret = source.last_secret.as_ref();
    let secret = secret.map_or_else(String::new, |secret| format!(", signed with {secret}"));
    format!("{name}: last {} ago{secret}", age(at, now))
}

fn events(screen: &mut Screen, status: &RunningStatus) {
    let counters = &status.counters;
    let mut by_status = BTreeMap::<&str, u64>::new();
    for (status, events) in counters.accepted_by_source.values().flatten() {
        *by_status.entry(status).or_default() += events;
    }
    let by_status = by_status
        .iter()
        .map(|(status, events)| format!("{status} {}", HumanCount(*events)));
    let by_status: Vec<_> = by_status.collect();
    let text = format!(
        "{} accepted, {} published, {} dead-lettered, {} pending",
        HumanCount(counters.accepted),
        HumanCount(counters.published),
        HumanCount(counters.dead_lettered),
        HumanCount(status.backlog.events),
    );
    screen.labelled("Events", &Style::new(), &text);
    if !by_status.is_empty() {
        screen.labelled("", &Style::new(), &by_status.join(", "));
    }
    let oldest = Duration::try_from_secs_f64(status.backlog.oldest_seconds).unwrap_or_default();
    let backlog = format!(
        "{} of {}, oldest {}",
        HumanBytes(status.backlog.bytes),
        HumanBytes(status.disk.backlog_bytes_max),
        duration(oldest.as_secs()),
    );
    screen.labelled("Backlog", &Style::new(), &backlog);
}

fn broker(screen: &mut Screen, status: &RunningStatus, now: Timestamp) {
    let broker = &status.broker;
    let since = broker
        .since
        .map_or_else(String::new, |since| format!(" for {}", age(since, now)));
    let url = broker.url.as_deref().unwrap_or("-");
    let lost = counted(broker.reconnects, "connection");
    let text = format!("{}{since}, {url}, {lost} lost", broker.state);
    let is_connected = broker.state == "connected";
    screen.labelled("Broker", &style(is_connected), &text);

    let healthy = |state: &str| state == "open";
    let count = status
        .routes
        .iter()
        .filter(|route| healthy(&route.state))
        .count();
    let retrying: u64 = status.retrying.iter().map(|one| one.events).sum();
    let retried = match retrying {
        0 => String::new(),
        events => format!(", {} retried", counted(events, "event")),
    };
    let paused = status.routes.iter().filter(|route| route.state == "paused");
    let paused = match paused.count() {
        0 => String::new(),
        count => format!(", {count} paused"),
    };
    let text = format!(
        "{count} of {} healthy{paused}{retried}",
        status.routes.len()
    );
    let is_healthy = count == status.routes.len() && retrying == 0;
    screen.labelled("Routes", &style(is_healthy), &text);

    let messages = |count: Option<u64>| {
        count.map_or_else(|| "?".into(), |count| HumanCount(count).to_string())
    };
    let text = format!(
        "{} dead letters, {} unrouted",
        messages(broker.dead_letter_messages),
        messages(broker.unrouted_messages)
    );
    let is_empty = broker.dead_letter_messages.unwrap_or(0) == 0;
    screen.labelled("Queues", &style(is_empty), &text);
}

fn disk(screen: &mut Screen, status: &RunningStatus) {
    let disk = &status.disk;
    let text = format!(
        "{} free, minimum {}, journal {}",
        HumanBytes(disk.free_bytes),
        HumanBytes(disk.free_min_bytes),
        HumanBytes(disk.journal_bytes),
    );
    screen.labelled(
        "Disk",
        &style(disk.free_bytes > 2 * disk.free_min_bytes),
        &text,
    );
}

fn style(is_well: bool) -> Style {
    if is_well {
        Style::new()
    } else {
        Style::new().yellow()
    }
}

fn last_webhook(status: &RunningStatus, now: Timestamp) -> String {
    let last = status
        .sources
        .iter()
        .filter_map(|source| source.last_received)
        .max();
    match last {
        Some(at) => format!("last webhook {} ago", age(at, now)),
        None => "no webhook since the start".into(),
    }
}

fn pending(status: &RunningStatus) -> String {
    let backlog = &status.backlog;
    if backlog.events == 0 {
        return "nothing pending".into();
    }
    format!("{} pending", counted(backlog.events, "event"))
}

/// Like [`age`], of a number of seconds.
fn duration(seconds: u64) -> String {
    let now = Timestamp::UNIX_EPOCH + Duration::from_secs(seconds);
    age(Timestamp::UNIX_EPOCH, now)
}

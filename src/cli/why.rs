//! `why`: where the events of a session are, and what keeps them there.

use clap::Args;
use console::Style;
use deskbridge::journal::archive::{Archive, Entry};
use deskbridge::ops::check::{Finding, Severity};
use deskbridge::ops::why::{self, Diagnosis};
use deskbridge::ops::{counted, routing};
use jiff::Timestamp;
use serde_json::json;

use super::events::line;
use super::failure::{cannot_open, unreadable};
use super::output::{Screen, print, print_document};
use super::table::{Column, Table};
use super::time::{Clock, Zone};
use super::{ConfigArguments, Exit, runtime};

const AFTER_HELP: &str = "\
Reads the journal, the status of the running bridge (admin.listen) and, with `rabbitmq.management_url`, the queues \
of the broker. Prints where each event of the session is, then what is wrong, the first cause first, and what to do \
about it. Which queues an event reached is what its routing key reaches now. It changes nothing.

A session is not found by name. Search for its id with `deskbridge events list --name NAME --since 14:00`.

Exit codes: 0 nothing is wrong, 1 a cause was found, or the session was not found.

Examples:
  deskbridge why 5f0f6b7e
  deskbridge why 53d46ec3-435e-8633-874a-52aaacb9ecc7 --json";

const WHOLE: u16 = u16::MAX;

const COLUMNS: [Column; 4] = [
    Column::new("SEQ", WHOLE, 0),
    Column::new("RECEIVED", 19, 0),
    Column::new("STATUS", WHOLE, 0),
    Column::new("WHERE", 20, 0),
];

/// Arguments of `why`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// The id of a chat session, or the `message_id` of one of its events
    #[arg(value_name = "SESSION|MESSAGE_ID")]
    asked: String,
    /// Print one JSON object: the events and the findings
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    zone: Zone,
}

/// Prints the events and the causes.
pub fn run(layering: &ConfigArguments, arguments: &Arguments) -> anyhow::Result<Exit> {
    let clock = arguments.zone.clock()?;
    let config = layering.peek()?;
    let routing = std::sync::Arc::new(routing(&config)?);
    let archive = Archive::open(&config.journal.dir, routing.clone());
    let archive = archive.map_err(|why| cannot_open(&config, why))?;
    let entries = why::events(&archive, &arguments.asked).map_err(unreadable)?;
    let evidence = runtime()?.block_on(why::inspect(&config, entries));
    let diagnosis = Diagnosis::of(&arguments.asked, &evidence, &routing, Timestamp::now());
    if arguments.json {
        let events = evidence.entries.iter().zip(&diagnosis.places);
        let events = events.map(|(entry, place)| {
            let mut event = line::json(entry, true);
            event["where"] = place.as_str().into();
            event
        });
        print_document(&json!({
            "events": events.collect::<Vec<_>>(),
            "findings": diagnosis.findings,
        }))?;
    } else {
        print(&table(&evidence.entries, &diagnosis, &clock))?;
        screen(&diagnosis.findings).print()?;
    }
    let is_wrong = |finding: &Finding| finding.severity < Severity::Note;
    Ok(Exit::of(!diagnosis.findings.iter().any(is_wrong)))
}

fn table(entries: &[Entry], diagnosis: &Diagnosis, clock: &Clock) -> String {
    let Some(first) = entries.first() else {
        return String::new();
    };
    let rows = entries.iter().zip(&diagnosis.places);
    let rows = rows.map(|(entry, place)| {
        vec![
            entry.seq.to_string(),
            clock.show(entry.event.envelope.received_at),
            line::status(&entry.event).to_owned(),
            place.clone(),
        ]
    });
    let rows: Vec<_> = rows.collect();
    let session = first.event.session().map_or_else(
        || "no session".to_owned(),
        |session| format!("session {}", deskbridge::foreign::line(session)),
    );
    let source = deskbridge::foreign::line(&first.event.envelope.source);
    let events = counted(rows.len(), "event");
    format!(
        "{session} of source {source}, {events}\n{}\n",
        Table::of_output(&COLUMNS).whole(&rows)
    )
}

fn screen(findings: &[Finding]) -> Screen {
    let mut screen = Screen::new();
    for finding in findings {
        screen.finding("", finding);
    }
    if findings
        .iter()
        .all(|finding| finding.severity == Severity::Note)
    {
        screen.line(&Style::new().green().bold(), "● nothing is wrong");
    }
    screen
}

//! `send`: posts webhooks as DeskDirector would. Files and standard input go as they are; a
//! simulation makes whole lives of chat sessions.

mod files;
mod life;
mod load;
mod pace;
mod pause;
mod people;
mod post;
mod random;
mod summary;
mod target;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use deskbridge::config::sources::Secret;
use deskbridge::config::units::parse_duration;

use super::failure::misused;
use super::{Exit, Layering, runtime};

const AFTER_HELP: &str = "\
Where to and with which secret comes from the configuration unless given. Files and standard input (-) \
are posted byte for byte, and each answer is printed. --count, --rate, --array, --sessions or --resend \
simulate DeskDirector: sessions live from created to completed (some are missed, some ask to be called \
back), in order, told by its two webhooks: New Chat Session, signed with the source's first secret, and \
Chat Session Status Changed, signed with the second, if there is one. Without --count until Ctrl-C. The \
same --seed with the same arguments posts the same bytes. Exits with 1 if any answer was not 2xx.

Examples:
  deskbridge send webhook.json
  cat webhook.json | deskbridge send --url https://bridge.example/webhooks/dd --secret-file secret -
  deskbridge send --count 1000 --rate 100/s --array 3 --sessions 50
  deskbridge send --count 3000 --rate 5..50 --resend 10 --seed 7 --json
  deskbridge send --rate 2 --pause-rule 1m";

/// Arguments of `send`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// Files to post, one webhook each; - is standard input
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Post as this source; the only one of the configuration if absent
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Post there instead of to the bridge of the configuration
    #[arg(long)]
    url: Option<String>,
    /// Sign with it instead of the source's secret; others may see it, prefer --secret-file. A second
    /// one is that of Chat Session Status Changed
    #[arg(long, conflicts_with = "secret_file", value_parser = secret)]
    secret: Vec<Secret>,
    /// Sign with the secret in this file; a second one is that of Chat Session Status Changed
    #[arg(long, value_name = "FILE")]
    secret_file: Vec<PathBuf>,
    /// Simulate: so many webhooks in all
    #[arg(long, value_name = "N", conflicts_with = "files")]
    count: Option<u64>,
    /// Simulate: so many webhooks a second at most, such as 50 or 50/s; 5..50 rises evenly, over the
    /// whole --count or else within a minute
    #[arg(long, conflicts_with = "files", value_parser = pace::rate)]
    rate: Option<pace::Rate>,
    /// Simulate: so many sessions in each webhook [default: 1]
    #[arg(long, value_name = "N", conflicts_with = "files", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    array: Option<u32>,
    /// Simulate: so many chat sessions alive at a time [default: 100]
    #[arg(long, value_name = "N", conflicts_with = "files", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    sessions: Option<u32>,
    /// Simulate: so many of a hundred webhooks are one of the last again, byte for byte
    #[arg(long, value_name = "PERCENT", conflicts_with = "files", value_parser = clap::value_parser!(u8).range(0..=99))]
    resend: Option<u8>,
    /// Simulate: after a failed delivery that webhook is paused, and what happens meanwhile is never
    /// sent [without a value: 30m]
    #[arg(long, value_name = "LENGTH", requires = "rate", num_args = 0..=1, default_missing_value = "30m", value_parser = parse_duration)]
    pause_rule: Option<Duration>,
    /// Simulate: so many connections at most
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1000))]
    connections: u32,
    /// Simulate: the same seed makes the same sessions
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    fn is_simulation(&self) -> bool {
        self.count.is_some()
            || self.rate.is_some()
            || self.array.is_some()
            || self.sessions.is_some()
            || self.resend.is_some()
    }
}

/// Posts what is asked for.
pub fn run(layering: &Layering, arguments: &Arguments) -> anyhow::Result<Exit> {
    let is_simulation = arguments.is_simulation();
    if !is_simulation && arguments.files.is_empty() && std::io::stdin().is_terminal() {
        let advice =
            "`deskbridge send FILE`, or `deskbridge send --count 10` to simulate the sender";
        return Err(misused("nothing to send", advice));
    }
    let target = target::choose(layering, arguments)?;
    runtime()?.block_on(async {
        if is_simulation {
            load::run(&target, arguments).await
        } else {
            files::run(&target, arguments).await
        }
    })
}

#[expect(clippy::unnecessary_wraps, reason = "clap's signature")]
fn secret(text: &str) -> Result<Secret, String> {
    Ok(Secret::new(text))
}

//! `send`: posts webhooks as DeskDirector would. Files and standard input are posted unchanged; a
//! simulation generates the whole life cycle of chat sessions.

mod files;
mod simulation;
mod target;

use std::convert::Infallible;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use deskbridge::config::sources::Secret;
use deskbridge::config::units::parse_duration;
use deskbridge::simulator::{self, Plan, Rate};

use super::failure::usage_error;
use super::{ConfigArguments, Exit, runtime};

const AFTER_HELP: &str = "\
The URL and the secrets come from the configuration unless others are given. Files and standard input (-) are \
posted byte for byte, one webhook per file, and each answer is printed.

--count, --rate, --array, --sessions or --resend simulate DeskDirector instead. Sessions live from created to \
completed, in order; some are missed, and some ask for a callback. Two webhooks report them: New Chat Session, \
signed with the first secret of the source, and Chat Session Status Changed, signed with the second one, if \
there is one. At the end the answers by status and the latencies are printed.

Exits with 1 if an answer was not 2xx, or did not come.

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
    /// Files to post, one webhook per file; - or no file is standard input
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Post as this source; needed if the configuration has several
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Post to this URL instead of to the bridge of the configuration
    #[arg(long)]
    url: Option<String>,
    /// Sign with this secret instead of the source's; a second one is that of Chat Session Status
    /// Changed. Prefer --secret-file: other users may see a secret on the command line
    #[arg(long, conflicts_with = "secret_file", value_parser = |text: &str| Ok::<_, Infallible>(Secret::new(text)))]
    secret: Vec<Secret>,
    /// Sign with the secret in this file; a second one is that of Chat Session Status Changed
    #[arg(long, value_name = "FILE")]
    secret_file: Vec<PathBuf>,
    /// Simulate: number of webhooks; without it, until Ctrl-C
    #[arg(long, value_name = "N", conflicts_with = "files")]
    count: Option<u64>,
    /// Simulate: maximum number of webhooks per second, such as 50 or 50/s; 5..50 rises evenly over
    /// the whole --count, or without one within a minute
    #[arg(long, conflicts_with = "files", value_parser = simulator::rate)]
    rate: Option<Rate>,
    /// Simulate: number of sessions per webhook [default: 1]
    #[arg(long, value_name = "N", conflicts_with = "files", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    array: Option<u32>,
    /// Simulate: number of chat sessions alive at a time [default: 100]
    #[arg(long, value_name = "N", conflicts_with = "files", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    sessions: Option<u32>,
    /// Simulate: this percentage of the webhooks repeats a recent one, byte for byte
    #[arg(long, value_name = "PERCENT", conflicts_with = "files", value_parser = clap::value_parser!(u8).range(0..=99))]
    resend: Option<u8>,
    /// Simulate: after a failed delivery that webhook is paused, and what happens during the pause
    /// is never sent [without a value: 30m]; needs --rate
    #[arg(long, value_name = "LENGTH", requires = "rate", num_args = 0..=1, default_missing_value = "30m", value_parser = parse_duration)]
    pause_rule: Option<Duration>,
    /// Simulate: maximum number of connections
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1000))]
    connections: u32,
    /// Simulate: the same seed with the same arguments posts the same bytes
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// What is to be simulated, if anything.
    fn plan(&self) -> Option<Plan> {
        let is_simulation = self.count.is_some()
            || self.rate.is_some()
            || self.array.is_some()
            || self.sessions.is_some()
            || self.resend.is_some();
        is_simulation.then(|| Plan {
            count: self.count,
            rate: self.rate,
            array: self.array.unwrap_or(1) as usize,
            sessions: self.sessions.unwrap_or(100).into(),
            resend: self.resend.unwrap_or(0).into(),
            pause: self.pause_rule,
            connections: self.connections as usize,
            seed: self.seed,
        })
    }
}

/// Posts the files, or runs the simulation.
pub fn run(layering: &ConfigArguments, arguments: &Arguments) -> anyhow::Result<Exit> {
    let plan = arguments.plan();
    if plan.is_none() && arguments.files.is_empty() && std::io::stdin().is_terminal() {
        let advice =
            "`deskbridge send FILE`, or `deskbridge send --count 10` to simulate the sender";
        return Err(usage_error("nothing to send", advice));
    }
    let (target, shown) = target::choose(layering, arguments)?;
    runtime()?.block_on(async {
        match plan {
            Some(plan) => simulation::run(&plan, &target, arguments.json).await,
            None => files::run(&target, &shown, arguments).await,
        }
    })
}

//! `topology`: prints what `serve` declares on the broker as RabbitMQ definitions, or declares it now.

use clap::{Args, Subcommand};
use deskbridge::config::Config;
use deskbridge::foreign;
use deskbridge::ops::topology;
use deskbridge::rabbitmq::Version;
use deskbridge::rabbitmq::topology::{DeclareResult, DeclaredObject, Object};
use deskbridge::telemetry::status::Retries;
use serde_json::{Value, json};

use super::output::{ignore_closed_output, print_as, print_document, say};
use super::{ConfigArguments, Exit, runtime};

/// Sections and keys that the topology comes from.
const NEEDED: [&str; 5] = ["rabbitmq", "routing", "unrouted", "dead_letter", "queues"];

const AFTER_HELP: &str = "\
Neither needs a journal or the secrets of sources, and the bridge may be running.

Examples:
  deskbridge topology print > definitions.json
  deskbridge topology apply";

const AFTER_PRINT_HELP: &str = "\
Prints the exchanges, queues and bindings that `serve` declares with `rabbitmq.topology = \"declare\"`, in the \
form that RabbitMQ imports: for \"verify\", or for a user who may not declare. They are in the vhost of \
`rabbitmq.urls`, which must exist. Users, permissions and policies are not included; `serve` declares none. An \
import adds what is missing; it changes and deletes nothing.

It does not connect to the broker, unless a queue has a `retry_delay`: from 4.3 on RabbitMQ delays rejected \
messages itself, before that the bridge does, with two more queues. --broker-version says it instead.

Examples:
  deskbridge topology print > definitions.json
  rabbitmqctl import_definitions definitions.json
  deskbridge topology print --broker-version 4.3 | \
curl -u admin -H 'content-type: application/json' -d @- http://localhost:15672/api/definitions/%2f";

const AFTER_APPLY_HELP: &str = "\
Declares what is missing, as `serve` does when it connects, also with `rabbitmq.topology = \"verify\"`. It \
changes and deletes nothing. Each object is one line:

  declared  it was missing
  existed   with the same arguments; the line says if the user's permissions did not allow to compare them
  bound     the binding exists now; AMQP does not say whether it existed before
  differs   it exists with other arguments, and is left as it is
  failed    it cannot be declared

Exit codes: 0 everything exists as planned, 1 something differs or failed.

Examples:
  deskbridge topology apply
  deskbridge topology apply --set rabbitmq.url_file=admin-url.txt --json";

/// Arguments of `topology`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(subcommand)]
    command: TopologyCommand,
}

#[derive(Debug, Subcommand)]
enum TopologyCommand {
    /// Print what `serve` declares, as RabbitMQ definitions (JSON)
    #[command(after_help = AFTER_PRINT_HELP)]
    Print(PrintArguments),
    /// Declare it now
    #[command(after_help = AFTER_APPLY_HELP)]
    Apply(ApplyArguments),
}

#[derive(Debug, Args)]
struct PrintArguments {
    #[command(flatten)]
    layering: ConfigArguments,
    /// The version of RabbitMQ that it is for, such as 4.3, instead of asking the broker
    #[arg(long, value_name = "VERSION", value_parser = version)]
    broker_version: Option<Version>,
}

#[derive(Debug, Args)]
struct ApplyArguments {
    #[command(flatten)]
    layering: ConfigArguments,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
pub fn run(layering: &ConfigArguments, arguments: &Arguments) -> anyhow::Result<Exit> {
    let config = |behind: &ConfigArguments| {
        let is_needed =
            |key: &str| key.is_empty() || NEEDED.iter().any(|section| key.starts_with(section));
        layering.clone().and(behind).peek_at(is_needed)
    };
    match &arguments.command {
        TopologyCommand::Print(one) => print(&config(&one.layering)?, one.broker_version),
        TopologyCommand::Apply(one) => apply(&config(&one.layering)?, one.json),
    }
}

fn print(config: &Config, version: Option<Version>) -> anyhow::Result<Exit> {
    let plan = runtime()?.block_on(topology::plan(config, version))?;
    let exit = print_document(&plan.topology.definitions(&plan.vhost))?;
    for (queue, retries) in plan.topology.retries() {
        let who = match retries {
            Retries::Broker => "the broker delays rejected messages (RabbitMQ 4.3 or later)",
            Retries::Bridge => "the bridge delays rejected messages, with two more queues",
        };
        say(format_args!("queue `{queue}`: {who}"));
    }
    Ok(exit)
}

fn apply(config: &Config, is_json: bool) -> anyhow::Result<Exit> {
    let declared = runtime()?.block_on(topology::apply(config))?;
    let mut text = String::new();
    for one in &declared {
        if is_json {
            text += &json(one).to_string();
        } else {
            text += &foreign::line(&line(one));
        }
        text.push('\n');
    }
    ignore_closed_output(print_as(is_json, &text))?;
    topology::judge(config, &declared)?;
    Ok(Exit::Done)
}

fn line(declared: &DeclaredObject) -> String {
    let object = &declared.object;
    // A sentence about what is wrong names the object.
    let detail = declared.detail.as_deref();
    let told = || detail.map_or_else(|| object.to_string(), ToOwned::to_owned);
    match (declared.result, detail) {
        (DeclareResult::Declared, _) => format!("declared  {object}"),
        (DeclareResult::Existed, None) => format!("existed   {object}"),
        (DeclareResult::Existed, Some(why)) => {
            format!("existed   {object}; its arguments were not compared: {why}")
        }
        (DeclareResult::Bound, _) => format!("bound     {object}"),
        (DeclareResult::Differs, _) => format!("differs   {}", told()),
        (DeclareResult::Failed, _) => format!("failed    {}", told()),
    }
}

fn json(declared: &DeclaredObject) -> Value {
    let mut line = match &declared.object {
        Object::Exchange(exchange) => json!({"kind": "exchange", "name": exchange.name}),
        Object::Queue(queue) => json!({"kind": "queue", "name": queue.name}),
        Object::Binding(binding) => json!({
            "kind": "binding", "queue": binding.queue, "exchange": binding.exchange,
            "routing_key": binding.key,
        }),
    };
    line["result"] = json!(declared.result);
    line["detail"] = json!(declared.detail);
    line
}

fn version(text: &str) -> Result<Version, String> {
    Version::parse(text).ok_or_else(|| "expected a version such as 4.3".into())
}

//! The command line: one file a command. Errors are told to people here and nowhere else.

mod asyncapi;
mod check;
mod completions;
mod dead_letters;
mod events;
pub mod failure;
mod health;
mod http_client;
mod journal_dir;
mod output;
mod schema;
mod send;
mod serve;
mod show;
mod table;
mod tail;
mod time;
mod verify;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::TypedValueParser;
use clap::{Arg, Args, Parser, Subcommand};
use deskbridge::config::finding::ConfigError;
use deskbridge::config::layers::Layers;
use deskbridge::config::{Config, Loaded};

const AFTER_HELP: &str = "\
Configuration comes from the built-in defaults, files, the environment (DESKBRIDGE__HTTP__LISTEN=…) \
and --set, the last one wins. config/default.toml shows every key.

Exit codes: 0 done, 1 the answer is no or it failed, 2 usage or findings in the configuration. A command \
whose output is no longer read (`… | head -1`) ends without a word, with 0 if printing was all it did.

Example:
  deskbridge --config config/deskbridge.toml serve";

/// The bridge between DeskDirector's chat webhooks and RabbitMQ
#[derive(Debug, Parser)]
#[command(version, after_help = AFTER_HELP, disable_help_subcommand = true)]
pub struct CommandLine {
    #[command(flatten)]
    layering: Layering,
    #[command(subcommand)]
    command: Command,
}

/// What a command of this binary came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or yes.
    Done,
    /// The answer is no, or it failed.
    No,
    /// Usage, or findings in the configuration.
    Usage,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the bridge
    Serve(With<serve::Arguments>),
    /// Look for what would stop or lose traffic
    Check(With<check::Arguments>),
    /// Ask the running bridge whether it accepts webhooks
    Health(With<health::Arguments>),
    /// Sign and post webhooks, or simulate DeskDirector
    Send(With<send::Arguments>),
    /// Tell which secret signed a webhook
    Verify(With<verify::Arguments>),
    /// Print chat sessions as they pass
    Tail(With<tail::Arguments>),
    /// Look into the dead-letter queue or another one, replay or discard what is in it
    DeadLetters(With<dead_letters::Arguments>),
    /// Look into the journal, and publish again what it holds
    Events(With<events::Arguments>),
    /// Show the configuration
    Config(With<show::Arguments>),
    /// Print the JSON Schema of a chat session
    Schema(With<schema::Arguments>),
    /// Print the AsyncAPI document of exchanges, keys, messages and queues
    Asyncapi(With<asyncapi::Arguments>),
    /// Print completions for a shell
    Completions(With<completions::Arguments>),
}

/// Files and flags of the configuration; before or after the command.
#[derive(Debug, Clone, Default, Args)]
struct Layering {
    /// Configuration file; may be given several times, later ones win
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Set one key of the configuration; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = KeyAndValue)]
    set: Vec<(String, String)>,
}

/// A command's arguments with the layers given behind the command.
#[derive(Debug, Args)]
struct With<A: Args> {
    #[command(flatten)]
    layering: Layering,
    #[command(flatten)]
    arguments: A,
}

impl CommandLine {
    /// Runs the command.
    ///
    /// # Errors
    /// What it was doing, why it failed, what to try.
    pub fn run(self) -> anyhow::Result<Exit> {
        let layers = |behind: &Layering| self.layering.clone().and(behind);
        match &self.command {
            Command::Serve(with) => serve::run(&layers(&with.layering), &with.arguments),
            Command::Check(with) => check::run(&layers(&with.layering), &with.arguments),
            Command::Health(with) => health::run(&layers(&with.layering), &with.arguments),
            Command::Send(with) => send::run(&layers(&with.layering), &with.arguments),
            Command::Verify(with) => verify::run(&layers(&with.layering), &with.arguments),
            Command::Tail(with) => tail::run(&layers(&with.layering), &with.arguments),
            Command::DeadLetters(with) => {
                dead_letters::run(&layers(&with.layering), &with.arguments)
            }
            Command::Events(with) => events::run(&layers(&with.layering), &with.arguments),
            Command::Config(with) => show::run(&layers(&with.layering), &with.arguments),
            Command::Schema(with) => schema::run(&layers(&with.layering), &with.arguments),
            Command::Asyncapi(with) => asyncapi::run(&layers(&with.layering), &with.arguments),
            Command::Completions(with) => {
                completions::run(&layers(&with.layering), &with.arguments)
            }
        }
    }
}

impl Layering {
    /// Both, those given behind the command being the stronger ones.
    fn and(mut self, behind: &Self) -> Self {
        self.config.extend_from_slice(&behind.config);
        self.set.extend_from_slice(&behind.set);
        self
    }

    fn layers(&self) -> Layers {
        Layers::of_process(&self.config, &self.set)
    }

    fn load(&self) -> Result<Loaded, ConfigError> {
        let layers = self.layers();
        Config::load(&layers).map_err(|mut error| {
            let sources = error.findings.iter_mut().find(|finding| finding.key == "sources");
            if let Some(finding) = sources.filter(|_| layers.is_without_file()) {
                finding.problem.push_str(
                    "; no configuration file was read: no `--config` is given and `config/deskbridge.toml` is not here",
                );
            }
            error
        })
    }

    /// The same; if there are findings, a journal that cannot be written is among them.
    fn load_to_run(&self) -> Result<Loaded, ConfigError> {
        self.load().map_err(|mut error| {
            let config = self.peek().ok();
            error
                .findings
                .extend(config.and_then(|config| journal_dir::unwritable(&config.journal)));
            error
        })
    }

    /// The values for a command that talks to the broker: what is wrong elsewhere does not stop it.
    fn peek_at_broker(&self) -> Result<Config, ConfigError> {
        let Err(mut error) = self.load() else {
            return self.peek();
        };
        let concerns = |key: &str| key.is_empty() || key.starts_with("rabbitmq");
        error.findings.retain(|finding| concerns(&finding.key));
        if error.findings.is_empty() {
            self.peek()
        } else {
            Err(error)
        }
    }

    fn peek(&self) -> Result<Config, ConfigError> {
        Config::peek(&self.layers())
    }
}

/// Reads `KEY=VALUE`. The usual error would repeat the whole text, and a secret may stand in it.
#[derive(Clone)]
struct KeyAndValue;

impl TypedValueParser for KeyAndValue {
    type Value = (String, String);

    fn parse_ref(
        &self,
        command: &clap::Command,
        _: Option<&Arg>,
        value: &OsStr,
    ) -> Result<(String, String), clap::Error> {
        match value.to_str().and_then(|text| text.split_once('=')) {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => {
                let problem = "--set: expected KEY=VALUE, such as http.listen=127.0.0.1:8080\n";
                Err(
                    clap::Error::raw(clap::error::ErrorKind::ValueValidation, problem)
                        .with_cmd(command),
                )
            }
        }
    }
}

/// One thread is enough for a command that mostly waits.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.map_err(|error| {
        failure::failed(
            "starting the runtime",
            error,
            "look at the limits of this process (ulimit -a)",
        )
    })
}

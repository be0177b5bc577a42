//! The command line: one module per command. Errors are reported to the user here and nowhere else.

mod asyncapi;
mod check;
mod completions;
mod config;
mod dead_letters;
mod events;
pub mod failure;
mod health;
mod interrupt;
mod man;
mod output;
mod pause;
mod progress;
mod schema;
mod send;
mod serve;
mod status;
mod table;
mod tail;
mod time;
mod topology;
mod verify;
mod why;

use std::ffi::OsStr;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::TypedValueParser;
use clap::{Arg, Args, Parser, Subcommand};
use deskbridge::config::finding::ConfigError;
use deskbridge::config::layers::Layers;
use deskbridge::config::{Config, Loaded};
use deskbridge::settings;

const AFTER_HELP: &str = "\
The configuration comes from the built-in defaults, files, the environment (DESKBRIDGE__HTTP__LISTEN=…) \
and --set; later ones win. config/default.toml shows every key.

Exit codes: 0 done, or the answer is yes; 1 the answer is no, or the command failed; 2 wrong usage, or \
findings in the configuration. A command whose output is closed (`… | head -1`) ends without a message, \
with 0 if it only prints.

Example:
  deskbridge --config config/deskbridge.toml serve";

/// Maximum length of a queue's name in bytes: the default exchange takes it as a routing key, which is
/// a short string of AMQP 0-9-1.
const QUEUE_NAME_BYTES_MAX: usize = 255;
const LIMITS_ADVICE: &str = "check the limits of this process (ulimit -a)";

/// The bridge between DeskDirector's chat webhooks and RabbitMQ
#[derive(Debug, Parser)]
#[command(version, after_help = AFTER_HELP, disable_help_subcommand = true)]
pub struct CommandLine {
    #[command(flatten)]
    layering: ConfigArguments,
    #[command(subcommand)]
    command: Command,
}

/// Result of a command; its discriminant is the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or the answer is yes.
    Done,
    /// The answer is no, or the command failed.
    No,
    /// Wrong usage, or findings in the configuration; of `status`, webhooks are not accepted.
    Usage,
}

impl Exit {
    fn of(is_done: bool) -> Self {
        if is_done { Self::Done } else { Self::No }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the bridge
    #[command(after_help = serve::AFTER_HELP)]
    Serve(ConfigArguments),
    /// Show the running bridge on one screen
    Status(With<status::Arguments>),
    /// Stop publishing, of everything or of some routes; webhooks are accepted meanwhile
    Pause(With<pause::PauseArguments>),
    /// Publish again what was paused
    Resume(With<pause::ResumeArguments>),
    /// Find out where the events of a session are, and what keeps them there
    Why(With<why::Arguments>),
    /// Report what stops webhooks or events, or loses messages
    Check(With<check::Arguments>),
    /// Ask the running bridge whether it accepts webhooks
    #[command(after_help = health::AFTER_HELP)]
    Health(ConfigArguments),
    /// Sign and post webhooks, or simulate DeskDirector
    Send(With<send::Arguments>),
    /// Find the secret that signed a webhook
    Verify(With<verify::Arguments>),
    /// Print chat sessions as they are published
    Tail(With<tail::Arguments>),
    /// Count, browse, replay and discard messages of the dead-letter queue or another queue
    DeadLetters(With<dead_letters::Arguments>),
    /// Find, export and replay events of the journal
    Events(With<events::Arguments>),
    /// Print the effective configuration, or the JSON Schema of a configuration file
    Config(With<config::Arguments>),
    /// Print the JSON Schema of a chat session
    Schema(With<schema::Arguments>),
    /// Print the AsyncAPI document of exchanges, keys, messages and queues
    Asyncapi(With<asyncapi::Arguments>),
    /// Print or declare the exchanges, queues and bindings that `serve` declares
    Topology(With<topology::Arguments>),
    /// Print the completion script for a shell
    Completions(With<completions::Arguments>),
    /// Print or write the manual pages
    Man(With<man::Arguments>),
}

/// Configuration files and keys; accepted before and after the command.
#[derive(Debug, Clone, Default, Args)]
struct ConfigArguments {
    /// Read this configuration file; may be given several times, later files win [default: the file
    /// that `DESKBRIDGE_CONFIG` names, else config/deskbridge.toml or /etc/deskbridge/deskbridge.toml]
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Set one key of the configuration; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = KeyAndValue)]
    set: Vec<(String, String)>,
}

/// Arguments of a command, with the configuration flags given after its name.
#[derive(Debug, Args)]
struct With<A: Args> {
    #[command(flatten)]
    layering: ConfigArguments,
    #[command(flatten)]
    arguments: A,
}

impl CommandLine {
    /// Runs the command.
    ///
    /// # Errors
    /// Says what the command was doing, why it failed and what to try.
    pub fn run(self) -> anyhow::Result<Exit> {
        let layers = |behind: &ConfigArguments| self.layering.clone().and(behind);
        match &self.command {
            Command::Serve(behind) => serve::run(&layers(behind)),
            Command::Status(with) => status::run(&layers(&with.layering), &with.arguments),
            Command::Pause(with) => pause::pause(&layers(&with.layering), &with.arguments),
            Command::Resume(with) => pause::resume(&layers(&with.layering), &with.arguments),
            Command::Why(with) => why::run(&layers(&with.layering), &with.arguments),
            Command::Check(with) => check::run(&layers(&with.layering), &with.arguments),
            Command::Health(behind) => health::run(&layers(behind)),
            Command::Send(with) => send::run(&layers(&with.layering), &with.arguments),
            Command::Verify(with) => verify::run(&layers(&with.layering), &with.arguments),
            Command::Tail(with) => tail::run(&layers(&with.layering), &with.arguments),
            Command::DeadLetters(with) => {
                dead_letters::run(&layers(&with.layering), &with.arguments)
            }
            Command::Events(with) => events::run(&layers(&with.layering), &with.arguments),
            Command::Config(with) => config::run(&layers(&with.layering), &with.arguments),
            Command::Schema(with) => schema::run(&with.arguments),
            Command::Asyncapi(with) => asyncapi::run(&layers(&with.layering), &with.arguments),
            Command::Topology(with) => topology::run(&layers(&with.layering), &with.arguments),
            Command::Completions(with) => completions::run(&with.arguments),
            Command::Man(with) => man::run(&with.arguments),
        }
    }
}

impl ConfigArguments {
    /// Appends the flags given after the command; they override those before it.
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
        settings::load(&layers).map_err(|mut error| {
            let sources = error.findings.iter_mut().find(|finding| finding.key == "sources");
            if let Some(finding) = sources.filter(|_| layers.files.is_empty()) {
                finding.problem.push_str(
                    "; no configuration file was read: `--config` is not given, `DESKBRIDGE_CONFIG` is not set, and neither `config/deskbridge.toml` nor `/etc/deskbridge/deskbridge.toml` exists",
                );
            }
            error
        })
    }

    /// Like `load`. If there are findings, also reports a journal directory that is not writable.
    fn load_to_run(&self) -> Result<Loaded, ConfigError> {
        self.load().map_err(|mut error| {
            let config = self.peek().ok();
            error.findings.extend(
                config.and_then(|config| {
                    deskbridge::ops::check::journal::unwritable(&config.journal)
                }),
            );
            error
        })
    }

    /// The configuration for a command that only talks to the broker: findings about other keys do
    /// not stop it.
    fn peek_at_broker(&self) -> Result<Config, ConfigError> {
        self.peek_at(|key| key.is_empty() || key.starts_with("rabbitmq"))
    }

    /// The configuration for a command that is stopped only by findings about these keys.
    fn peek_at(&self, is_needed: impl Fn(&str) -> bool) -> Result<Config, ConfigError> {
        if let Err(mut error) = self.load() {
            error.findings.retain(|finding| is_needed(&finding.key));
            if !error.findings.is_empty() {
                return Err(error);
            }
        }
        self.peek()
    }

    fn peek(&self) -> Result<Config, ConfigError> {
        Config::peek(&self.layers())
    }
}

/// Parses `KEY=VALUE`. The usual error of clap repeats the whole argument, which may contain a
/// secret.
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

/// Parses the name of a queue.
fn queue_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > QUEUE_NAME_BYTES_MAX {
        return Err(format!("expected 1 to {QUEUE_NAME_BYTES_MAX} bytes"));
    }
    Ok(text.to_owned())
}

/// Reads a file, or standard input for `-`.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    if path.as_os_str() != "-" {
        return std::fs::read(path);
    }
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A single-threaded runtime, for commands that mostly wait.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build();
    runtime.map_err(|error| failure::failed("starting the runtime", error, LIMITS_ADVICE))
}

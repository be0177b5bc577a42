//! `completions`: prints the script with which a shell completes commands and flags.

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use super::output::print_exactly;
use super::{CommandLine, Exit};

const AFTER_HELP: &str = "\
Examples:
  deskbridge completions bash > /etc/bash_completion.d/deskbridge
  deskbridge completions zsh > \"${fpath[1]}/_deskbridge\"
  deskbridge completions fish > ~/.config/fish/completions/deskbridge.fish";

/// Arguments of `completions`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// The shell that reads the script
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Prints the script.
pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    let mut command = CommandLine::command();
    generate(arguments.shell, &mut command, "deskbridge", &mut script);
    print_exactly(&script)?;
    Ok(Exit::Done)
}

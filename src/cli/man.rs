//! `man`: manual pages, made from the help texts.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_mangen::{Man, generate_to};

use super::failure::failed;
use super::output::print_exactly;
use super::{CommandLine, Exit};

const AFTER_HELP: &str = "\
Examples:
  deskbridge man | man --local-file -
  deskbridge man /usr/local/share/man/man1";

/// Arguments of `man`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// Write one page for each command into this directory, instead of printing that of deskbridge
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// Prints the page of the program, or writes the pages of all commands.
pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let command = CommandLine::command();
    if let Some(directory) = &arguments.directory {
        generate_to(command, directory).map_err(|why| {
            failed(
                format!("writing manual pages to `{}`", directory.display()),
                why,
                "name a directory that exists and is writable",
            )
        })?;
    } else {
        let mut page = Vec::new();
        Man::new(command).render(&mut page)?;
        print_exactly(&page)?;
    }
    Ok(Exit::Done)
}

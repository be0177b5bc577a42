//! The binary: reads the command line, runs one command, ends with its exit code.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let command_line = cli::CommandLine::parse();
    match command_line.run() {
        Ok(exit) => exit.into(),
        Err(error) => cli::failure::report(&error).into(),
    }
}

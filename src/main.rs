//! The binary: parses the command line, runs one command and exits with its exit code.

mod cli;

use std::process::ExitCode;

use clap::Parser;
use tikv_jemallocator::Jemalloc;

/// Configured in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    let command_line = cli::CommandLine::parse();
    match command_line.run() {
        Ok(exit) => exit.into(),
        Err(error) => cli::failure::report(&error).into(),
    }
}

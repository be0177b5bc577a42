//! `schema`: prints the JSON Schema of a chat session.

use clap::Args;
use deskbridge::webhook::session::{ChatSession, strict};
use schemars::schema_for;

use super::Exit;
use super::output::print_document;

const AFTER_HELP: &str = "\
Prints the JSON Schema (draft 2020-12) of a chat session, the body of a message. It is as tolerant as \
DeskDirector: only `id` and `status` are required; every other field may be absent, null or of another \
shape, and there may be more fields. An element that is not valid becomes a dead letter.

--strict prints the schema (draft 7) for code generators: every field has the type that DeskDirector's \
interface defines, or is absent or null. Times are `date-time`, entity ids are integers. A status or type may \
be any string. A message can still have a field of another type.

Examples:
  deskbridge schema > chat-session.schema.json
  deskbridge schema --strict > chat-session.strict.schema.json";

/// Arguments of `schema`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// Print the schema for code generators: no field has another type than DeskDirector's interface defines
    #[arg(long)]
    strict: bool,
}

/// Prints the schema.
pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    if arguments.strict {
        return print_document(&strict::schema());
    }
    print_document(&schema_for!(ChatSession))
}

//! `schema`: the JSON Schema of a chat session.

use clap::Args;
use deskbridge::webhook::session::schema::schema;
use schemars::generate::SchemaSettings;

use super::output::print_document;
use super::{Exit, Layering};

const AFTER_HELP: &str = "\
Prints the JSON Schema (draft 2020-12) of one chat session, the body of a message. It is as tolerant as \
DeskDirector is free: only `id` and `status` are required, every other field may be absent, null or of \
another shape, and there may be more fields. An element that is not valid becomes a dead letter.

Example:
  deskbridge schema > chat-session.schema.json";

/// Arguments of `schema`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {}

/// Prints it.
pub fn run(_: &Layering, _: &Arguments) -> anyhow::Result<Exit> {
    print_document(&schema(SchemaSettings::draft2020_12()))
}

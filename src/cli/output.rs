//! What commands write: the only place that knows standard output and standard error. Nothing that a
//! terminal would obey or hide reaches people, whoever wrote it.

mod printer;

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write, stderr, stdout};

use deskbridge::telemetry::foreign;
use serde::Serialize;

pub use self::printer::Printer;
use super::Exit;

/// Nobody reads standard output any more; ends a command without a word.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads the output")]
pub struct Unread;

/// Writes text for people.
///
/// # Errors
/// [`Unread`], or what the file system says.
pub fn print(text: &str) -> anyhow::Result<()> {
    write(foreign::block(text).as_bytes())
}

/// Writes valid JSON, one document or one a line.
///
/// # Errors
/// As [`print`].
pub fn print_json(text: &str) -> anyhow::Result<()> {
    write(foreign::json(text).as_bytes())
}

/// Writes a JSON document over several lines.
///
/// # Errors
/// As [`print`].
pub fn print_document(document: &impl Serialize) -> anyhow::Result<Exit> {
    let mut text = serde_json::to_string_pretty(document)?;
    text.push('\n');
    print_json(&text)?;
    Ok(Exit::Done)
}

/// Writes bytes as they are; on a terminal as text for people.
///
/// # Errors
/// As [`print`].
pub fn print_exactly(bytes: &[u8]) -> anyhow::Result<()> {
    if stdout().is_terminal() {
        print(&String::from_utf8_lossy(bytes))
    } else {
        write(bytes)
    }
}

/// For the last words of a command that has done its work: its exit code does not depend on a reader.
///
/// # Errors
/// All but [`Unread`].
pub fn even_unread(printed: anyhow::Result<()>) -> anyhow::Result<()> {
    printed.or_else(|error| {
        if error.is::<Unread>() {
            Ok(())
        } else {
            Err(error)
        }
    })
}

/// Writes one line to standard error. If nobody takes it, the exit code still tells.
pub fn say(line: impl Display) {
    let line = line.to_string();
    let _ = writeln!(stderr(), "{}", foreign::line(&line));
}

/// Writes a question to standard error.
pub fn ask(question: impl Display) {
    let question = question.to_string();
    let _ = write!(stderr(), "{} ", foreign::line(&question));
}

/// Writes lines to standard error as they are broken.
pub fn say_lines(text: &str) {
    let _ = stderr().write_all(foreign::block(text).as_bytes());
}

fn write(bytes: &[u8]) -> anyhow::Result<()> {
    let mut output = stdout().lock();
    output
        .write_all(bytes)
        .and_then(|()| output.flush())
        .map_err(failed)
}

fn failed(error: io::Error) -> anyhow::Error {
    if error.kind() == ErrorKind::BrokenPipe {
        return Unread.into();
    }
    anyhow::Error::new(error).context("writing the output")
}

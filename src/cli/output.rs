//! What commands write: the only place that uses standard output and standard error. Everything
//! printed for people is escaped here, so that a terminal neither obeys nor hides text of others.

mod printer;
mod screen;

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write, stderr, stdout};

use deskbridge::foreign;
use serde::Serialize;

pub use self::printer::Printer;
pub use self::screen::{Screen, Watched};
use super::Exit;

/// Standard output is closed. Ends a command without a message.
#[derive(Debug, thiserror::Error)]
#[error("standard output is closed")]
pub struct OutputClosed;

/// Writes escaped text.
///
/// # Errors
/// [`OutputClosed`] if standard output is closed, otherwise the I/O error.
pub fn print(text: &str) -> anyhow::Result<()> {
    write(foreign::block(text).as_bytes())
}

/// Writes valid JSON: one document, or one object per line.
///
/// # Errors
/// As [`print`].
pub fn print_json(text: &str) -> anyhow::Result<()> {
    write(foreign::json(text).as_bytes())
}

/// Writes text as [`print_json`] or as [`print`].
///
/// # Errors
/// As [`print`].
pub fn print_as(is_json: bool, text: &str) -> anyhow::Result<()> {
    if is_json {
        print_json(text)
    } else {
        print(text)
    }
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

/// Writes bytes exactly; on a terminal as escaped text.
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

/// For the last output of a command whose work is done: a closed output does not change its exit
/// code.
///
/// # Errors
/// Every error except [`OutputClosed`].
pub fn ignore_closed_output(printed: anyhow::Result<()>) -> anyhow::Result<()> {
    match printed {
        Err(error) if error.is::<OutputClosed>() => Ok(()),
        printed => printed,
    }
}

/// Writes one line to standard error. A failure is ignored: the exit code reports the result too.
pub fn say(line: impl Display) {
    let line = line.to_string();
    let _ = writeln!(stderr(), "{}", foreign::line(&line));
}

/// Writes a question to standard error.
pub fn ask(question: impl Display) {
    let question = question.to_string();
    let _ = write!(stderr(), "{} ", foreign::line(&question));
}

/// Writes text to standard error and keeps its line breaks.
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
        return OutputClosed.into();
    }
    anyhow::Error::new(error).context("writing the output")
}

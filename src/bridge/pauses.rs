//! Watches the pauses that operators set with commands.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;

use crate::journal::PauseFile;
use crate::telemetry::status::Pause;

/// Time between two looks at the file.
const TICK: Duration = Duration::from_millis(500);

/// The pauses in force, also after later changes. Ends when no receiver is left.
///
/// What cannot be read changes nothing: an operator can correct it, and publishing goes on or stays
/// paused as before.
pub(super) fn watch(dir: &Path) -> watch::Receiver<Vec<Pause>> {
    let file = PauseFile::of(dir);
    let mut problem = None;
    let first = read(&file, &mut problem).unwrap_or_default();
    if !first.is_empty() {
        tracing::warn!(
            pauses = first.len(),
            "publishing is paused by an operator; `deskbridge resume` ends it"
        );
    }
    let (sender, receiver) = watch::channel(first);
    tokio::spawn(async move {
        while !sender.is_closed() {
            tokio::time::sleep(TICK).await;
            let (file, mut known) = (file.clone(), problem.take());
            // The disk may be slow, and the runtime must not wait for it.
            let reading = tokio::task::spawn_blocking(move || (read(&file, &mut known), known));
            let Ok((found, known)) = reading.await else {
                continue;
            };
            problem = known;
            if let Some(found) = found {
                sender.send_if_modified(|pauses| {
                    let is_new = *pauses != found;
                    *pauses = found;
                    is_new
                });
            }
        }
    });
    receiver
}

/// Reads the file; logs a problem unless it is the known one.
fn read(file: &PauseFile, known: &mut Option<String>) -> Option<Vec<Pause>> {
    match file.read() {
        Ok(pauses) => {
            *known = None;
            Some(pauses)
        }
        Err(error) => {
            let cause = error.source().map(ToString::to_string).unwrap_or_default();
            let problem = format!("{error}: {cause}");
            if known.as_ref() != Some(&problem) {
                tracing::error!(
                    problem,
                    "the pauses cannot be read and stay as they were; correct or delete the file"
                );
            }
            *known = Some(problem);
            None
        }
    }
}

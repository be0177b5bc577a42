//! Looks at the journal's directory without changing anything.

use std::path::Path;

use deskbridge::config::finding::Finding;
use deskbridge::config::journal::Journal;
use deskbridge::config::units::format_size;
use deskbridge::journal::{self, FileSystem, Space};
use rustix::fs::{Access, access};

use super::check;

/// Why events could not be written there, if they could not.
pub fn unwritable(journal: &Journal) -> Option<Finding> {
    let existing = nearest_existing(&journal.dir);
    let shown = existing.display();
    let problem = if existing.is_dir() {
        let denied = access(existing, Access::WRITE_OK | Access::EXEC_OK).err()?;
        format!(
            "cannot write in `{shown}`: {denied}; give the user of the bridge a directory of its own"
        )
    } else {
        format!("`{shown}` is not a directory; name one, or a place where one can be made")
    };
    Some(Finding::new("journal.dir", problem))
}

/// Everything that is wrong with the directory, or with the one it would be made in.
pub fn look(journal: &Journal) -> Vec<check::Finding> {
    if let Some(finding) = unwritable(journal) {
        return vec![
            check::Finding::error(finding.to_string())
                .losing("`serve` refuses to start: nothing could be held")
                .trying("`chown` it to the user of the bridge, or another `journal.dir`"),
        ];
    }
    let refused = refused(&journal.dir);
    // Its database is not even opened: it may be somebody else's.
    let is_refused = refused.is_some();
    let mut lines: Vec<check::Finding> = refused.into_iter().collect();
    let existing = nearest_existing(&journal.dir);
    match FileSystem::of(existing).and_then(|kind| Ok((kind, Space::of(existing)?))) {
        Ok((kind, space)) => {
            lines.extend(file_system(journal, kind));
            if !is_refused {
                lines.extend(room(journal, space));
            }
        }
        Err(error) => lines.push(
            check::Finding::error(format!(
                "journal.dir: cannot look at its file system: {error}"
            ))
            .losing("whether there is room, and whether it keeps what it is given, is not known")
            .trying("`df` of that directory, as the user of the bridge"),
        ),
    }
    lines
}

/// What `serve` would refuse a directory for that is there already.
fn refused(dir: &Path) -> Option<check::Finding> {
    use journal::DirectoryError::{Foreign, Network};
    let error = dir
        .exists()
        .then(|| journal::examine(dir).err())
        .flatten()?;
    let advice = match error {
        // Said with every other file system.
        Network { .. } => return None,
        Foreign { .. } => "run `check` and `serve` as that user, or `chown -R` it",
        _ => "an empty directory of its own, owned by the user of the bridge",
    };
    Some(
        check::Finding::error(format!("journal.dir: {error}"))
            .losing("`serve` refuses to start: nothing could be held")
            .trying(advice),
    )
}

fn nearest_existing(dir: &Path) -> &Path {
    let named = dir.ancestors().filter(|dir| !dir.as_os_str().is_empty());
    named
        .into_iter()
        .find(|dir| dir.exists())
        .unwrap_or(Path::new("."))
}

fn file_system(journal: &Journal, kind: FileSystem) -> Option<check::Finding> {
    let concern = kind.concern()?;
    let problem = format!("journal.dir: {concern} (`{}`)", journal.dir.display());
    let line = match kind {
        FileSystem::Network(_) => {
            check::Finding::error(problem).losing("`serve` refuses to start there")
        }
        _ => check::Finding::warning(problem).losing("what was accepted and not yet published"),
    };
    Some(line.trying("`journal.dir` on a local disk"))
}

/// Whether the disk holds what it is told to.
fn room(journal: &Journal, space: Space) -> Option<check::Finding> {
    let free = space
        .free
        .saturating_add(journal::free_pages_bytes(&journal.dir));
    let minimum = journal.disk_free_min;
    if free < minimum {
        let (free, minimum) = (format_size(free), format_size(minimum));
        let problem =
            format!("journal.dir: {free} free is less than `journal.disk_free_min` ({minimum})");
        return Some(
            check::Finding::error(problem)
                .losing(
                    "settled events are deleted early; once none are left, webhooks are answered 503, and DeskDirector \
                     pauses them",
                )
                .trying("make room, or name a larger disk in `journal.dir`"),
        );
    }
    let (backlog, retention) = (journal.backlog_bytes_max, journal.retention_bytes);
    let needed = minimum.saturating_add(backlog).saturating_add(retention);
    let there = space.free.saturating_add(space.journal);
    (there < needed).then(|| {
        let problem = format!(
            "journal.dir: the disk has {} for the journal, of {} in all; `journal.backlog_bytes_max` ({}), \
             `journal.retention_bytes` ({}) and `journal.disk_free_min` ({}) together are {}",
            format_size(there),
            format_size(space.total),
            format_size(backlog),
            format_size(retention),
            format_size(minimum),
            format_size(needed),
        );
        check::Finding::warning(problem)
            .losing(
                "settled events are deleted earlier than configured, and in a long outage of the broker webhooks are \
                 answered 503 earlier",
            )
            .trying(
                "a larger disk, or a smaller `journal.retention_bytes` and `journal.backlog_bytes_max`",
            )
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn lines(journal: &Journal) -> Vec<String> {
        look(journal)
            .iter()
            .map(ToString::to_string)
            .filter(|line| !line.contains("lies in memory"))
            .collect()
    }

    #[test]
    fn a_directory_that_can_be_made_has_no_findings_and_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal {
            dir: dir.path().join("a/b"),
            ..Journal::default()
        };
        assert_eq!(
            lines(&Journal {
                disk_free_min: 0,
                backlog_bytes_max: 0,
                retention_bytes: 0,
                ..journal.clone()
            }),
            Vec::<String>::new()
        );
        assert!(!journal.dir.exists());
    }

    #[test]
    fn a_file_in_its_place_and_too_little_space_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let journal = Journal {
            dir: file,
            ..Journal::default()
        };
        assert!(lines(&journal)[0].starts_with("error: journal.dir:"));
        let full = Journal {
            dir: dir.path().join("journal"),
            disk_free_min: u64::MAX,
            ..Journal::default()
        };
        assert!(
            lines(&full)[0].contains("free is less than `journal.disk_free_min`"),
            "{:?}",
            lines(&full)
        );
        let small = Journal {
            disk_free_min: 0,
            backlog_bytes_max: u64::MAX,
            ..full
        };
        assert!(
            lines(&small)[0].starts_with("warning: journal.dir:")
                && lines(&small)[0].contains("`journal.backlog_bytes_max` (")
                && lines(&small)[0].contains("`journal.retention_bytes` (1GiB)"),
            "{:?}",
            lines(&small)
        );
    }
}

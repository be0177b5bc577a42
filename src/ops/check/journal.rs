//! Inspects the journal's directory without changing anything.

use std::path::Path;

use rustix::fs::{Access, access};

use super::finding::{Findings, Severity};
use crate::config::finding::ConfigFinding;
use crate::config::journal::JournalConfig;
use crate::config::units::format_size;
use crate::journal::{self, FileSystem, Space};

/// What happens if the directory cannot be used.
const REFUSED: &str = "`serve` refuses to start: it could not store any event";

/// A finding if events cannot be written to the directory, or to the one it would be created in.
#[must_use]
pub fn unwritable(journal: &JournalConfig) -> Option<ConfigFinding> {
    let existing = nearest_existing(&journal.dir);
    let shown = existing.display();
    let problem = if existing.is_dir() {
        let denied = access(existing, Access::WRITE_OK | Access::EXEC_OK).err()?;
        format!(
            "cannot write in `{shown}`: {denied}; give the user of the bridge a directory of its own"
        )
    } else {
        format!(
            "`{shown}` is not a directory; name a directory, or a path where one can be created"
        )
    };
    Some(ConfigFinding::new("journal.dir", problem))
}

/// Findings about the directory, or about the one it would be created in.
pub fn judge(journal: &JournalConfig, list: &mut Findings) {
    if let Some(finding) = unwritable(journal) {
        list.error(finding.to_string())
            .impact(REFUSED)
            .fix("`chown` it to the user of the bridge, or use another `journal.dir`");
        return;
    }
    let is_refused = refused(&journal.dir, list);
    let existing = nearest_existing(&journal.dir);
    match FileSystem::of(existing).and_then(|kind| Ok((kind, Space::of(existing)?))) {
        Ok((kind, space)) => {
            file_system(journal, kind, list);
            // The database of a refused directory is not opened: it may belong to another program.
            if !is_refused {
                damage(journal, list);
                room(journal, space, list);
            }
        }
        Err(error) => {
            list.error(format!(
                "journal.dir: cannot inspect its file system: {error}"
            ))
            .impact("it is unknown whether there is enough space, and whether written data is kept")
            .fix("`df` of that directory, as the user of the bridge");
        }
    }
}

/// Whether `serve` would refuse a directory that exists already.
fn refused(dir: &Path, list: &mut Findings) -> bool {
    use journal::DirectoryError::{Foreign, Network};
    let examined = dir.exists().then(|| journal::examine(dir));
    let Some(Err(error)) = examined else {
        return false;
    };
    let fix = match error {
        // Reported by `file_system`, with the other file systems.
        Network { .. } => return false,
        Foreign { .. } => "run `check` and `serve` as that user, or `chown -R` it",
        _ => "use an empty directory of its own, owned by the user of the bridge",
    };
    list.error(format!("journal.dir: {error}"))
        .impact(REFUSED)
        .fix(fix);
    true
}

fn nearest_existing(dir: &Path) -> &Path {
    let mut named = dir.ancestors().filter(|dir| !dir.as_os_str().is_empty());
    named.find(|dir| dir.exists()).unwrap_or(Path::new("."))
}

fn file_system(journal: &JournalConfig, kind: FileSystem, list: &mut Findings) {
    let Some(concern) = kind.concern() else {
        return;
    };
    let is_network = matches!(kind, FileSystem::Network(_));
    let impact = if is_network {
        "`serve` refuses to start there"
    } else {
        "events that were accepted and not yet published can be lost"
    };
    let dir = journal.dir.display();
    list.add(
        Severity::of(is_network),
        format!("journal.dir: {concern} (`{dir}`)"),
    )
    .impact(impact)
    .fix("put `journal.dir` on a local disk");
}

fn damage(journal: &JournalConfig, list: &mut Findings) {
    if journal::is_known_damaged(&journal.dir) {
        list.error("journal.dir: `journal.db` is damaged")
            .impact("its next start sets it aside and copies what can be read; the rest is lost")
            .fix("restart the bridge, see `lost_events` in `/status`, and check the disk");
    }
}

/// Adds a finding if the disk is too small for the configured limits, or has too little free space.
fn room(journal: &JournalConfig, space: Space, list: &mut Findings) {
    let free = space
        .free
        .saturating_add(journal::free_pages_bytes(&journal.dir));
    let minimum = journal.disk_free_min;
    let limits = [minimum, journal.backlog_bytes_max, journal.retention_bytes];
    let needed = limits.into_iter().fold(0, u64::saturating_add);
    let there = space.free.saturating_add(space.journal);
    let [minimum_shown, backlog, retention] = limits.map(format_size);
    if free < minimum {
        let free = format_size(free);
        list.error(format!("journal.dir: {free} free is less than `journal.disk_free_min` ({minimum_shown})"))
            .impact("completed events are deleted early; when none are left, webhooks are answered 503, and DeskDirector pauses them")
            .fix("free some space, or put `journal.dir` on a larger disk");
    } else if there < needed {
        let [there, total, needed] = [there, space.total, needed].map(format_size);
        list.warning(format!(
            "journal.dir: the disk has {there} for the journal, of {total} in all; `journal.backlog_bytes_max` ({backlog}), \
             `journal.retention_bytes` ({retention}) and `journal.disk_free_min` ({minimum_shown}) together are {needed}"
        ))
        .impact("completed events are deleted earlier than configured, and in a long outage of the broker webhooks are answered 503 earlier")
        .fix("use a larger disk, or reduce `journal.retention_bytes` and `journal.backlog_bytes_max`");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn lines(journal: &JournalConfig) -> Vec<String> {
        let mut list = Findings::default();
        judge(journal, &mut list);
        let lines = list.0.iter().map(ToString::to_string);
        lines
            .filter(|line| !line.contains("stored in memory"))
            .collect()
    }

    #[test]
    fn creatable_directory_has_no_findings() {
        let dir = tempfile::tempdir().unwrap();
        let journal = JournalConfig {
            dir: dir.path().join("a/b"),
            disk_free_min: 0,
            backlog_bytes_max: 0,
            retention_bytes: 0,
            ..JournalConfig::default()
        };
        assert_eq!(lines(&journal), Vec::<String>::new());
        assert!(!journal.dir.exists());
    }

    #[test]
    fn file_in_its_place_and_low_space_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let journal = JournalConfig {
            dir: file,
            ..JournalConfig::default()
        };
        assert!(lines(&journal)[0].starts_with("error: journal.dir:"));
        let full = JournalConfig {
            dir: dir.path().join("journal"),
            disk_free_min: u64::MAX,
            ..JournalConfig::default()
        };
        let found = &lines(&full)[0];
        let expected = "free is less than `journal.disk_free_min`";
        assert!(found.contains(expected), "{found}");
        let small = JournalConfig {
            disk_free_min: 0,
            backlog_bytes_max: u64::MAX,
            ..full
        };
        let found = &lines(&small)[0];
        assert!(found.starts_with("warning: journal.dir:"), "{found}");
        for expected in [
            "`journal.backlog_bytes_max` (",
            "`journal.retention_bytes` (1GiB)",
        ] {
            assert!(found.contains(expected), "{found}");
        }
    }
}

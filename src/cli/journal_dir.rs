//! Looks at the journal's directory without changing anything.

use std::path::Path;

use deskbridge::config::finding::Finding;
use deskbridge::config::journal::Journal;
use deskbridge::config::units::format_size;
use rustix::fs::{Access, access, statfs};

use super::check::Line;

/// File systems whose locks and syncs cannot be relied on.
const NETWORK: [(u64, &str); 4] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
];
/// File systems that forget.
const MEMORY: [(u64, &str); 2] = [(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs")];

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
pub fn look(journal: &Journal) -> Vec<Line> {
    if let Some(finding) = unwritable(journal) {
        return vec![
            Line::error(finding.to_string())
                .losing("`serve` refuses to start: nothing could be held")
                .trying("`chown` it to the user of the bridge, or another `journal.dir`"),
        ];
    }
    match statfs(nearest_existing(&journal.dir)) {
        Ok(stat) => look_at_file_system(journal, &stat),
        Err(error) => vec![
            Line::error(format!(
                "journal.dir: cannot look at its file system: {error}"
            ))
            .losing("whether there is room, and whether it keeps what it is given, is not known")
            .trying("`df` of that directory, as the user of the bridge"),
        ],
    }
}

fn nearest_existing(dir: &Path) -> &Path {
    let named = dir.ancestors().filter(|dir| !dir.as_os_str().is_empty());
    named
        .into_iter()
        .find(|dir| dir.exists())
        .unwrap_or(Path::new("."))
}

fn look_at_file_system(journal: &Journal, stat: &rustix::fs::StatFs) -> Vec<Line> {
    let mut lines = Vec::new();
    #[expect(
        clippy::cast_sign_loss,
        reason = "the magic number is 32 bits whatever its type"
    )]
    let kind = stat.f_type as u64 & 0xffff_ffff;
    let name = |kinds: &[(u64, &'static str)]| {
        kinds
            .iter()
            .find(|(magic, _)| *magic == kind)
            .map(|(_, name)| *name)
    };
    if let Some(name) = name(&NETWORK) {
        let problem = format!("journal.dir: {name} is no place for a journal; use a local disk");
        lines.push(
            Line::error(problem)
                .losing("`serve` refuses to start there: its locks and syncs cannot be relied on")
                .trying("`journal.dir` on a local disk"),
        );
    }
    if let Some(name) = name(&MEMORY) {
        let problem = format!("journal.dir: {name} forgets everything at a restart of the machine");
        lines.push(
            Line::warning(problem)
                .losing("what was accepted and not yet published")
                .trying("`journal.dir` on a disk"),
        );
    }
    #[expect(clippy::cast_sign_loss, reason = "a block has a positive size")]
    let free = stat.f_bavail.saturating_mul(stat.f_bsize as u64);
    if free < journal.disk_free_min {
        let (free, needed) = (format_size(free), format_size(journal.disk_free_min));
        let problem =
            format!("journal.dir: {free} free is less than `journal.disk_free_min` ({needed})");
        lines.push(
            Line::error(problem)
                .losing("webhooks are answered 503, and DeskDirector pauses them")
                .trying("make room, or name a larger disk in `journal.dir`"),
        );
    } else if free - journal.disk_free_min < journal.backlog_bytes_max {
        let (free, backlog) = (format_size(free), format_size(journal.backlog_bytes_max));
        let problem =
            format!("journal.dir: {free} free do not hold `journal.backlog_bytes_max` ({backlog})");
        lines.push(
            Line::warning(problem)
                .losing("in a long outage of the broker webhooks are answered 503 earlier than configured")
                .trying("a larger disk, or a smaller `journal.backlog_bytes_max`"),
        );
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn lines(journal: &Journal) -> Vec<String> {
        look(journal)
            .iter()
            .map(ToString::to_string)
            .filter(|line| !line.contains("tmpfs"))
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
            dir: dir.path().into(),
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
                && lines(&small)[0].contains("do not hold `journal.backlog_bytes_max`"),
            "{:?}",
            lines(&small)
        );
    }
}

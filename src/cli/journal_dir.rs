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
        return vec![Line::error(finding.to_string())];
    }
    match statfs(nearest_existing(&journal.dir)) {
        Ok(stat) => look_at_file_system(journal, &stat),
        Err(error) => vec![Line::error(format!(
            "journal.dir: cannot look at its file system: {error}"
        ))],
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
        lines.push(Line::error(format!(
            "journal.dir: {name} is no place for a journal; use a local disk"
        )));
    }
    if let Some(name) = name(&MEMORY) {
        lines.push(Line::warning(format!(
            "journal.dir: {name} forgets everything at a restart of the machine"
        )));
    }
    #[expect(clippy::cast_sign_loss, reason = "a block has a positive size")]
    let free = stat.f_bavail.saturating_mul(stat.f_bsize as u64);
    if free < journal.disk_free_min {
        let (free, needed) = (format_size(free), format_size(journal.disk_free_min));
        lines.push(Line::error(format!(
            "journal.dir: {free} free is less than `journal.disk_free_min` ({needed})"
        )));
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
    }
}

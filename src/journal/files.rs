//! The names of the files that belong to a database, and what makes a change of names last.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// A database is its file, its log and the index of its log.
pub(super) const SUFFIXES: [&str; 3] = ["-wal", "-shm", ""];
/// A database that is not ready: nothing in it counts yet.
pub(super) const NEW: &str = ".new";

/// Opens no symbolic link: whoever put it there would have us write into what it leads to.
#[expect(clippy::cast_possible_wrap, reason = "a flag")]
pub(super) const NO_LINK: i32 = rustix::fs::OFlags::NOFOLLOW.bits() as i32;

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Makes names in the directory of a file outlive a power loss.
pub(super) fn sync_directory_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

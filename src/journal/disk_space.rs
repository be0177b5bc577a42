//! The free space of the journal's disk.

use std::io;
use std::path::Path;

use super::{directory, files, schema};

/// Completed events are deleted before `journal.disk_free_min` is reached: by this margin, or by
/// this fraction of the minimum if that is less.
const MARGIN_BYTES: u64 = 16 << 20;
const MARGIN_PART: u64 = 4;
/// Free space in the file system that the WAL should have: what is written between two checkpoints,
/// and the last group.
const WAL_BYTES: u64 = 32 << 20;
/// On a small disk, this fraction of its size is used instead.
const WAL_PART: u64 = 8;
/// The free space of a disk, and the space that the journal takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Space {
    /// Bytes that an unprivileged user can still write to the file system.
    pub free: u64,
    /// The size of the file system in bytes.
    pub total: u64,
    /// The size of the database, its WAL and the WAL index in bytes.
    pub journal: u64,
    /// The size of the WAL alone in bytes; it is overwritten from the beginning after each reset.
    pub wal: u64,
}

impl Space {
    /// Measures the disk of a directory, whether it contains a journal or not.
    ///
    /// # Errors
    /// `statvfs` fails.
    pub fn of(dir: &Path) -> io::Result<Self> {
        let found = rustix::fs::statvfs(dir)?;
        let database = dir.join(directory::DATABASE);
        let files = files::of_database(&database);
        Ok(Self {
            total: found.f_blocks.saturating_mul(found.f_frsize),
            free: found.f_bavail.saturating_mul(found.f_frsize),
            journal: files.iter().map(|file| files::size(file)).sum(),
            wal: files::size(&files[0]),
        })
    }
}

/// The bytes of free pages in a journal's database, which another process may be writing; 0 if
/// there is no journal.
#[must_use]
pub fn free_pages_bytes(dir: &Path) -> u64 {
    let database = schema::open_checked(&dir.join(directory::DATABASE)).ok();
    let pages = database.and_then(|(database, _)| {
        let count = database.pragma_query_value(None, "freelist_count", |row| row.get::<_, i64>(0));
        count.ok().and_then(|pages| u64::try_from(pages).ok())
    });
    pages.unwrap_or_default() * u64::from(schema::PAGE_BYTES)
}

/// Free space that the WAL should have in a file system of `total` bytes.
pub(super) fn wal_bytes(total: u64) -> u64 {
    WAL_BYTES.min(total / WAL_PART)
}

/// On a disk of `total` bytes, completed events are deleted when less than this is free.
pub(super) fn wanted_bytes(minimum: u64, total: u64) -> u64 {
    // Without space for the WAL, not even a deletion can be written.
    with_margin(minimum.max(wal_bytes(total)))
}

pub(super) fn with_margin(bytes: u64) -> u64 {
    bytes.saturating_add(MARGIN_BYTES.min(bytes / MARGIN_PART))
}

//! How much room a disk has for events.

use std::path::Path;
use std::{fs, io};

use super::{directory, files, schema};

/// What is free on the disk, and what the journal takes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Space {
    /// Bytes that an ordinary user can still write on the file system.
    pub free: u64,
    /// The size of the file system.
    pub total: u64,
    /// The database, its log and the index of its log.
    pub journal: u64,
    /// Its log, whose bytes are written over from the beginning again and again.
    pub log: u64,
}

impl Space {
    /// Of the disk with the journal's directory, whether there is a journal in it or not.
    ///
    /// # Errors
    /// The file system cannot be asked.
    pub fn of(dir: &Path) -> io::Result<Self> {
        let found = rustix::fs::statvfs(dir)?;
        let database = dir.join(directory::DATABASE);
        let size = |suffix: &str| {
            let file = files::with_suffix(&database, suffix);
            fs::symlink_metadata(file).map_or(0, |found| found.len())
        };
        Ok(Self {
            total: found.f_blocks.saturating_mul(found.f_frsize),
            free: found.f_bavail.saturating_mul(found.f_frsize),
            journal: files::SUFFIXES.into_iter().map(size).sum(),
            log: size("-wal"),
        })
    }
}

/// Free pages of a journal's database beside the process that writes it; 0 if there is none.
#[must_use]
pub fn free_pages_bytes(dir: &Path) -> u64 {
    let database = schema::look(&dir.join(directory::DATABASE)).ok();
    let pages = database.and_then(|database| {
        let count = database.pragma_query_value(None, "freelist_count", |row| row.get::<_, i64>(0));
        count.ok().and_then(|pages| u64::try_from(pages).ok())
    });
    pages.unwrap_or_default() * u64::from(schema::PAGE_BYTES)
}

//! Restores a lost first page. Without it, a database cannot be read at all, even if nothing else
//! is missing. The page contains the root pages of the tables, which are the same in every journal.
//! Therefore a copy of the database gets the first page of an empty one.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::journal::files;
use crate::journal::schema::PAGE_BYTES;

/// The suffix of the copy's file name.
const COPY: &str = ".copy";
/// The bytes of the first page with the number of pages and the list of free pages.
const COUNTS: std::ops::Range<usize> = 28..40;

/// A copy that is deleted when this is dropped.
#[derive(Debug)]
pub(super) struct RepairedCopy(pub(super) PathBuf);

/// Copies a database and replaces the copy's first page with that of another one.
pub(super) fn restore_header(database: &Path, empty: &Path) -> io::Result<RepairedCopy> {
    let copy = RepairedCopy(files::with_suffix(database, COPY));
    files::remove(&copy.0)?;
    for suffix in ["", "-wal"] {
        let from = files::with_suffix(database, suffix);
        if from.try_exists()? {
            fs::copy(from, files::with_suffix(&copy.0, suffix))?;
        }
    }
    let mut page = vec![0; PAGE_BYTES as usize];
    File::open(empty)?.read_exact_at(&mut page, 0)?;
    // With zeros, SQLite takes the number of pages from the file's size and expects no free pages.
    page[COUNTS].fill(0);
    OpenOptions::new()
        .write(true)
        .open(&copy.0)?
        .write_all_at(&page, 0)?;
    Ok(copy)
}

impl Drop for RepairedCopy {
    fn drop(&mut self) {
        let _ = files::remove(&self.0);
    }
}

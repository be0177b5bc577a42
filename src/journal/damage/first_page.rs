//! Restores a lost page of the schema: the first page or one below it. Without it, a database cannot be
//! read at all, even if nothing else is missing. These pages contain the root pages of the tables, which
//! are the same in every journal. Therefore a copy of the database gets those of an empty one.

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

/// The kind of a page in a pointer map that is part of a b-tree and not its root.
const OF_A_TREE: u8 = 5;

/// A copy that is deleted when this is dropped.
#[derive(Debug)]
pub(super) struct RepairedCopy(pub(super) PathBuf);

impl RepairedCopy {
    /// A copy of the database without its WAL.
    pub(super) fn of(database: &Path) -> io::Result<Self> {
        let copy = Self(files::with_suffix(database, COPY));
        files::remove(&copy.0)?;
        fs::copy(database, &copy.0)?;
        Ok(copy)
    }
}

/// Copies a database and replaces the copy's first page with that of another one.
pub(super) fn restore_header(database: &Path, empty: &Path) -> io::Result<RepairedCopy> {
    let copy = RepairedCopy::of(database)?;
    let wal = files::with_suffix(database, "-wal");
    if wal.try_exists()? {
        fs::copy(wal, files::with_suffix(&copy.0, "-wal"))?;
    }
    let mut page = vec![0; PAGE_BYTES as usize];
    let empty = File::open(empty)?;
    empty.read_exact_at(&mut page, 0)?;
    // With zeros, SQLite takes the number of pages from the file's size and expects no free pages.
    page[COUNTS].fill(0);
    let repaired = OpenOptions::new().write(true).open(&copy.0)?;
    repaired.write_all_at(&page, 0)?;
    for number in below_first(&empty)? {
        let place = number * u64::from(PAGE_BYTES);
        empty.read_exact_at(&mut page, place)?;
        repaired.write_all_at(&page, place)?;
    }
    Ok(copy)
}

/// The pages of an empty database that are neither the first one nor root pages, from 0: those of the
/// schema. The second page (pointer map) lists the kind of each following page.
fn below_first(empty: &File) -> io::Result<Vec<u64>> {
    let pages = empty.metadata()?.len() / u64::from(PAGE_BYTES);
    let mut kinds = vec![[0; 5]; usize::try_from(pages.saturating_sub(2)).unwrap_or_default()];
    empty.read_exact_at(kinds.as_flattened_mut(), PAGE_BYTES.into())?;
    let below = (2..).zip(kinds).filter(|(_, kind)| kind[0] == OF_A_TREE);
    Ok(below.map(|(page, _)| page).collect())
}

impl Drop for RepairedCopy {
    fn drop(&mut self) {
        let _ = files::remove(&self.0);
    }
}

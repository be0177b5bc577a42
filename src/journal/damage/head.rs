//! A database that lost its first page cannot be read at all, though nothing else is missing: the
//! page says where the tables begin, which is the same in every journal. A copy gets the page of
//! an empty one.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::journal::files;
use crate::journal::schema::PAGE_BYTES;

/// What the copy is called.
const COPY: &str = ".copy";
/// In the first page: how many pages there are, and which of them are free.
const COUNTS: std::ops::Range<usize> = 28..40;

/// A copy that is removed when it is not needed any more.
#[derive(Debug)]
pub(super) struct Copy(PathBuf);

/// Copies a database and gives the copy the first page of another one.
pub(super) fn transplant(database: &Path, empty: &Path) -> io::Result<Copy> {
    let copy = Copy(files::with_suffix(database, COPY));
    copy.remove();
    for suffix in ["", "-wal"] {
        let from = files::with_suffix(database, suffix);
        if from.try_exists()? {
            fs::copy(from, files::with_suffix(&copy.0, suffix))?;
        }
    }
    let mut page = vec![0; PAGE_BYTES as usize];
    File::open(empty)?.read_exact_at(&mut page, 0)?;
    // SQLite counts by itself then, and does not look for free ones.
    page[COUNTS].fill(0);
    OpenOptions::new()
        .write(true)
        .open(&copy.0)?
        .write_all_at(&page, 0)?;
    Ok(copy)
}

impl Copy {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    fn remove(&self) {
        for suffix in files::SUFFIXES {
            let _ = fs::remove_file(files::with_suffix(&self.0, suffix));
        }
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.remove();
    }
}

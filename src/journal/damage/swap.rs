//! Puts a new database in the place of a damaged one. The first renaming makes the new one count;
//! the others follow, now or at the next start.

use std::path::{Path, PathBuf};
use std::{fs, io};

use jiff::Timestamp;

use crate::journal::files;

/// What a new database is called that has everything, while the damaged one moves out.
const CARRIED: &str = ".carried-";
/// What the damaged one is called then.
const DAMAGED: &str = ".damaged-";

/// Swaps a damaged database and the new one; says where the damaged one lies now.
pub(super) fn begin(database: &Path, new: &Path) -> io::Result<Option<PathBuf>> {
    let time = Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ");
    let carried = files::with_suffix(database, &format!("{CARRIED}{time}"));
    fs::rename(new, carried)?;
    files::sync_directory_of(database)?;
    finish(database)
}

/// Ends a swap that has begun, if there is one; says where the damaged database lies now.
pub(super) fn finish(database: &Path) -> io::Result<Option<PathBuf>> {
    let Some((carried, time)) = carried(database)? else {
        return Ok(None);
    };
    let aside = files::with_suffix(database, &format!("{DAMAGED}{time}"));
    for suffix in files::SUFFIXES {
        let from = files::with_suffix(database, suffix);
        if from.try_exists()? {
            fs::rename(from, files::with_suffix(&aside, suffix))?;
        }
    }
    fs::rename(carried, database)?;
    files::sync_directory_of(database)?;
    Ok(Some(aside))
}

fn carried(database: &Path) -> io::Result<Option<(PathBuf, String)>> {
    let prefix = files::with_suffix(database, CARRIED);
    let prefix = prefix.file_name().unwrap_or_default().to_string_lossy();
    for entry in fs::read_dir(database.parent().unwrap_or(Path::new(".")))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(time) = name.strip_prefix(&*prefix) {
            return Ok(Some((entry.path(), time.to_owned())));
        }
    }
    Ok(None)
}

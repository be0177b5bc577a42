//! Replaces a damaged database with the new one. The first rename decides: from then on the new
//! database is valid, and the other renames follow now or at the next start.

use std::path::{Path, PathBuf};
use std::{fs, io};

use jiff::Timestamp;

use crate::journal::files;

/// The suffix of the complete new database while the damaged one is being renamed.
const CARRIED: &str = ".carried-";
/// The suffix of the damaged database.
const DAMAGED: &str = ".damaged-";

/// Replaces a damaged database with the new one; returns the new path of the damaged one.
pub(super) fn begin(database: &Path, new: &Path) -> io::Result<Option<PathBuf>> {
    let time = Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ");
    let carried = files::with_suffix(database, &format!("{CARRIED}{time}"));
    fs::rename(new, carried)?;
    files::sync_directory_of(database)?;
    finish(database)
}

/// Finishes a replacement that has begun, if there is one; returns the new path of the damaged
/// database.
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

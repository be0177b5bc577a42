//! The files of a database: their names, how they are created and deleted, and how a change of
//! names is made durable.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The suffixes of a database's files: WAL, WAL index and the database itself.
pub(super) const SUFFIXES: [&str; 3] = ["-wal", "-shm", ""];
/// The suffix of a database under construction; nothing in it counts yet.
pub(super) const NEW: &str = ".new";
/// The permissions of a file for its owner only.
const PRIVATE: u32 = 0o600;

/// The operating system refused an operation on a file or directory.
#[derive(Debug, thiserror::Error)]
#[error("{doing} `{path}`")]
pub struct FileError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl FileError {
    /// The error of an operation, from its cause.
    pub(super) fn of(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self {
            doing,
            path: path.to_owned(),
            source,
        }
    }

    /// The error of the operating system.
    pub(super) fn cause(&self) -> &io::Error {
        &self.source
    }
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// All files that a database may have.
pub(super) fn of_database(path: &Path) -> [PathBuf; 3] {
    SUFFIXES.map(|suffix| with_suffix(path, suffix))
}

/// Creates the empty file of a new database, in place of an existing one. SQLite would create it
/// with the mode of the umask. WAL and WAL index get the mode of the database.
pub(super) fn create(path: &Path) -> Result<(), FileError> {
    let created = remove(path).and_then(|()| {
        let mut options = OpenOptions::new();
        options
            .write(true)
            .create_new(true)
            .mode(PRIVATE)
            .open(path)
    });
    created.map(drop).map_err(FileError::of("creating", path))
}

/// Opens a file for reading, but no symbolic link.
pub(super) fn open_reading(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(no_link())
        .open(path)
}

/// Opens a file for its owner only, and creates it if there is none. Opens no symbolic link:
/// otherwise, anyone who can create one in the directory could make the process write to the file it
/// points to.
pub(super) fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(PRIVATE)
        .custom_flags(no_link())
        .open(path)
}

fn no_link() -> i32 {
    #[expect(clippy::cast_possible_wrap, reason = "a flag")]
    let flag = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
    flag
}

/// Deletes a database. The database file is deleted first: while a reader finds it, its WAL exists,
/// too.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    for file in of_database(path).iter().rev() {
        match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The size of a file in bytes; 0 if there is none.
pub(super) fn size(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |found| found.len())
}

/// Makes the files of a database private: after a restore, other users may be able to read them.
pub(super) fn restrict_database(path: &Path) -> Result<(), FileError> {
    let files = of_database(path);
    files.iter().try_for_each(|file| restrict(file, PRIVATE))
}

/// Sets the mode of a file or directory if group or others have any permission.
pub(super) fn restrict(path: &Path, mode: u32) -> Result<(), FileError> {
    let result = match fs::metadata(path) {
        Ok(found) if found.permissions().mode() & 0o077 != 0 => {
            fs::set_permissions(path, Permissions::from_mode(mode))
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    result.map_err(FileError::of("restricting", path))
}

/// Syncs the directory of a file, so that changes of names in it survive a power loss.
pub(super) fn sync_directory_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

//! Creates, checks and locks the journal's directory. Knows files, not their contents.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::file_system::FileSystem;
use super::files::{self, FileError};
use crate::foreign;

/// Why the directory cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Another process holds the lock.
    #[error("the journal in `{dir}` is in use by {holder}")]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// Host, process and start time of the holder.
        holder: String,
    },
    /// The directory or a file in it belongs to another user.
    #[error("`{path}` belongs to user {owner}, but this process runs as user {user}")]
    Foreign {
        /// The file or directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// The user of this process.
        user: u32,
    },
    /// The directory is on a network file system, where SQLite's locks are not reliable.
    #[error(
        "`{dir}` is on a network file system ({kind}), where the journal's locks are not reliable"
    )]
    Network {
        /// The directory.
        dir: PathBuf,
        /// The kind of file system.
        kind: &'static str,
    },
    /// The directory contains other files and no journal.
    #[error(
        "`{dir}` holds other files and no journal (`{file}`); use a dedicated directory, such as \
         `{}`", .dir.join("deskbridge").display()
    )]
    Occupied {
        /// The directory.
        dir: PathBuf,
        /// One of its files.
        file: String,
    },
    /// The directory is shared by all users, such as `/tmp`: its sticky bit is set.
    #[error(
        "`{dir}` is shared by all users (its sticky bit is set); use a dedicated directory, such \
         as `{}`", .dir.join("deskbridge").display()
    )]
    Shared {
        /// The directory.
        dir: PathBuf,
    },
    /// A symbolic link, a directory or something else has the name of one of the journal's files.
    #[error("`{path}` is {kind}, not a file")]
    NotAFile {
        /// Its path.
        path: PathBuf,
        /// What the file is instead.
        kind: &'static str,
    },
    /// The operating system refused.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A directory that this process holds locked until this value is dropped.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    // Hold the locks. Not the database, because closing a second handle on it would release
    // SQLite's own locks (POSIX).
    _locks: [File; 2],
}

impl Directory {
    /// Creates the directory if it is missing (mode 0700) and locks it.
    ///
    /// # Errors
    /// The directory is in use by another process, belongs to another user, contains other files,
    /// is on a network file system, or is not writable.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        create(path)?;
        examine(path)?;
        let locks = lock(path)?;
        files::restrict(path, PRIVATE)?;
        Ok(Self {
            path: path.to_owned(),
            _locks: locks,
        })
    }

    /// The path of the database.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }
}

/// File name of the database.
pub const DATABASE: &str = "journal.db";
/// File name of the search archive, which is derived from the database.
pub(super) const ARCHIVE: &str = "archive.db";
const LOCK: &str = "journal.lock";
/// File name of the note that a process leaves when it meets damage, so that the next start checks
/// the database.
pub(super) const SUSPECT: &str = "journal.suspect";
/// The directory that `mkfs` creates in the root of a new disk.
const LOST_AND_FOUND: &str = "lost+found";
/// The permissions of a directory for its owner only.
const PRIVATE: u32 = 0o700;
const STICKY: u32 = 0o1000;

fn create(path: &Path) -> Result<(), DirectoryError> {
    if path.is_dir() {
        return Ok(());
    }
    let missing = path.ancestors().take_while(|ancestor| !ancestor.exists());
    let missing: Vec<_> = missing.collect();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE)
        .create(path)
        .map_err(FileError::of("creating the journal's directory", path))?;
    // Without this, a power loss can remove the directory with everything that was synced in it.
    for made in missing {
        files::sync_directory_of(made).map_err(FileError::of("syncing", made))?;
    }
    Ok(())
}

/// Checks whether an existing directory can hold the journal. Changes nothing.
///
/// # Errors
/// The reason why it cannot.
pub fn examine(path: &Path) -> Result<(), DirectoryError> {
    let found = fs::metadata(path).map_err(FileError::of("inspecting", path))?;
    check_owner(path, &found)?;
    if found.mode() & STICKY != 0 {
        return Err(DirectoryError::Shared {
            dir: path.to_owned(),
        });
    }
    check_files(path)?;
    check_content(path)?;
    check_file_system(path)
}

/// Whether a command of this user may read the directory, with a bridge running there or not.
///
/// # Errors
/// A file of the database belongs to another user, or the directory is on a network file system.
pub(super) fn check_access(path: &Path) -> Result<(), DirectoryError> {
    check_files(path)?;
    check_file_system(path)
}

fn check_owner(path: &Path, found: &Metadata) -> Result<(), DirectoryError> {
    let user = rustix::process::geteuid().as_raw();
    if found.uid() == user {
        return Ok(());
    }
    Err(DirectoryError::Foreign {
        path: path.to_owned(),
        owner: found.uid(),
        user,
    })
}

/// Refuses links and files of other users: anyone who can place one there could make the process
/// read or write another file.
fn check_files(dir: &Path) -> Result<(), DirectoryError> {
    let database = dir.join(DATABASE);
    let databases = files::of_database(&database);
    let others = [LOCK, SUSPECT].map(|name| dir.join(name));
    for path in databases.into_iter().chain(others) {
        let found = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            found => found.map_err(FileError::of("inspecting", &path))?,
        };
        check_is_file(&path, &found)?;
        check_owner(&path, &found)?;
    }
    Ok(())
}

fn check_is_file(path: &Path, found: &Metadata) -> Result<(), DirectoryError> {
    let kind = found.file_type();
    if kind.is_file() {
        return Ok(());
    }
    Err(DirectoryError::NotAFile {
        path: path.to_owned(),
        kind: match () {
            () if kind.is_symlink() => "a symbolic link",
            () if kind.is_dir() => "a directory",
            () => "a device, a socket or a pipe",
        },
    })
}

/// Accepts only a directory that is empty or contains a journal.
fn check_content(dir: &Path) -> Result<(), DirectoryError> {
    let reading = FileError::of("reading", dir);
    let mut other = None;
    for entry in fs::read_dir(dir).map_err(&reading)? {
        let name = entry.map_err(&reading)?.file_name();
        if is_of_a_journal(&name) {
            return Ok(());
        }
        let is_derived = name.as_encoded_bytes().starts_with(ARCHIVE.as_bytes());
        if name != LOST_AND_FOUND && !is_derived {
            other = Some(name);
        }
    }
    match other {
        Some(name) => Err(DirectoryError::Occupied {
            dir: dir.to_owned(),
            file: foreign::line(&name.to_string_lossy()).into_owned(),
        }),
        None => Ok(()),
    }
}

/// Matches the lock, the note about damage, and every name that begins with that of the database:
/// WAL, copies under construction and databases that were set aside.
fn is_of_a_journal(name: &OsStr) -> bool {
    name == LOCK || name == SUSPECT || name.as_encoded_bytes().starts_with(DATABASE.as_bytes())
}

fn check_file_system(dir: &Path) -> Result<(), DirectoryError> {
    let querying = FileError::of("querying the file system of", dir);
    match FileSystem::of(dir).map_err(querying)? {
        FileSystem::Network(kind) => Err(DirectoryError::Network {
            dir: dir.to_owned(),
            kind,
        }),
        _ => Ok(()),
    }
}

/// Locks the directory, which unlike a file in it cannot be deleted meanwhile, and the file that names
/// the holder. Releases up to 0.1.0 lock only the file.
fn lock(dir: &Path) -> Result<[File; 2], DirectoryError> {
    let path = dir.join(LOCK);
    let directory = File::open(dir).map_err(FileError::of("opening", dir))?;
    let mut file = files::open_private(&path).map_err(FileError::of("opening", &path))?;
    let found = file.metadata();
    check_is_file(&path, &found.map_err(FileError::of("inspecting", &path))?)?;
    for locked in [&directory, &file] {
        match locked.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = (&file).take(1024).read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => "another process".to_owned(),
                    known => known.to_owned(),
                };
                return Err(DirectoryError::InUse {
                    dir: dir.to_owned(),
                    holder,
                });
            }
            Err(TryLockError::Error(source)) => {
                return Err(FileError::of("locking", &path)(source).into());
            }
        }
    }
    write_holder(&mut file).map_err(FileError::of("writing", &path))?;
    Ok([directory, file])
}

fn write_holder(file: &mut File) -> io::Result<()> {
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    file.set_len(0)?;
    file.rewind()?;
    writeln!(
        file,
        "process {} on host {host}, started {}",
        std::process::id(),
        Timestamp::now()
            .round(jiff::Unit::Second)
            .unwrap_or_default()
    )
}

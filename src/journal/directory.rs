//! The journal's directory: made, locked, checked. Knows files, not what is in them.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{Mode, OFlags};

use super::file_system::FileSystem;
use super::files;

/// Why the directory cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Another process has it.
    #[error("the journal in `{dir}` is in use by {holder}")]
    Held {
        /// The directory.
        dir: PathBuf,
        /// Host, process and start time of the holder.
        holder: String,
    },
    /// It belongs to another user.
    #[error("`{path}` belongs to user {owner}, but this process runs as user {user}")]
    Foreign {
        /// The file or directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Ours.
        user: u32,
    },
    /// It lies on a network file system, where SQLite's locks do not hold.
    #[error(
        "`{dir}` lies on a network file system ({kind}), where the journal's locks do not hold"
    )]
    Network {
        /// The directory.
        dir: PathBuf,
        /// Its kind.
        kind: &'static str,
    },
    /// It is used for other things.
    #[error(
        "`{dir}` holds other files and no journal (`{file}`); name a directory of its own, such as \
         `{}`", .dir.join("deskbridge").display()
    )]
    Occupied {
        /// The directory.
        dir: PathBuf,
        /// One of its files.
        file: String,
    },
    /// Everybody may write there.
    #[error(
        "`{dir}` is shared by all users (its sticky bit is set); name a directory of its own, such \
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
        /// What it is.
        kind: &'static str,
    },
    /// The operating system refused.
    #[error("{doing} `{path}`")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// A directory that is ours until this is dropped.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    // Holds the lock; a file of its own, since closing a second handle on the database would drop
    // SQLite's own locks on it.
    _lock: File,
}

impl Directory {
    /// Makes the directory if it is missing (mode 0700) and locks it.
    ///
    /// # Errors
    /// It is held by another process, belongs to another user, is used for other things, lies on a
    /// network file system, or cannot be written.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        create(path)?;
        let directory = File::open(path).map_err(|source| io_error("opening", path, source))?;
        examine(path)?;
        let lock = lock(path, &directory)?;
        restrict(path, &directory)?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Makes the names of its files outlive a power loss.
    ///
    /// # Errors
    /// The disk fails.
    pub fn sync(&self) -> Result<(), DirectoryError> {
        File::open(&self.path)
            .and_then(|directory| directory.sync_all())
            .map_err(|source| io_error("syncing", &self.path, source))
    }

    /// Where the database lies.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// File name of the database.
pub const DATABASE: &str = "journal.db";
const LOCK: &str = "journal.lock";
/// Left behind by a process that met damage, so that the next one looks for it.
pub(super) const SUSPECT: &str = "journal.suspect";
/// What mkfs puts into the root of a new disk.
const LOST_AND_FOUND: &str = "lost+found";
/// For others than the owner.
const OTHERS: u32 = 0o077;
const STICKY: u32 = 0o1000;

fn create(path: &Path) -> Result<(), DirectoryError> {
    if path.is_dir() {
        return Ok(());
    }
    let missing = path.ancestors().take_while(|ancestor| !ancestor.exists());
    let missing: Vec<_> = missing.collect();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| io_error("creating the journal's directory", path, source))?;
    // Or a power loss takes the directory with everything that was synced in it.
    missing.into_iter().try_for_each(|made| {
        files::sync_directory_of(made).map_err(|source| io_error("syncing", made, source))
    })
}

/// What keeps a directory that exists from being the journal's. Changes nothing.
///
/// # Errors
/// The reason.
pub fn examine(path: &Path) -> Result<(), DirectoryError> {
    let found = fs::metadata(path).map_err(|source| io_error("looking at", path, source))?;
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

/// Whether a command of this user may look into the directory beside its bridge, or without one.
///
/// # Errors
/// Its database belongs to another user, or it lies on a network file system.
pub(super) fn check_visitor(path: &Path) -> Result<(), DirectoryError> {
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

/// Whoever can put a link there would have us write into, or read, the file it leads to.
fn check_files(dir: &Path) -> Result<(), DirectoryError> {
    let database = dir.join(DATABASE);
    let databases = files::SUFFIXES.map(|suffix| files::with_suffix(&database, suffix));
    let others = [LOCK, SUSPECT].map(|name| dir.join(name));
    for path in databases.into_iter().chain(others) {
        let found = match fs::symlink_metadata(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(io_error("looking at", &path, source)),
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

/// Only a directory that is empty or holds a journal is used.
fn check_content(dir: &Path) -> Result<(), DirectoryError> {
    let reading = |source| io_error("reading", dir, source);
    let mut other = None;
    for entry in fs::read_dir(dir).map_err(reading)? {
        let name = entry.map_err(reading)?.file_name();
        if is_of_a_journal(&name) {
            return Ok(());
        }
        if name != LOST_AND_FOUND {
            other = Some(name);
        }
    }
    match other {
        Some(name) => Err(DirectoryError::Occupied {
            dir: dir.to_owned(),
            file: name.to_string_lossy().escape_debug().to_string(),
        }),
        None => Ok(()),
    }
}

/// The database, its log, one that is carried over or set aside, and what lies beside it.
fn is_of_a_journal(name: &OsStr) -> bool {
    name == LOCK || name == SUSPECT || name.as_encoded_bytes().starts_with(DATABASE.as_bytes())
}

fn check_file_system(dir: &Path) -> Result<(), DirectoryError> {
    let found = FileSystem::of(dir)
        .map_err(|source| io_error("asking for the file system of", dir, source))?;
    match found {
        FileSystem::Network(kind) => Err(DirectoryError::Network {
            dir: dir.to_owned(),
            kind,
        }),
        _ => Ok(()),
    }
}

fn restrict(path: &Path, directory: &File) -> Result<(), DirectoryError> {
    let found = directory.metadata();
    let found = found.map_err(|source| io_error("looking at", path, source))?;
    if found.mode() & OTHERS == 0 {
        return Ok(());
    }
    directory
        .set_permissions(fs::Permissions::from_mode(0o700))
        .map_err(|source| io_error("restricting", path, source))
}

fn lock(dir: &Path, directory: &File) -> Result<File, DirectoryError> {
    let path = dir.join(LOCK);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = rustix::fs::openat(directory, LOCK, flags, Mode::RUSR | Mode::WUSR)
        .map(File::from)
        .map_err(|source| io_error("opening", &path, source.into()))?;
    let found = file.metadata();
    let found = found.map_err(|source| io_error("looking at", &path, source))?;
    check_is_file(&path, &found)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = (&mut file).take(1024).read_to_string(&mut holder);
            let holder = match holder.trim() {
                "" => "another process".to_owned(),
                known => known.to_owned(),
            };
            return Err(DirectoryError::Held {
                dir: dir.to_owned(),
                holder,
            });
        }
        Err(TryLockError::Error(source)) => return Err(io_error("locking", &path, source)),
    }
    write_holder(&mut file).map_err(|source| io_error("writing", &path, source))?;
    Ok(file)
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

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> DirectoryError {
    DirectoryError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_and_told_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = Directory::open(dir.path()).unwrap();
        let second = Directory::open(dir.path()).unwrap_err().to_string();
        assert!(
            second.contains(&format!("process {}", std::process::id())),
            "{second}"
        );
        drop(first);
        Directory::open(dir.path()).unwrap();
    }

    #[test]
    fn directory_and_lock_are_for_their_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let _held = Directory::open(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o700
        );
        assert_eq!(
            fs::metadata(path.join(LOCK)).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
}

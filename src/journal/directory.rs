//! The journal's directory: made, locked, checked. Knows files, not what is in them.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

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
    /// It is held by another process, belongs to another user, lies on a network file system, or
    /// cannot be written.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        create(path)?;
        check_owner(path)?;
        check_file_system(path)?;
        let lock = lock(path)?;
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

/// Whether the directory lies in memory and forgets everything at a restart of the machine.
///
/// # Errors
/// It cannot be asked.
pub fn is_memory(path: &Path) -> io::Result<bool> {
    const TMPFS: i64 = 0x0102_1994;
    const RAMFS: i64 = 0x8584_58f6;
    #[allow(clippy::useless_conversion, reason = "the type is the architecture's")]
    let kind = i64::from(rustix::fs::statfs(path)?.f_type);
    Ok(kind == TMPFS || kind == RAMFS)
}

/// Bytes that an ordinary user can still write there.
///
/// # Errors
/// It cannot be asked.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(path)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

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

/// Whether a command of this user may look into the directory beside its bridge, or without one.
///
/// # Errors
/// Its database belongs to another user, or it lies on a network file system.
pub(super) fn check_visitor(path: &Path) -> Result<(), DirectoryError> {
    check_files(path)?;
    check_file_system(path)
}

fn check_owner(path: &Path) -> Result<(), DirectoryError> {
    check_files(path)?;
    // A directory may be shared on purpose (a mounted volume); the files in it are 0600 anyway.
    let user = rustix::process::geteuid().as_raw();
    let found = fs::metadata(path).map_err(|source| io_error("looking at", path, source))?;
    if found.uid() == user && found.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .map_err(|source| io_error("restricting", path, source))?;
    }
    Ok(())
}

fn check_files(path: &Path) -> Result<(), DirectoryError> {
    let user = rustix::process::geteuid().as_raw();
    for path in [path.to_owned(), path.join(DATABASE)] {
        let found = match fs::metadata(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(io_error("looking at", &path, source)),
        };
        if found.uid() != user && found.is_file() {
            return Err(DirectoryError::Foreign {
                path,
                owner: found.uid(),
                user,
            });
        }
    }
    Ok(())
}

fn check_file_system(dir: &Path) -> Result<(), DirectoryError> {
    const NETWORK: [(i64, &str); 6] = [
        (0x6969, "NFS"),
        (0x517b, "SMB"),
        (0xff53_4d42, "CIFS"),
        (0xfe53_4d42, "SMB2"),
        (0x0102_1997, "9p"),
        (0x00c3_6400, "Ceph"),
    ];
    let found = rustix::fs::statfs(dir)
        .map_err(|source| io_error("asking for the file system of", dir, source.into()))?;
    #[allow(clippy::useless_conversion, reason = "the type is the architecture's")]
    let found = i64::from(found.f_type);
    match NETWORK.iter().find(|(magic, _)| *magic == found) {
        Some((_, kind)) => Err(DirectoryError::Network {
            dir: dir.to_owned(),
            kind,
        }),
        None => Ok(()),
    }
}

fn lock(dir: &Path) -> Result<File, DirectoryError> {
    let path = dir.join(LOCK);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|source| io_error("opening", &path, source))?;
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

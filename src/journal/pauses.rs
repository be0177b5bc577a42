//! Pauses of publishing, set by operators. They are in a file of their own in the journal's
//! directory, because commands write nothing to the database but requests. The file survives
//! restarts and a damaged database.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::archive;
use super::files::{self, FileError};
use super::{CommandOpenError, directory};
use crate::telemetry::status::Pause;

/// File name of the pauses.
const FILE: &str = "paused.json";
/// The permissions of a file for its owner only.
const PRIVATE: u32 = 0o600;

/// The pauses of a journal. The bridge and commands read the file; only commands write it.
#[derive(Debug, Clone)]
pub struct PauseFile {
    path: PathBuf,
}

impl PauseFile {
    /// The file in the directory of a journal, whether it exists or not.
    #[must_use]
    pub fn of(dir: &Path) -> Self {
        Self {
            path: dir.join(FILE),
        }
    }

    /// The pauses in force; none without a file.
    ///
    /// # Errors
    /// If the file cannot be read, or does not contain pauses.
    pub fn read(&self) -> Result<Vec<Pause>, FileError> {
        let reading = || {
            let mut file = match files::open_reading(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                file => file?,
            };
            Ok(serde_json::from_reader(&mut file)?)
        };
        reading().map_err(FileError::of("reading", &self.path))
    }

    /// Changes the pauses; they are on disk when this returns. Changes of several commands happen
    /// one after the other.
    ///
    /// # Errors
    /// If there is no journal, it belongs to another user, or the file cannot be read or written.
    /// Also if `change` refuses; then nothing is written.
    pub fn change<E>(
        &self,
        change: impl FnOnce(&mut Vec<Pause>) -> Result<(), E>,
    ) -> Result<Result<(), E>, CommandOpenError> {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        archive::check(dir)?;
        // Not the directory, which a running bridge has locked. SQLite uses locks of another kind.
        let locking = File::open(dir.join(directory::DATABASE)).and_then(|database| {
            flock(&database, FlockOperation::LockExclusive)?;
            Ok(database)
        });
        let failed =
            |doing| move |error| directory::DirectoryError::from(FileError::of(doing, dir)(error));
        let _lock = locking.map_err(failed("locking"))?;
        let mut pauses = self.read().map_err(directory::DirectoryError::from)?;
        if let Err(refused) = change(&mut pauses) {
            return Ok(Err(refused));
        }
        self.write(&pauses)
            .map_err(failed("writing the pauses in"))?;
        Ok(Ok(()))
    }

    fn write(&self, pauses: &[Pause]) -> io::Result<()> {
        let new = files::with_suffix(&self.path, files::NEW);
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(PRIVATE)
            .open(&new)?;
        file.write_all(&serde_json::to_vec(pauses)?)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        files::sync_directory_of(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::journal::directory::DATABASE;

    fn pause(routing_key: Option<&str>) -> Pause {
        Pause {
            exchange: None,
            routing_key: routing_key.map(Into::into),
            since: "2026-01-02T03:04:05Z".parse().unwrap(),
        }
    }

    #[test]
    fn pauses_are_kept_in_a_private_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = PauseFile::of(dir.path());
        assert_eq!(file.read().unwrap(), []);
        let add = |one: Pause| {
            file.change(|pauses| {
                pauses.push(one);
                Ok::<_, ()>(())
            })
        };
        let error = add(pause(None)).unwrap_err();
        assert!(matches!(error, CommandOpenError::Missing(_)), "{error}");

        File::create(dir.path().join(DATABASE)).unwrap();
        add(pause(Some("a"))).unwrap().unwrap();
        add(pause(None)).unwrap().unwrap();
        assert_eq!(file.read().unwrap(), [pause(Some("a")), pause(None)]);
        let path = dir.path().join(FILE);
        let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, PRIVATE);
        let refused = file.change(|pauses| {
            pauses.clear();
            Err("no")
        });
        assert_eq!(refused.unwrap(), Err("no"));
        assert_eq!(file.read().unwrap().len(), 2);

        fs::write(&path, b"[{").unwrap();
        assert!(
            file.read()
                .unwrap_err()
                .to_string()
                .starts_with("reading `")
        );
        fs::remove_file(&path).unwrap();
        symlink("/dev/null", &path).unwrap();
        file.read().unwrap_err();
    }
}

//! How paths of secret files are shown. If an operator writes a secret where its path belongs, the
//! secret is masked.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Serialize, Serializer};

use super::sources::MASK;

/// Where systemd puts the secrets of the packaged service (`LoadCredential` in
/// packaging/deskbridge.service), and where the operator puts them.
const CREDENTIALS: (&str, &str) = ("/run/credentials/deskbridge.service", "secret_");
const SECRETS: &str = "/etc/deskbridge/secrets";

/// The file that the operator edits, if systemd copies it to this path when the service starts.
#[must_use]
pub(super) fn original(path: &Path) -> Option<PathBuf> {
    let (directory, prefix) = CREDENTIALS;
    let name = path.strip_prefix(directory).ok()?.to_str()?;
    Some(Path::new(SECRETS).join(name.strip_prefix(prefix)?))
}

/// The file that is being read.
static BEING_READ: Mutex<Option<PathBuf>> = Mutex::new(None);

fn note(path: Option<&Path>) {
    let mut being_read = BEING_READ.lock().unwrap_or_else(PoisonError::into_inner);
    *being_read = path.map(Path::to_owned);
}

/// Opens and reads a file of the configuration. Meanwhile, [`being_read`] names it, because a pipe
/// or a dead mount may never answer.
pub(super) fn reading<T>(path: &Path, read: impl FnOnce() -> T) -> T {
    note(Some(path));
    let result = read();
    note(None);
    result
}

/// The file of the configuration that is being read, in backquotes.
#[must_use]
pub fn being_read() -> String {
    let being_read = BEING_READ.lock().unwrap_or_else(PoisonError::into_inner);
    match &*being_read {
        Some(path) => format!("`{}`", path.display()),
        None => "the configuration".into(),
    }
}

/// The path, or `***` if neither the file nor its parent directory exists: then the text could be
/// a secret.
#[must_use]
pub fn shown(path: &Path) -> String {
    if is_one(path) {
        path.display().to_string()
    } else {
        MASK.into()
    }
}

/// The path for a message, in backquotes; a masked one with the reason. For a copy that systemd
/// makes, the path of the original.
#[must_use]
pub fn in_words(path: &Path) -> String {
    if let Some(original) = original(path) {
        format!("`{}`", original.display())
    } else if is_one(path) {
        format!("`{}`", path.display())
    } else {
        format!("{MASK} (no such directory; the value is not shown, it could be a secret itself)")
    }
}

fn is_one(path: &Path) -> bool {
    let is_directory = |parent: &Path| {
        // `/` always exists, and a secret may begin with a slash.
        parent.parent().is_some() && parent.is_dir()
    };
    path.exists() || path.parent().is_some_and(is_directory)
}

/// Serializes a path as it may be shown, for `#[serde(serialize_with)]`.
///
/// # Errors
/// Those of the serializer.
#[expect(clippy::ref_option, reason = "serde passes the field as it is")]
pub(super) fn serialize_one<S: Serializer>(
    path: &Option<PathBuf>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    path.as_deref().map(shown).serialize(serializer)
}

/// Serializes several paths as they may be shown.
///
/// # Errors
/// Those of the serializer.
pub(super) fn serialize_all<S: Serializer>(
    paths: &[PathBuf],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(paths.iter().map(|path| shown(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credential_is_named_as_the_operator_knows_it() {
        let check = |path, expected: Option<&str>| {
            assert_eq!(original(Path::new(path)), expected.map(PathBuf::from));
        };
        let credential = "/run/credentials/deskbridge.service/secret_rabbitmq-url";
        check(credential, Some("/etc/deskbridge/secrets/rabbitmq-url"));
        check("/run/credentials/deskbridge.service/other", None);
        check("/run/credentials/other.service/secret_x", None);
        assert_eq!(
            in_words(Path::new(credential)),
            "`/etc/deskbridge/secrets/rabbitmq-url`"
        );
    }

    #[test]
    fn only_plausible_paths_are_shown() {
        let dir = tempfile::tempdir().unwrap();
        let in_it = dir.path().join("absent");
        assert_eq!(shown(&in_it), in_it.display().to_string());
        assert_eq!(shown(dir.path()), dir.path().display().to_string());
        for secret in [
            "hunter2hunter2hunter2",
            "/hunter2+hunter2=",
            "ab/hunter2/x",
            "amqp://u:hunter2@h",
        ] {
            assert_eq!(shown(Path::new(secret)), "***", "{secret}");
            assert!(!in_words(Path::new(secret)).contains("hunter2"));
        }
    }
}

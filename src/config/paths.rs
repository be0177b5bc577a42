//! How names of files with secrets are shown: a secret that stands where the name of its file
//! belongs is not.

use std::path::{Path, PathBuf};

use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};

use super::sources::MASK;

/// The name, or three stars if nothing says that it is one: neither the file is there nor a
/// directory it would be in.
#[must_use]
pub fn shown(path: &Path) -> String {
    if is_one(path) {
        path.display().to_string()
    } else {
        MASK.into()
    }
}

/// The same for a sentence, with the reason.
#[must_use]
pub fn in_words(path: &Path) -> String {
    if is_one(path) {
        format!("`{}`", path.display())
    } else {
        format!("{MASK} (no such directory; the value is not shown, it could be a secret itself)")
    }
}

fn is_one(path: &Path) -> bool {
    let is_directory = |parent: &Path| {
        // A secret may begin with a slash.
        parent.parent().is_some() && parent.is_dir()
    };
    path.exists() || path.parent().is_some_and(is_directory)
}

/// Writes a path for people, for `#[serde(serialize_with)]`.
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

/// The same for several.
///
/// # Errors
/// Those of the serializer.
pub(super) fn serialize_all<S: Serializer>(
    paths: &[PathBuf],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut list = serializer.serialize_seq(Some(paths.len()))?;
    for path in paths {
        list.serialize_element(&shown(path))?;
    }
    list.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_a_path_is_shown() {
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

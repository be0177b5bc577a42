//! A directory that nobody means.

use std::path::{Component, Path};

use super::super::finding::Finding;

pub(super) fn check_directory(dir: &Path, findings: &mut Vec<Finding>) {
    let first = dir.components().next();
    let problem = match first {
        None => "names no directory".to_owned(),
        Some(Component::Normal(name)) if name.as_encoded_bytes().starts_with(b"~") => format!(
            "`{}` begins with `~`, which only a shell replaces; write the whole path",
            dir.display()
        ),
        Some(_) => return,
    };
    findings.push(Finding::new("journal.dir", problem));
}

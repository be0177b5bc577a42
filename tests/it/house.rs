//! The house of ARCHITECTURE.md: who may import whom, and who may name which library. Read from
//! the sources.

use std::fs;
use std::path::{Path, PathBuf};

/// Every room with the rooms it may use.
const ROOMS: [(&str, &[&str]); 12] = [
    (
        "bridge",
        &[
            "http",
            "forwarder",
            "journal",
            "rabbitmq",
            "webhook",
            "config",
            "telemetry",
            "failpoint",
        ],
    ),
    ("asyncapi", &["rabbitmq", "webhook", "config"]),
    (
        "http",
        &[
            "journal",
            "webhook",
            "config",
            "telemetry",
            "memory",
            "failpoint",
        ],
    ),
    (
        "forwarder",
        &["journal", "rabbitmq", "webhook", "telemetry", "failpoint"],
    ),
    (
        "journal",
        &["webhook", "config", "telemetry", "memory", "failpoint"],
    ),
    ("rabbitmq", &["webhook", "config", "telemetry", "failpoint"]),
    // A template that cannot be read is a finding of the configuration.
    ("config", &["webhook", "telemetry"]),
    ("webhook", &["config", "memory"]),
    ("telemetry", &["config"]),
    ("memory", &[]),
    ("failpoint", &[]),
    ("lib", &[]),
];

/// Libraries that only one room names.
const LIBRARIES: [(&str, &str); 7] = [
    ("lapin", "rabbitmq"),
    ("rusqlite", "journal"),
    ("anyhow", "cli"),
    ("clap", "cli"),
    ("comfy_table", "cli"),
    ("icu_properties", "telemetry"),
    ("axum", "http"),
];

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The room a file belongs to, and its code without comments and tests.
fn rooms() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let read = |path: PathBuf| {
        let inside = path.strip_prefix(&root).unwrap();
        let first = inside.components().next().unwrap();
        let name = first
            .as_os_str()
            .to_str()
            .unwrap()
            .trim_end_matches(".rs")
            .to_owned();
        let code: Vec<_> = fs::read_to_string(&path)
            .unwrap()
            .lines()
            .take_while(|line| !line.starts_with("#[cfg(test)]"))
            .filter(|line| !line.trim_start().starts_with("//"))
            .map(str::to_owned)
            .collect();
        (name, path, code.join("\n"))
    };
    let all = sources(&root).into_iter();
    let is_test = |path: &PathBuf| {
        let inside = path.strip_prefix(&root).unwrap();
        inside.to_str().unwrap().contains("tests")
    };
    all.filter(|path| !is_test(path)).map(read).collect()
}

#[test]
fn rooms_import_only_downwards() {
    let names: Vec<_> = ROOMS
        .iter()
        .map(|(room, _)| *room)
        .filter(|room| *room != "lib")
        .collect();
    let mut imports = 0;
    for (room, path, code) in rooms() {
        let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            continue;
        };
        for other in names.iter().filter(|other| **other != room) {
            if code.contains(&format!("crate::{other}")) {
                imports += 1;
                assert!(
                    allowed.contains(other),
                    "{} imports {other}",
                    path.display()
                );
            }
        }
    }
    assert!(
        imports > 30,
        "only {imports} imports were found: this test has gone blind"
    );
}

#[test]
fn each_library_has_its_room() {
    for (library, home) in LIBRARIES {
        let mut uses = 0;
        for (room, path, code) in rooms() {
            let names_it =
                code.contains(&format!("{library}::")) || code.contains(&format!("use {library}"));
            if !names_it {
                continue;
            }
            uses += 1;
            let is_at_home = room == home || (home == "cli" && room == "main");
            assert!(is_at_home, "{} names {library}", path.display());
        }
        assert!(uses > 0, "nobody names {library}: this test has gone blind");
    }
}

/// Text of others is escaped in one place.
#[test]
fn only_one_file_writes_to_people() {
    let writes = ["println!", "print!(", "stdout()", "stderr()"];
    let mut found = Vec::new();
    for (room, path, code) in rooms() {
        // The failpoints of tests; logs, with an escaping of their own; a table that asks for a width.
        let others = ["telemetry/logging.rs", "cli/table.rs"];
        let may = room == "failpoint" || others.iter().any(|other| path.ends_with(other));
        let asks_only = |line: &&str| line.contains("is_terminal()") || line.contains("PollFd");
        let lines = code.lines().filter(|line| !asks_only(line));
        let is_output = path.to_str().unwrap().contains("cli/output");
        if lines
            .clone()
            .any(|line| writes.iter().any(|write| line.contains(write)))
        {
            found.push(path.clone());
            assert!(may || is_output, "{}", path.display());
        }
    }
    assert!(found.len() > 3, "this test has gone blind: {found:?}");
}

#[test]
fn the_pure_rooms_have_no_clock_no_io_and_no_tokio() {
    let pure = |room: &str, path: &Path| {
        room == "webhook"
            || path.to_str().unwrap().contains("forwarder/flow")
            || path.ends_with("forwarder/retry.rs")
    };
    let mut files = 0;
    for (room, path, code) in rooms()
        .into_iter()
        .filter(|(room, path, _)| pure(room, path))
    {
        files += 1;
        for forbidden in [
            "tokio",
            "std::fs",
            "std::net",
            "Instant::now",
            "Timestamp::now",
            "SystemTime",
        ] {
            assert!(
                !code.contains(forbidden),
                "{} ({room}) uses {forbidden}",
                path.display()
            );
        }
    }
    assert!(
        files > 10,
        "only {files} files were found: this test has gone blind"
    );
}

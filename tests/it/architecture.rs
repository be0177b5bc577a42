//! The module structure of ARCHITECTURE.md: which module may import which, and which may use which
//! library. Read from the sources.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::process::script;

/// Every module, with the modules that it may import.
const MODULES: [(&str, &[&str]); 19] = [
    (
        "bridge",
        &[
            "http",
            "forwarder",
            "journal",
            "rabbitmq",
            "settings",
            "webhook",
            "config",
            "telemetry",
            "backoff",
            "failpoint",
            "slow_call",
        ],
    ),
    ("asyncapi", &["rabbitmq", "webhook", "config"]),
    (
        "ops",
        &[
            "settings",
            "journal",
            "rabbitmq",
            "webhook",
            "config",
            "telemetry",
            "http_client",
            "slow_call",
        ],
    ),
    (
        "http",
        &[
            "journal",
            "webhook",
            "config",
            "telemetry",
            "foreign",
            "memory",
            "backoff",
            "failpoint",
        ],
    ),
    (
        "forwarder",
        &[
            "journal",
            "rabbitmq",
            "webhook",
            "telemetry",
            "backoff",
            "failpoint",
        ],
    ),
    (
        "journal",
        &[
            "webhook",
            "config",
            "telemetry",
            "foreign",
            "memory",
            "failpoint",
        ],
    ),
    (
        "rabbitmq",
        &[
            "webhook",
            "config",
            "telemetry",
            "backoff",
            "failpoint",
            "slow_call",
        ],
    ),
    // A key template that cannot be parsed is a finding of the configuration.
    ("settings", &["webhook", "config"]),
    ("config", &["foreign"]),
    ("webhook", &["memory"]),
    ("telemetry", &["config", "foreign", "http_client"]),
    ("simulator", &["http_client", "webhook", "config"]),
    ("http_client", &["slow_call"]),
    ("slow_call", &[]),
    ("foreign", &[]),
    ("memory", &[]),
    ("backoff", &[]),
    ("failpoint", &[]),
    ("lib", &[]),
];

/// Libraries that only some modules may use.
const LIBRARIES: [(&str, &[&str]); 7] = [
    ("lapin", &["rabbitmq"]),
    ("rusqlite", &["journal"]),
    ("anyhow", &["cli", "ops", "http_client"]),
    ("clap", &["cli"]),
    ("comfy_table", &["cli"]),
    ("icu_properties", &["foreign"]),
    ("axum", &["http"]),
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

/// For each file: its module, its path, and its code without comments and tests.
fn modules() -> Vec<(String, PathBuf, String)> {
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

/// Whether code names a module, and not another one whose name begins alike.
fn is_named(code: &str, module: &str) -> bool {
    let is_end = |rest: &str| !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_');
    code.split("crate::")
        .skip(1)
        .any(|rest| rest.strip_prefix(module).is_some_and(is_end))
}

#[test]
fn modules_import_only_downwards() {
    let names: Vec<_> = MODULES
        .iter()
        .map(|(module, _)| *module)
        .filter(|module| *module != "lib")
        .collect();
    let mut imports = 0;
    for (module, path, code) in modules() {
        let Some((_, allowed)) = MODULES.iter().find(|(name, _)| *name == module) else {
            continue;
        };
        for other in names.iter().filter(|other| **other != module) {
            if is_named(&code, other) {
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
        "only {imports} imports were found: this test no longer tests anything"
    );
}

#[test]
fn each_library_has_its_modules() {
    for (library, homes) in LIBRARIES {
        let mut uses = 0;
        for (module, path, code) in modules() {
            let names_it =
                code.contains(&format!("{library}::")) || code.contains(&format!("use {library}"));
            if !names_it {
                continue;
            }
            uses += 1;
            let is_main = module == "main" && homes.contains(&"cli");
            let is_at_home = is_main || homes.contains(&module.as_str());
            assert!(is_at_home, "{} names {library}", path.display());
        }
        assert!(uses > 0, "{library} is not used: remove it here");
    }
}

/// Foreign text is escaped in one place.
#[test]
fn only_cli_output_writes_to_the_terminal() {
    let writes = ["println!", "print!(", "stdout()", "stderr()"];
    let mut found = Vec::new();
    for (module, path, code) in modules() {
        // Exceptions: the failpoints of tests, the logs, which have their own escaping, and a table
        // that asks for the width of the terminal.
        let others = ["telemetry/logging.rs", "cli/table.rs"];
        let may = module == "failpoint" || others.iter().any(|other| path.ends_with(other));
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
    assert!(
        found.len() > 3,
        "this test no longer tests anything: {found:?}"
    );
}

#[test]
fn pure_modules_use_no_clock_io_or_tokio() {
    let pure = |module: &str, path: &Path| {
        module == "webhook"
            || path.to_str().unwrap().contains("forwarder/flow")
            || path.ends_with("backoff.rs")
    };
    let mut files = 0;
    for (module, path, code) in modules()
        .into_iter()
        .filter(|(module, path, _)| pure(module, path))
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
                "{} ({module}) uses {forbidden}",
                path.display()
            );
        }
    }
    assert!(
        files > 10,
        "only {files} files were found: this test no longer tests anything"
    );
}

#[test]
fn no_room_is_above_its_ceiling() {
    let counted = Command::new(script("lines.sh")).output().unwrap();
    let table = String::from_utf8_lossy(&counted.stdout);
    assert!(counted.status.success(), "{table}");
}

//! The journal's directory: only a directory of the bridge itself is used or changed, on a
//! supported file system, and `serve` and `check` agree about it.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::skip::is_root;

/// Mode, owner and content of the directory and of each file in it.
fn looks(dir: &Path) -> BTreeMap<PathBuf, (u32, u32, Vec<u8>)> {
    let files = std::fs::read_dir(dir).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    paths
        .chain([dir.to_owned()])
        .map(|path| {
            let found = std::fs::symlink_metadata(&path).unwrap();
            let content = std::fs::read(&path).unwrap_or_default();
            (path, (found.mode(), found.uid(), content))
        })
        .collect()
}

/// Panics unless `serve` refuses the directory with these words and changes nothing, and `check`
/// reports the same.
async fn check_refused(bridge: &mut Bridge, words: &str) {
    let dir = bridge.journal_dir();
    let before = looks(&dir);
    let checked = bridge.run("check", &[]).await;
    let found = String::from_utf8(checked.stdout).unwrap();
    let line = found
        .lines()
        .find(|line| line.starts_with("error: journal.dir:"));
    assert!(line.is_some_and(|line| line.contains(words)), "{found}");
    assert_eq!(checked.status.code(), Some(1));
    let exit = bridge.run_to_exit().await;
    assert_eq!(exit.status.code(), Some(1), "{}", bridge.stderr());
    let said = bridge.stderr();
    assert!(said.contains(words), "{said}");
    assert_eq!(looks(&dir), before);
}

/// A bridge that has never run, and its existing journal directory.
fn prepared(mode: u32) -> (Bridge, PathBuf) {
    let bridge = BridgeBuilder::without_broker().build();
    let dir = bridge.journal_dir();
    std::fs::create_dir(&dir).unwrap();
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(mode)).unwrap();
    (bridge, dir)
}

#[tokio::test(flavor = "multi_thread")]
async fn symbolic_links_are_not_followed() {
    for name in [
        "journal.lock",
        "journal.db",
        "journal.db-wal",
        "journal.db-shm",
        "journal.suspect",
    ] {
        let (mut bridge, dir) = prepared(0o700);
        let target = bridge.dir().join("somebody's");
        std::fs::write(&target, "precious").unwrap();
        symlink(&target, dir.join(name)).unwrap();
        check_refused(&mut bridge, "is a symbolic link, not a file").await;
        assert_eq!(std::fs::read(&target).unwrap(), b"precious", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn directory_of_another_user_is_refused() {
    if !is_root("directory_of_another_user_is_refused") {
        return;
    }
    let (mut bridge, dir) = prepared(0o777);
    chown(&dir, Some(61_003), None).unwrap();
    check_refused(&mut bridge, "belongs to user 61003").await;
    chown(&dir, Some(0), None).unwrap();
    std::fs::write(dir.join("journal.lock"), "").unwrap();
    chown(dir.join("journal.lock"), Some(61_003), None).unwrap();
    check_refused(&mut bridge, "belongs to user 61003").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn directory_with_other_files_is_refused() {
    let (mut bridge, dir) = prepared(0o755);
    std::fs::write(dir.join("notes.txt"), "somebody's").unwrap();
    check_refused(
        &mut bridge,
        "holds other files and no journal (`notes.txt`)",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_directory_is_refused() {
    let (mut bridge, _) = prepared(0o1777);
    check_refused(&mut bridge, "is shared by all users").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_directory_and_new_disk_are_used() {
    let (mut bridge, dir) = prepared(0o755);
    std::fs::create_dir(dir.join("lost+found")).unwrap();
    bridge.start().await;
    let mode = std::fs::metadata(&dir).unwrap().mode() & 0o7777;
    assert_eq!(mode, 0o700);
    bridge.terminate().await;
    // The same directory again, now with a journal and another file in it.
    std::fs::write(dir.join("notes.txt"), "the operator's").unwrap();
    bridge.start().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tilde_in_the_path_is_refused() {
    for (dir, words) in [("~/journal", "begins with `~`"), ("", "names no directory")] {
        let mut bridge = BridgeBuilder::without_broker()
            .with(&format!("journal.dir = {dir:?}"))
            .build();
        for command in ["serve", "check"] {
            let output = bridge.run(command, &[]).await;
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert!(
                said.contains("journal.dir") && said.contains(words),
                "{said}"
            );
        }
        assert_eq!(bridge.run_to_exit().await.status.code(), Some(2));
        assert!(!bridge.dir().join("~").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn relative_directory_is_relative_to_its_file() {
    let bridge = BridgeBuilder::without_broker()
        .with("journal.dir = \"data/journal\"")
        .build();
    let elsewhere = tempfile::tempdir().unwrap();
    let mut serve = bridge.command("serve", &[]);
    serve.current_dir(elsewhere.path());
    let mut running = serve.spawn().unwrap();
    let expected = bridge.dir().join("data/journal/journal.db");
    for _ in 0..200 {
        if expected.exists() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    running.kill().unwrap();
    running.wait().unwrap();
    assert!(expected.exists(), "{}", expected.display());
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    let shown = |set: &[&str]| {
        let mut show = bridge.command("config", &["show"]);
        show.args(set).current_dir(elsewhere.path());
        String::from_utf8(show.output().unwrap().stdout).unwrap()
    };
    let from_file = bridge.dir().join("data/journal");
    assert!(
        shown(&[]).contains(&from_file.display().to_string()),
        "{}",
        shown(&[])
    );
    // A path in a flag is relative to the current directory, not to the configuration file.
    let flag = shown(&["--set", "journal.dir=other/journal"]);
    assert!(flag.contains("\"other/journal\""), "{flag}");
}

/// A strace command that makes `statfs` of the journal's directory report this file system.
fn on(magic: &str, builder: &BridgeBuilder) -> Vec<String> {
    let log = builder.dir().join("strace.log").display().to_string();
    let path = builder.dir().join("journal").display().to_string();
    let inject = format!("inject=statfs:poke_exit=@arg2={magic}00000000");
    let words = [
        "strace",
        "-f",
        "-qq",
        "-o",
        &log,
        "-P",
        &path,
        "-e",
        "trace=statfs",
        "-e",
        &inject,
    ];
    words.map(str::to_owned).into()
}

/// Checks what `serve` and `check` report for a file system; `magic` is the number in the byte
/// order of this machine's memory.
async fn check_file_system(magic: &str, is_refused: bool, words: &str) {
    let builder = BridgeBuilder::without_broker();
    std::fs::create_dir(builder.dir().join("journal")).unwrap();
    let strace = on(magic, &builder);
    let wrapper: Vec<&str> = strace.iter().map(String::as_str).collect();
    let mut bridge = builder.under(&wrapper).build();
    let checked = bridge.command("check", &[]);
    let output = Command::new(&strace[0])
        .args(&strace[1..])
        .arg(checked.get_program())
        .args(checked.get_args())
        .current_dir(bridge.dir())
        .output()
        .unwrap();
    let found = String::from_utf8(output.stdout).unwrap();
    let severity = if is_refused { "error" } else { "warning" };
    let begin = format!("{severity}: journal.dir:");
    let line = found
        .lines()
        .find(|line| line.starts_with(&begin) && line.contains(words));
    assert!(line.is_some(), "{words}: {found}");
    if is_refused {
        assert_eq!(bridge.run_to_exit().await.status.code(), Some(1));
    } else {
        bridge.start().await;
    }
    bridge.says(words).await;
    assert_eq!(
        bridge.journal_dir().join("journal.db").exists(),
        !is_refused
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_and_check_agree_about_file_systems() {
    for (magic, is_refused, words) in [
        ("69690000", true, "(NFS)"),
        ("94190201", false, "stored in memory (tmpfs)"),
    ] {
        check_file_system(magic, is_refused, words).await;
    }
}

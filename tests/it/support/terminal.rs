//! A terminal with somebody before it, made by `script` of util-linux.

use std::ffi::OsString;
use std::io::Write;
use std::process::{Command, Stdio};

use super::bridge::run::Bridge;

/// Runs a command of the binary on a terminal and answers what it asks, once: its exit code, and
/// everything that stood on the terminal.
pub async fn answer_to(bridge: &Bridge, words: &[&str], answer: &str) -> (i32, String) {
    run(bridge, "", words, &format!("{answer}\n")).await
}

/// What a command of the binary shows on a terminal of so many columns.
pub async fn shown_on(bridge: &Bridge, columns: u16, words: &[&str]) -> String {
    let size = format!("stty -echo cols {columns} rows 24; ");
    let (code, shown) = run(bridge, &size, words, "").await;
    assert_eq!(code, 0, "{words:?}: {shown}");
    shown.replace("\r\n", "\n")
}

async fn run(bridge: &Bridge, first: &str, words: &[&str], typed: &str) -> (i32, String) {
    let asking = bridge.command(words[0], &words[1..]);
    let mut line = OsString::from(first);
    line.push(asking.get_program());
    for word in asking.get_args() {
        line.push(" ");
        line.push(word);
    }
    let mut command = Command::new("script");
    command
        .args([OsString::from("-qec"), line, "/dev/null".into()])
        .current_dir(bridge.dir())
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let typed = typed.to_owned();
    let run = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().expect("`script` of util-linux is there");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(typed.as_bytes()).unwrap();
        // The pipe stays open, as somebody does not leave.
        let output = child.wait_with_output().unwrap();
        drop(stdin);
        output
    });
    let output = run.await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code().unwrap(), said)
}

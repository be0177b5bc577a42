//! A pseudoterminal with simulated keyboard input, provided by `script` of util-linux.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

use super::bridge::run::Bridge;

/// Runs a subcommand on a terminal and types one answer to its question. Returns the exit code and
/// everything shown on the terminal.
pub async fn answer_to(bridge: &Bridge, words: &[&str], answer: &str) -> (i32, String) {
    run(bridge, "", words, &format!("{answer}\n")).await
}

/// What a subcommand shows on a terminal with this number of columns.
pub async fn shown_on(bridge: &Bridge, columns: u16, words: &[&str]) -> String {
    let size = format!("stty -echo cols {columns} rows 24; ");
    let (code, shown) = run(bridge, &size, words, "").await;
    assert_eq!(code, 0, "{words:?}: {shown}");
    shown.replace("\r\n", "\n")
}

/// What a subcommand shows on a terminal until it is ended with Ctrl-C, after this text has appeared.
pub async fn watched_on(bridge: &Bridge, words: &[&str], text: &str) -> String {
    let mut command = on_terminal(bridge, "stty -echo cols 80 rows 24; exec ", words);
    let text = text.to_owned();
    let watching = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().expect("`script` of util-linux is there");
        let mut stdin = child.stdin.take().expect("a pipe");
        let mut stdout = child.stdout.take().expect("a pipe");
        let mut shown = Vec::new();
        let mut part = [0; 4096];
        loop {
            match stdout.read(&mut part).unwrap() {
                0 => break,
                length => shown.extend_from_slice(&part[..length]),
            }
            if String::from_utf8_lossy(&shown).contains(&text) {
                stdin.write_all(b"\x03").unwrap();
                break;
            }
        }
        stdout.read_to_end(&mut shown).unwrap();
        child.wait().unwrap();
        String::from_utf8_lossy(&shown).into_owned()
    });
    watching.await.unwrap()
}

async fn run(bridge: &Bridge, first: &str, words: &[&str], typed: &str) -> (i32, String) {
    let mut command = on_terminal(bridge, first, words);
    let typed = typed.to_owned();
    let run = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().expect("`script` of util-linux is there");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(typed.as_bytes()).unwrap();
        // The pipe stays open: a user at a terminal does not close standard input.
        let output = child.wait_with_output().unwrap();
        drop(stdin);
        output
    });
    let output = run.await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code().unwrap(), said)
}

/// A subcommand on a terminal, after other shell commands.
fn on_terminal(bridge: &Bridge, first: &str, words: &[&str]) -> Command {
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
        .env("TERM", "xterm-256color")
        .env_remove("NO_COLOR")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

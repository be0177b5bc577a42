//! `examples/types`: they are what the generators give, and compilers accept every session that is
//! sent. The generators and two of the compilers are installed by `make types-test` only.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::{printed, sent_sessions};
use crate::support::process::script;

/// C# value types; only they can be followed by `?` in the C# that Mono compiles.
const VALUE_TYPES: [&str; 3] = ["long", "double", "DateTimeOffset"];
const NEWTONSOFT: &str = "/usr/lib/cli/Newtonsoft.Json-5.0/Newtonsoft.Json.dll";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn types(file: &str) -> String {
    std::fs::read_to_string(root().join("examples/types").join(file)).unwrap()
}

fn json() -> String {
    serde_json::to_string_pretty(&sent_sessions()).unwrap()
}

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

/// Runs a program in a folder; returns what it prints, panics if it fails.
fn run(program: impl Into<PathBuf>, arguments: &[&str], dir: &TempDir) -> String {
    let path = program.into();
    let program = path.display();
    let output = Command::new(&path)
        .args(arguments)
        .current_dir(dir.path())
        .output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; try: make types-test"));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {printed}{complaint}");
    printed
}

#[test]
fn schema_file_is_up_to_date() {
    let is_same = types("chat-session.schema.json") == printed(&["schema", "--strict"]);
    assert!(is_same, "try: make types");
}

#[test]
fn typescript_accepts_every_session() {
    let program = format!(
        "import type {{ ChatSession }} from './chat-session';
        export const sessions: ChatSession[] = {};
        export const other: ChatSession = {{ id: '1-1', status: 'a new one', type: null, creator: null }};
        export const missed: boolean = other.status === 'missed' && other.creator?.company?.entityId === 7;
        // @ts-expect-error
        export const incomplete: ChatSession = {{ id: '1-1' }};
        // @ts-expect-error
        export const wrong: ChatSession = {{ id: '1-1', status: 'missed', users: 'Ann' }};
        // @ts-expect-error
        export const misspelt = other.staus;
        // @ts-expect-error
        export const unknown: string = other.users?.[0]?.entityId;",
        json()
    );
    let dir = folder(&[
        ("chat-session.d.ts", &types("chat-session.d.ts")),
        ("sessions.ts", &program),
    ]);
    let tsc = root().join("examples/consumers/typescript/node_modules/.bin/tsc");
    run(
        tsc,
        &["--strict", "--noEmit", "sessions.ts", "chat-session.d.ts"],
        &dir,
    );
}

#[test]
#[ignore = "needs the generators: make types-test"]
fn types_are_up_to_date() {
    let output = Command::new(script("types.sh"))
        .arg("check")
        .env("DESKBRIDGE", assert_cmd::cargo::cargo_bin("deskbridge"))
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
}

#[test]
#[ignore = "needs mypy: make types-test"]
fn python_accepts_every_session() {
    let program = format!(
        "from chat_session import ChatSession
null, true, false = None, True, False
sessions: list[ChatSession] = {}
other: ChatSession = {{'id': '1-1', 'status': 'a new one', 'type': None, 'creator': None}}
creator = other.get('creator')
name: str | None = creator.get('name') if creator else None
incomplete: ChatSession = {{'id': '1-1'}}  # type: ignore[typeddict-item]
wrong: ChatSession = {{'id': '1-1', 'status': 'missed', 'users': 'Ann'}}  # type: ignore[typeddict-item]
def misspelt(session: ChatSession) -> None:
    print(session['staus'])  # type: ignore[typeddict-item]
print(len(sessions))
",
        json()
    );
    let dir = folder(&[
        ("chat_session.py", &types("chat_session.py")),
        ("sessions.py", &program),
    ]);
    let python = root().join(".dev/types/bin/python");
    run(&python, &["-m", "mypy", "--strict", "sessions.py"], &dir);
    assert_eq!(run(&python, &["sessions.py"], &dir).trim(), "301");
}

/// Mono's compiler and Debian's JSON library are older than the file: it has annotations of
/// nullable references and attributes of `System.Text.Json`.
fn for_mono(file: &str) -> String {
    let is_new = |line: &&str| {
        ["#nullable", "#pragma", "[JsonIgnore("]
            .iter()
            .any(|start| line.trim_start().starts_with(start))
    };
    let line = |line: &str| {
        let line = line
            .replace("[JsonPropertyName(", "[JsonProperty(")
            .replace("using System.Text.Json;", "using Newtonsoft.Json;")
            .replace("using System.Text.Json.Serialization;", "");
        match line.split_once("? ") {
            Some((before, after))
                if !VALUE_TYPES
                    .iter()
                    .any(|name| before.ends_with(&format!(" {name}"))) =>
            {
                format!("{before} {after}\n")
            }
            _ => line + "\n",
        }
    };
    file.lines()
        .filter(|line| !is_new(line))
        .map(line)
        .collect()
}

#[test]
#[ignore = "needs Mono: make types-test"]
fn csharp_reads_every_session() {
    let program = r#"
        using System;
        using System.IO;
        using DeskDirector;
        using Newtonsoft.Json;

        static class Program
        {
            static void Main()
            {
                var strict = new JsonSerializerSettings { MissingMemberHandling = MissingMemberHandling.Error };
                var text = File.ReadAllText("sessions.json");
                foreach (ChatSession session in JsonConvert.DeserializeObject<ChatSession[]>(text, strict))
                {
                    long id = session.Creator.EntityId.Value;
                    DateTimeOffset time = session.LastModifiedDateTime.Value;
                    Console.WriteLine("{0} {1} {2} {3:yyyy-MM-ddTHH:mm:ss.FFFFFFF}Z", session.Id, session.Status, id, time.UtcDateTime);
                }
            }
        }"#;
    let types = for_mono(&types("ChatSession.cs"));
    let dir = folder(&[
        ("ChatSession.cs", &types),
        ("Program.cs", program),
        ("sessions.json", &json()),
    ]);
    std::fs::copy(NEWTONSOFT, dir.path().join("Newtonsoft.Json.dll"))
        .expect("try: make types-test");
    run(
        "mcs",
        &[
            "-warnaserror",
            "-r:Newtonsoft.Json.dll",
            "-out:sessions.exe",
            "ChatSession.cs",
            "Program.cs",
        ],
        &dir,
    );
    let read = run("mono", &["sessions.exe"], &dir);
    let text = |session: &Value, field: &str| session[field].as_str().unwrap().to_owned();
    let expected: Vec<String> = sent_sessions()
        .iter()
        .map(|session| {
            let number = &session["creator"]["entityId"];
            let time = text(session, "lastModifiedDateTime");
            let time = time.trim_end_matches('Z').trim_end_matches('0').to_owned();
            format!(
                "{} {} {number} {time}Z",
                text(session, "id"),
                text(session, "status")
            )
        })
        .collect();
    assert_eq!(read.lines().count(), expected.len());
    for (line, expected) in read.lines().zip(&expected) {
        assert_eq!(line, expected);
    }
}

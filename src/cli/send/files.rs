//! Posts files and standard input as they are, one after the other, and prints the answers.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::Arguments;
use super::life::Occasion;
use super::post::Post;
use super::target::Target;
use crate::cli::Exit;
use crate::cli::failure::failed;
use crate::cli::http_client::{Answer, Client};
use crate::cli::output::{print, print_json};

/// Posts them all, even when one is refused.
pub async fn run(target: &Target, arguments: &Arguments) -> anyhow::Result<Exit> {
    let client = Client::for_url(&target.url, 1)?;
    let standard_input = [PathBuf::from("-")];
    let files = if arguments.files.is_empty() {
        &standard_input[..]
    } else {
        &arguments.files
    };
    let mut exit = Exit::Done;
    for path in files {
        let body = read(path).map_err(|why| {
            failed(
                format!("reading `{}`", path.display()),
                why,
                "name a file with the body of a webhook, or - for standard input",
            )
        })?;
        let post = Post::sign(body, Occasion::New, target);
        let asked = client.ask(post.request(target)).await;
        let answer = asked.map_err(|why| {
            failed(
                format!("posting to {}", target.shown),
                why,
                "is the bridge running (`deskbridge health`)?",
            )
        })?;
        if !answer.status.is_success() {
            exit = Exit::No;
        }
        let shown = shown(path, &answer, arguments.json);
        if arguments.json {
            print_json(&shown)?;
        } else {
            print(&shown)?;
        }
    }
    Ok(exit)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    if path != Path::new("-") {
        return fs::read(path);
    }
    let mut body = Vec::new();
    io::stdin().lock().read_to_end(&mut body)?;
    if body.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "there is nothing on standard input",
        ));
    }
    Ok(body)
}

fn shown(path: &Path, answer: &Answer, is_json: bool) -> String {
    let text = String::from_utf8_lossy(&answer.body);
    if !is_json {
        return format!(
            "{}: {}\n{}\n",
            path.display(),
            answer.status,
            text.trim_end()
        );
    }
    let is_raw_json = serde_json::from_str::<&RawValue>(&text).is_ok();
    let body = if is_raw_json {
        serde_json::from_str(&text).unwrap_or_default()
    } else {
        Value::from(text.as_ref())
    };
    let line = json!({ "file": path.display().to_string(), "status": answer.status.as_u16(), "answer": body });
    format!("{line}\n")
}

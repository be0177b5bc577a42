//! Posts files and standard input unchanged, one after the other, and prints the answers.

use std::path::{Path, PathBuf};

use deskbridge::http_client::{Answer, Client};
use deskbridge::simulator::{Post, Target, WebhookKind};
use serde_json::{Value, json};

use super::Arguments;
use crate::cli::failure::failed;
use crate::cli::output::print_as;
use crate::cli::{Exit, read};

/// Posts all files, even if an answer is not 2xx. Ends at the first one without an answer.
pub async fn run(target: &Target, shown_url: &str, arguments: &Arguments) -> anyhow::Result<Exit> {
    let client = Client::for_url(&target.url, 1)?;
    let standard_input = [PathBuf::from("-")];
    let files = if arguments.files.is_empty() {
        &standard_input[..]
    } else {
        &arguments.files
    };
    let mut exit = Exit::Done;
    for path in files {
        let doing = format!("reading `{}`", path.display());
        let advice = "name a file with the body of a webhook, or - for standard input";
        let body = match read(path) {
            Ok(body) if body.is_empty() && path == "-" => {
                return Err(failed(doing, "standard input is empty", advice));
            }
            read => read.map_err(|why| failed(doing, why, advice))?,
        };
        let post = Post::sign(body, WebhookKind::New, target);
        let answer = client.ask(post.request(target)).await.map_err(|why| {
            let advice = "start the bridge, or correct the URL; `deskbridge health` says whether it accepts webhooks";
            failed(format!("posting to {shown_url}"), why, advice)
        })?;
        if !answer.status.is_success() {
            exit = Exit::No;
        }
        print_as(arguments.json, &shown(path, &answer, arguments.json))?;
    }
    Ok(exit)
}

fn shown(path: &Path, answer: &Answer, is_json: bool) -> String {
    let (file, status) = (path.display().to_string(), answer.status);
    let text = String::from_utf8_lossy(&answer.body);
    if !is_json {
        return format!("{file}: {status}\n{}\n", text.trim_end());
    }
    let body = serde_json::from_str(&text).unwrap_or_else(|_| Value::from(text.as_ref()));
    let line = json!({ "file": file, "status": status.as_u16(), "answer": body });
    format!("{line}\n")
}

//! `verify`: which secret signed a captured webhook.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use deskbridge::config::sources::Secret;
use deskbridge::config::{Loaded, paths};
use deskbridge::webhook::signature::{Signature, signer};
use serde::Serialize;

use super::failure::{failed, misused};
use super::output::{print, print_json};
use super::{Exit, Layering};

const AFTER_HELP: &str = "\
Compares the signature of a captured request with every secret of every source, and says where the one \
stands that made it; never the secret itself. The body must be the bytes of the request, without a line \
break at the end that an editor may have added. Exits with 1 if none of them made it.

Examples:
  deskbridge verify --signature sha256=5f2a… body.json
  cat body.json | deskbridge verify --signature sha256=5f2a… --json";

/// Arguments of `verify`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// Value of the header x-dd-signature
    #[arg(long, value_name = "VALUE")]
    signature: String,
    /// The body; standard input if absent, or -
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Where a secret stands that signed the body.
#[derive(Debug, Serialize)]
struct Signer<'a> {
    source: &'a str,
    /// Which secret of the source, from 1.
    secret: usize,
    key: String,
    file: Option<String>,
    origin: Option<&'a str>,
    /// Whether it signed the body without the line break at its end.
    without_final_newline: bool,
}

/// Compares and tells.
pub fn run(layering: &Layering, arguments: &Arguments) -> anyhow::Result<Exit> {
    let signature = Signature::parse([arguments.signature.trim()]).map_err(|_| {
        misused(
            "--signature is not one of DeskDirector's",
            "`sha256=` and the digest, 64 characters in hex or 44 in base64, as in the header x-dd-signature",
        )
    })?;
    let loaded = layering.load()?;
    let body = body(arguments.file.as_deref())?;
    let signers = signers(&loaded, &signature, &body);
    let is_signed = signers.iter().any(|signer| !signer.without_final_newline);
    if arguments.json {
        print_json(&serde_json::json!({ "signed": is_signed, "by": signers }).to_string())?;
    } else {
        print(&told(&signers, &loaded, body.len()))?;
    }
    Ok(if is_signed { Exit::Done } else { Exit::No })
}

fn signers<'l>(loaded: &'l Loaded, signature: &Signature, body: &[u8]) -> Vec<Signer<'l>> {
    let trimmed = body.trim_ascii_end();
    let mut signers = Vec::new();
    for (name, source) in &loaded.config.sources {
        let signed_by = |body| {
            let secrets = source.secrets.iter().map(Secret::expose);
            signer(secrets, signature, body)
        };
        let exact = signed_by(body);
        let Some(index) = exact.or_else(|| signed_by(trimmed)) else {
            continue;
        };
        let (key, file) = source.place(index);
        let key = format!("sources.{name}.{key}");
        let origin = loaded.origins.get(&key).or_else(|| {
            let list = key.rfind('[').map(|start| &key[..start])?;
            loaded.origins.get(list)
        });
        signers.push(Signer {
            source: name,
            secret: index + 1,
            file: file.map(paths::shown),
            origin: origin.map(String::as_str),
            without_final_newline: exact.is_none(),
            key,
        });
    }
    signers
}

fn told(signers: &[Signer<'_>], loaded: &Loaded, bytes: usize) -> String {
    let mut text = String::new();
    for signer in signers {
        let place = match (&signer.file, signer.origin) {
            (Some(file), _) => format!("{}, the file `{file}`", signer.key),
            (None, Some(origin)) => format!("{}, {origin}", signer.key),
            (None, None) => signer.key.clone(),
        };
        let (source, number) = (signer.source, signer.secret);
        let verdict = if signer.without_final_newline {
            "not signed as it is: without the white space at its end it is signed"
        } else {
            "signed"
        };
        let _ = writeln!(
            text,
            "{verdict} with secret number {number} of the source `{source}` ({place})"
        );
    }
    if signers.is_empty() {
        let sources = &loaded.config.sources;
        let secrets: usize = sources.values().map(|source| source.secrets.len()).sum();
        text = format!(
            "not signed: none of the {secrets} secrets of {} sources made this signature for these {bytes} bytes\n",
            sources.len()
        );
    }
    text
}

fn body(file: Option<&Path>) -> anyhow::Result<Vec<u8>> {
    let file = file.filter(|file| *file != Path::new("-"));
    if file.is_none() && io::stdin().is_terminal() {
        let advice = "`deskbridge verify --signature VALUE FILE`, or the body on standard input";
        return Err(misused("there is no body to verify", advice));
    }
    let read = if let Some(file) = file {
        fs::read(file)
    } else {
        let mut body = Vec::new();
        io::stdin().read_to_end(&mut body).map(|_| body)
    };
    let what = file.map_or("standard input".to_owned(), |file| {
        format!("`{}`", file.display())
    });
    read.map_err(|why| {
        failed(
            format!("reading {what}"),
            why,
            "name the file with the body",
        )
    })
}

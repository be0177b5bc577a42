//! `verify`: finds the secret that signed a captured webhook.

use std::fmt::Write as _;
use std::io::{IsTerminal, stdin};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use deskbridge::config::sources::Secret;
use deskbridge::config::{self, Loaded, paths};
use deskbridge::webhook::signature::{Keys, Signature};
use serde::Serialize;

use super::failure::{failed, usage_error};
use super::output::print_as;
use super::{ConfigArguments, Exit, read};

const AFTER_HELP: &str = "\
Compares the signature of a captured request with every secret of every source, and names the place of the \
secret that made it, never the secret itself. The body must be exactly the bytes of the request, without a \
line break that an editor has added. If the signature matches only without the white space at the end, \
`verify` says so and exits with 1.

Exit codes: 0 a secret signed it, 1 none did.

Examples:
  deskbridge verify --signature sha256=5f2a… body.json
  cat body.json | deskbridge verify --signature sha256=5f2a… --json";

/// Arguments of `verify`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// The value of the header x-dd-signature
    #[arg(long, value_name = "VALUE")]
    signature: String,
    /// The file with the body; without it, or with -, standard input
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A secret that signed the body, and where it is configured.
#[derive(Debug, Serialize)]
struct Signer<'a> {
    source: &'a str,
    /// Number of the secret in its source, from 1.
    secret: usize,
    key: String,
    file: Option<String>,
    origin: Option<&'a str>,
    /// Whether it signed the body only without the white space at its end.
    without_final_newline: bool,
}

/// Compares the signature with every secret and prints those that match.
pub fn run(layering: &ConfigArguments, arguments: &Arguments) -> anyhow::Result<Exit> {
    let signature = Signature::parse([arguments.signature.trim()]).map_err(|_| {
        usage_error(
            "--signature is not a signature of DeskDirector",
            "use `sha256=` and the digest, 64 characters in hex or 44 in base64, as in the header x-dd-signature",
        )
    })?;
    let loaded = layering.load()?;
    let body = Bytes::from(body(arguments.file.as_deref())?);
    let signers = signers(&loaded, &signature, &body);
    let is_signed = signers.iter().any(|signer| !signer.without_final_newline);
    let text = if arguments.json {
        serde_json::json!({ "signed": is_signed, "by": signers }).to_string()
    } else {
        told(&signers, &loaded, body.len())
    };
    print_as(arguments.json, &text)?;
    Ok(Exit::of(is_signed))
}

fn signers<'l>(loaded: &'l Loaded, signature: &Signature, body: &Bytes) -> Vec<Signer<'l>> {
    let trimmed = body.slice(..body.trim_ascii_end().len());
    let mut signers = Vec::new();
    for (name, source) in &loaded.config.sources {
        let keys = Keys::new(source.secrets.iter().map(Secret::expose));
        let signed_by = |body: &Bytes| keys.verify(signature, body.clone()).ok()?.secret();
        let exact = signed_by(body);
        let Some(index) = exact.or_else(|| signed_by(&trimmed)) else {
            continue;
        };
        let (key, file) = source.secret_origin(index);
        let key = format!("sources.{name}.{key}");
        let origin = config::origin(&key, &loaded.origins);
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
            "not signed as given; without the white space at its end it would be signed"
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
    let file = file.unwrap_or(Path::new("-"));
    let is_input = file.as_os_str() == "-";
    if is_input && stdin().is_terminal() {
        let advice = "`deskbridge verify --signature VALUE FILE`, or the body on standard input";
        return Err(usage_error("there is no body to verify", advice));
    }
    read(file).map_err(|why| {
        let doing = if is_input {
            "reading standard input".into()
        } else {
            format!("reading `{}`", file.display())
        };
        failed(doing, why, "name the file with the body")
    })
}

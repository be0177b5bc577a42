//! Reads secret files into the configuration: secrets of sources, and URLs with credentials.

use std::cmp::Ordering;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use config::{Value, ValueKind};

use super::broker_url::BrokerUrl;
use super::finding::ConfigFinding;
use super::http_url::HttpUrl;
use super::layers::walk;
use super::rabbitmq::RabbitMq;
use super::sources::{SECRET_BYTES_MIN, Secret, SourceConfig};
use super::{Config, paths};

/// Maximum size of a secret file in bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Windows programs write it at the start of UTF-8 text.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Secrets that could not be read.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    /// Findings that prevent the start.
    pub missing: Vec<ConfigFinding>,
    /// Secrets that sources with `await_secret` wait for; they do not prevent the start.
    pub missing_secrets: Vec<ConfigFinding>,
}

/// Reads every secret file into the value that it replaces. `urls_and_file` compares the
/// precedence of `urls` and `url_file`.
pub(super) fn resolve(config: &mut Config, urls_and_file: Ordering) -> Resolved {
    let mut resolved = Resolved::default();
    for (name, source) in &mut config.sources {
        resolve_source(name, source, &mut resolved);
    }
    resolve_broker(&mut config.rabbitmq, urls_and_file, &mut resolved.missing);
    resolved
}

fn resolve_source(name: &str, source: &mut SourceConfig, resolved: &mut Resolved) {
    for (index, path) in source.secret_files.iter().enumerate() {
        let key = format!("sources.{name}.secret_files[{index}]");
        match read_secret(path) {
            Ok(secret) => {
                source.secrets.push(secret);
                source.read_from.push(index);
            }
            Err(unread) if unread.is_absent && source.await_secret => {
                source.absent.push((index, unread.problem));
            }
            Err(unread) => {
                let problem = format!("{unread}; put the secret of the webhook into it");
                resolved.missing.push(ConfigFinding::new(key, problem));
            }
        }
    }
    if source.secrets.is_empty() && source.is_signed() {
        resolved
            .missing_secrets
            .extend(missing_secrets(name, &source.absent));
    }
}

/// One finding for all files that a source waits for: one secret is enough.
fn missing_secrets(name: &str, absent: &[(usize, String)]) -> Option<ConfigFinding> {
    let (key, advice) = match absent {
        [] => return None,
        [(index, _)] => (
            format!("sources.{name}.secret_files[{index}]"),
            "put the secret of the webhook into it",
        ),
        _ => (
            format!("sources.{name}.secret_files"),
            "put the secret of the webhook into one of them",
        ),
    };
    let problems: Vec<_> = absent.iter().map(|(_, problem)| problem.as_str()).collect();
    let problem = format!("{}; {advice}", problems.join(", "));
    Some(ConfigFinding::new(key, problem))
}

/// Reads the one secret in a file.
///
/// # Errors
/// If the file cannot be read or does not contain a usable secret. The error names the kind of
/// mistake and never quotes the content.
pub fn read_secret(path: &Path) -> Result<Secret, SecretFileError> {
    let secret = read(path)?;
    match problem_of(&secret) {
        None => Ok(Secret::new(secret)),
        Some(problem) => Err(SecretFileError {
            problem: format!("the file {} {problem}", paths::in_words(path)),
            is_absent: false,
        }),
    }
}

/// Why a text cannot be a secret. Never quotes it.
pub(super) fn problem_of(secret: &str) -> Option<String> {
    let bytes = secret.len();
    if let Some(slip) = slip(secret) {
        return Some(format!("contains {slip}"));
    }
    (bytes < SECRET_BYTES_MIN)
        .then(|| format!("has {bytes} bytes; at least {SECRET_BYTES_MIN} are needed"))
}

/// The mistake in a secret, if it contains what no secret contains on purpose.
fn slip(secret: &str) -> Option<&'static str> {
    let is_foreign = |c: char| !c.is_ascii_graphic() || "\"'`<>\\".contains(c);
    Some(if secret.contains('\0') {
        "NUL bytes, as text in UTF-16 does; save it as UTF-8 without a byte order mark"
    } else if secret.contains(['\n', '\r']) {
        "several lines; put each secret into a file of its own and list the files in `secret_files`"
    } else if is_assignment(secret) {
        "`NAME=secret`; only the part after the `=` is the secret"
    } else if secret.contains(is_foreign) {
        "blanks, quotes, `<`, `>`, `\\` or characters beyond printable ASCII; copy the secret alone"
    } else {
        return None;
    })
}

/// Whether a text assigns a value to a name. `=` counts only after a name, because base64 ends with
/// it.
fn is_assignment(text: &str) -> bool {
    let Some((name, value)) = text.split_once('=') else {
        return false;
    };
    let name = name.trim_start_matches("export ").trim();
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let upper = name.to_ascii_uppercase();
    let words = [
        "SECRET",
        "KEY",
        "TOKEN",
        "PASSWORD",
        "SIGNATURE",
        "HMAC",
        "SHA256",
    ];
    !value.trim_matches('=').is_empty()
        && !name.is_empty()
        && name.chars().all(is_name)
        && (words.iter().any(|word| upper.contains(word))
            || (name.len() > 2 && name == upper && name.contains('_')))
}

/// Reads the URL files. Of `urls` and `url_file`, the one set by the stronger layer counts;
/// `management_url_file` always replaces `management_url`. If a file cannot be read, there is no
/// URL, rather than the default broker.
fn resolve_broker(
    rabbitmq: &mut RabbitMq,
    urls_and_file: Ordering,
    missing: &mut Vec<ConfigFinding>,
) {
    let key = "rabbitmq.url_file";
    match (&rabbitmq.url_file, urls_and_file) {
        (Some(path), Ordering::Less) => {
            let advice = "; put the URL of the broker into it";
            let text = read_urls(key, path, advice, wrong_url, missing);
            rabbitmq.urls = split_urls(&text);
            rabbitmq.urls_from = Some(path.clone());
        }
        (Some(_), Ordering::Equal) => {
            let problem = "`urls` is set too; set only one of the two";
            missing.push(ConfigFinding::new(key, problem));
        }
        _ => {}
    }
    if let Some(path) = &rabbitmq.management_url_file {
        let key = "rabbitmq.management_url_file";
        rabbitmq.management_url =
            Secret::new(read_urls(key, path, "", management_problem, missing));
    }
}

/// Reads the broker URLs in a file again.
///
/// # Errors
/// If the file cannot be read.
pub fn read_broker_urls(path: &Path) -> Result<Vec<Secret>, SecretFileError> {
    read(path).map(|text| split_urls(&text))
}

/// The text of a URL file; empty if it cannot be read. `advice` follows the reason.
fn read_urls(
    key: &str,
    path: &Path,
    advice: &str,
    problem_of: fn(&str) -> Option<String>,
    missing: &mut Vec<ConfigFinding>,
) -> String {
    let read = read(path);
    let problem = match &read {
        Ok(text) => {
            problem_of(text).map(|problem| format!("the file {}: {problem}", paths::in_words(path)))
        }
        Err(unread) => Some(format!("{unread}{advice}")),
    };
    missing.extend(problem.map(|problem| ConfigFinding::new(key, problem)));
    read.unwrap_or_default()
}

fn wrong_url(urls: &str) -> Option<String> {
    let mut urls = split_urls(urls).into_iter().enumerate();
    urls.find_map(|(index, url)| {
        let error = BrokerUrl::parse(url.expose()).err()?;
        Some(format!("URL number {}: {error}", index + 1))
    })
}

/// Why a URL cannot be used for the management API.
pub(super) fn management_problem(url: &str) -> Option<String> {
    match HttpUrl::parse(url) {
        Ok(url) if url.has_query() => Some("must have no query (`?…`)".into()),
        Ok(_) => None,
        Err(error) => Some(error.to_string()),
    }
}

fn split_urls(text: &str) -> Vec<Secret> {
    let urls = text.split([',', '\n']).map(str::trim);
    urls.filter(|url| !url.is_empty())
        .map(Secret::new)
        .collect()
}

/// Findings for URLs with credentials in keys that are not masked: they would be shown.
pub(super) fn misplaced_urls(tree: &Value) -> Vec<ConfigFinding> {
    let mut findings = Vec::new();
    walk("", tree, &mut |key, value| {
        let ValueKind::String(text) = &value.kind else {
            return;
        };
        let is_masked = key.starts_with("rabbitmq.urls")
            || key == "rabbitmq.management_url"
            || (key.starts_with("sources.") && key.contains(".secrets"));
        if text.contains("://") && text.contains('@') && !is_masked {
            let problem = "contains a URL with credentials; put it into `rabbitmq.urls`, or into \
                           the file that `rabbitmq.url_file` names";
            findings.push(ConfigFinding::new(key, problem).at(value.origin()));
        }
    });
    findings
}

/// Why a secret file could not be used.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub struct SecretFileError {
    problem: String,
    /// Whether the file is missing or empty, so that it may still be provided.
    is_absent: bool,
}

/// Reads a text file without its byte order mark and surrounding white space.
fn read(path: &Path) -> Result<String, SecretFileError> {
    let shown = paths::in_words(path);
    let (problem, is_absent) = match paths::reading(path, || read_bounded(path)) {
        Ok(bytes) => match text(&bytes).map(str::trim) {
            Some("") => (format!("the file {shown} is empty"), true),
            Some(text) => return Ok(text.to_owned()),
            None => (
                format!("the file {shown} is not text in UTF-8; save it as UTF-8 or ASCII"),
                false,
            ),
        },
        Err(error) => match error.kind() {
            ErrorKind::NotFound => (format!("the file {shown} {}", why_absent(path)), true),
            // Container engines create a directory if the file to mount does not exist.
            ErrorKind::IsADirectory => (format!("{shown} is a directory, not a file"), true),
            _ => (format!("the file {shown} cannot be read: {error}"), false),
        },
    };
    Err(SecretFileError { problem, is_absent })
}

/// Systemd makes its copies when the service starts, and deletes them when it ends.
fn why_absent(path: &Path) -> &'static str {
    if paths::original(path).is_none() {
        "is missing"
    } else if path.parent().is_some_and(Path::is_dir) {
        "was missing when the service started"
    } else {
        "can be read only while the service runs (`systemctl start deskbridge`)"
    }
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes)).ok()
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("it is larger than 64 KiB"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;

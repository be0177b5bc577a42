//! Puts what stands in secret files into the configuration: secrets of sources, URLs of the broker.

use std::cmp::Ordering;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use config::ValueKind;

use super::broker_url::BrokerUrl;
use super::finding::Finding;
use super::http_url::HttpUrl;
use super::layers::Layer;
use super::rabbitmq::RabbitMq;
use super::sources::{SECRET_BYTES_MIN, Secret, Signature, Source};
use super::{Config, paths};

/// A secret file is not larger.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Windows writes it before text in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// What the files did not give.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    /// What keeps the bridge from starting.
    pub missing: Vec<Finding>,
    /// What a source with `await_secret` waits for.
    pub awaited: Vec<Finding>,
}

/// Reads every secret file into the value it stands for.
pub(super) fn resolve(config: &mut Config, layers: &[Layer]) -> Resolved {
    let mut resolved = Resolved::default();
    for (name, source) in &mut config.sources {
        resolve_source(name, source, &mut resolved);
    }
    resolve_broker(&mut config.rabbitmq, layers, &mut resolved.missing);
    resolved
}

fn resolve_source(name: &str, source: &mut Source, resolved: &mut Resolved) {
    let mut absent = Vec::new();
    for (index, path) in source.secret_files.iter().enumerate() {
        let unread = match read_secret(path) {
            Ok(secret) => {
                source.secrets.push(secret);
                source.read_from.push(index);
                continue;
            }
            Err(unread) => unread,
        };
        let key = format!("sources.{name}.secret_files[{index}]");
        if unread.is_absent && source.await_secret {
            absent.push((key, unread.problem));
        } else {
            let problem = format!("{}; put the secret of the webhook into it", unread.problem);
            resolved.missing.push(Finding::new(key, problem));
        }
    }
    if source.secrets.is_empty() && source.signature == Signature::Required {
        resolved.awaited.extend(awaited(name, &absent));
    }
}

/// One finding, however many files a source waits for: any of them will do.
fn awaited(name: &str, absent: &[(String, String)]) -> Option<Finding> {
    let (key, advice) = match absent {
        [] => return None,
        [(key, _)] => (key.clone(), "put the secret of the webhook into it"),
        _ => (
            format!("sources.{name}.secret_files"),
            "put the secret of the webhook into one of them",
        ),
    };
    let problems: Vec<_> = absent.iter().map(|(_, problem)| problem.as_str()).collect();
    let problem = format!("{}; {advice}", problems.join(", "));
    Some(Finding::new(key, problem))
}

/// The one secret in a file.
///
/// # Errors
/// Why there is none; of the content nothing is said but what kind of slip it looks like.
pub fn read_secret(path: &Path) -> Result<Secret, Unread> {
    let secret = read(path)?;
    let wrong = |problem: String| Unread {
        problem: format!("the file {} {problem}", paths::in_words(path)),
        is_absent: false,
    };
    let bytes = secret.len();
    if let Some(slip) = slip(&secret) {
        return Err(wrong(format!("holds {slip}")));
    }
    if bytes < SECRET_BYTES_MIN {
        return Err(wrong(format!(
            "holds {bytes} bytes, a secret has at least {SECRET_BYTES_MIN}"
        )));
    }
    Ok(Secret::new(secret))
}

/// What nobody puts into a secret on purpose. `=` is one only behind a name as of a variable:
/// secrets in base64 end with it.
pub(super) fn slip(secret: &str) -> Option<&'static str> {
    if secret.contains('\0') {
        return Some(
            "NUL bytes, as text in UTF-16 does; save it as UTF-8 without a byte order mark",
        );
    }
    if secret.contains(['\n', '\r']) {
        return Some(
            "several lines; a file holds one secret and nothing else, `secret_files` may name several",
        );
    }
    if !secret.chars().all(|c| c == ' ' || c.is_ascii_graphic()) {
        return Some(
            "control characters or characters beyond ASCII; type or copy the secret again",
        );
    }
    if secret.starts_with(['"', '\'']) || secret.ends_with(['"', '\'']) {
        return Some("quotes around the secret, or one of them; take them away");
    }
    let (name, value) = secret.split_once('=')?;
    let is_value = !value.trim_matches('=').is_empty();
    (is_value && is_name_of_variable(name))
        .then_some("`NAME=secret`; only what is behind the `=` is the secret")
}

fn is_name_of_variable(text: &str) -> bool {
    let name = text.trim_start_matches("export ").trim();
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let upper = name.to_ascii_uppercase();
    let words = ["SECRET", "KEY", "TOKEN", "PASSWORD", "SIGNATURE", "HMAC"];
    !name.is_empty()
        && name.chars().all(is_name)
        && (words.iter().any(|word| upper.contains(word))
            || (name.len() > 2 && name == upper && name.contains('_')))
}

/// The stronger layer decides between `urls` and `url_file`; `management_url_file` stands for its URL.
fn resolve_broker(rabbitmq: &mut RabbitMq, layers: &[Layer], missing: &mut Vec<Finding>) {
    let [urls, url_file] = ["urls", "url_file"].map(|key| strength(layers, key));
    if let Some(path) = &rabbitmq.url_file {
        let problem = match urls.cmp(&url_file) {
            Ordering::Greater => None,
            Ordering::Equal => Some("`urls` is set too; set only one of the two".to_owned()),
            Ordering::Less => {
                let read = read(path);
                // Never another broker than the one that is meant.
                rabbitmq.urls = read.as_deref().map(split_urls).unwrap_or_default();
                match read {
                    Ok(_) => wrong_url(&rabbitmq.urls)
                        .map(|problem| format!("the file {}: {problem}", paths::in_words(path))),
                    Err(unread) => Some(format!(
                        "{}; put the URL of the broker into it",
                        unread.problem
                    )),
                }
            }
        };
        missing.extend(problem.map(|problem| Finding::new("rabbitmq.url_file", problem)));
    }
    if let Some(path) = &rabbitmq.management_url_file {
        let read = read(path);
        rabbitmq.management_url = Secret::new(read.as_deref().unwrap_or_default());
        let problem = match read {
            Ok(url) => management_problem(&url)
                .map(|problem| format!("the file {}: {problem}", paths::in_words(path))),
            Err(unread) => Some(unread.problem),
        };
        missing
            .extend(problem.map(|problem| Finding::new("rabbitmq.management_url_file", problem)));
    }
}

fn wrong_url(urls: &[Secret]) -> Option<String> {
    urls.iter().enumerate().find_map(|(index, url)| {
        let error = BrokerUrl::parse(url.expose()).err()?;
        Some(format!("URL number {}: {error}", index + 1))
    })
}

/// Why a URL is not one of a management API.
pub(super) fn management_problem(url: &str) -> Option<String> {
    match HttpUrl::parse(url) {
        Ok(url) if url.has_query() => Some("must have nothing behind a `?`".into()),
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

/// The strongest layer that sets a key of `[rabbitmq]`.
fn strength(layers: &[Layer], key: &str) -> Option<usize> {
    layers.iter().rposition(|layer| {
        let section = layer.values.get("rabbitmq").map(|section| &section.kind);
        matches!(section, Some(ValueKind::Table(section)) if section.contains_key(key))
    })
}

/// Why a secret file gave nothing.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub struct Unread {
    problem: String,
    /// Missing or empty: it may still come.
    is_absent: bool,
}

/// The text of a file without a byte order mark and surrounding white space.
fn read(path: &Path) -> Result<String, Unread> {
    let shown = paths::in_words(path);
    let fail = |problem, is_absent| Err(Unread { problem, is_absent });
    match read_bounded(path) {
        Ok(bytes) => match text(&bytes).map(str::trim) {
            Some("") => fail(format!("the file {shown} is empty"), true),
            Some(text) => Ok(text.to_owned()),
            None => fail(
                format!("the file {shown} is not text in UTF-8; save it as UTF-8 or ASCII"),
                false,
            ),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fail(format!("the file {shown} is missing"), true)
        }
        // An engine makes a directory of a file that is to be mounted and is not there.
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
            fail(format!("{shown} is a directory, not a file"), true)
        }
        Err(error) => fail(format!("the file {shown} cannot be read: {error}"), false),
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
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is larger than 64 KiB",
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;

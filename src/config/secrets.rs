//! Puts what stands in secret files into the configuration: secrets of sources, URLs of the broker.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use config::ValueKind;

use super::Config;
use super::finding::Finding;
use super::layers::Layer;
use super::rabbitmq::RabbitMq;
use super::sources::{SECRET_BYTES_MIN, Secret, Signature, Source};

/// A secret file is not larger.
const FILE_BYTES_MAX: u64 = 64 << 10;

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
        let read = read(path).and_then(|secret| long_enough(path, secret));
        let unread = match read {
            Ok(secret) => {
                source.secrets.push(secret);
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

fn long_enough(path: &Path, secret: String) -> Result<Secret, Unread> {
    let (shown, bytes) = (path.display(), secret.len());
    if bytes < SECRET_BYTES_MIN {
        let problem = format!(
            "the file `{shown}` holds {bytes} bytes, a secret has at least {SECRET_BYTES_MIN}"
        );
        return Err(Unread {
            problem,
            is_absent: false,
        });
    }
    Ok(Secret::new(secret))
}

/// The stronger layer decides between `urls` and `url_file`; `management_url_file` stands for its URL.
fn resolve_broker(rabbitmq: &mut RabbitMq, layers: &[Layer], missing: &mut Vec<Finding>) {
    let [urls, url_file] = ["urls", "url_file"].map(|key| strength(layers, key));
    if let Some(path) = &rabbitmq.url_file {
        if urls == url_file {
            let problem = "`urls` is given beside it; give one of the two";
            missing.push(Finding::new("rabbitmq.url_file", problem));
        } else if urls < url_file {
            match read(path) {
                Ok(text) => rabbitmq.urls = split_urls(&text),
                Err(unread) => {
                    let problem = format!("{}; put the URL of the broker into it", unread.problem);
                    missing.push(Finding::new("rabbitmq.url_file", problem));
                }
            }
        }
    }
    if let Some(path) = &rabbitmq.management_url_file {
        match read(path) {
            Ok(url) => rabbitmq.management_url = Secret::new(url.trim()),
            Err(unread) => {
                missing.push(Finding::new("rabbitmq.management_url_file", unread.problem));
            }
        }
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
struct Unread {
    problem: String,
    /// Missing or empty: it may still come.
    is_absent: bool,
}

fn read(path: &Path) -> Result<String, Unread> {
    let shown = path.display();
    let fail = |problem, is_absent| Err(Unread { problem, is_absent });
    match read_bounded(path) {
        Ok(text) => match without_newline(&text) {
            "" => fail(format!("the file `{shown}` is empty"), true),
            secret => Ok(secret.to_owned()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fail(format!("the file `{shown}` is missing"), true)
        }
        // An engine makes a directory of a file that is to be mounted and is not there.
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
            fail(format!("`{shown}` is a directory, not a file"), true)
        }
        Err(error) => fail(format!("the file `{shown}` cannot be read: {error}"), false),
    }
}

fn without_newline(text: &str) -> &str {
    let Some(line) = text.strip_suffix('\n') else {
        return text;
    };
    line.strip_suffix('\r').unwrap_or(line)
}

fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is larger than 64 KiB",
        ));
    }
    Ok(text)
}

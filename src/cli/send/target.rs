//! Where to post, and with which secret.

use std::fs;

use deskbridge::config::Config;
use deskbridge::config::sources::{Secret, Source};
use hyper::Uri;

use super::Arguments;
use crate::cli::Layering;
use crate::cli::failure::{failed, misused};
use crate::cli::health::reachable;

/// Where to post, and with which secret; none for a source that needs no signature.
pub struct Target {
    /// The source's URL.
    pub url: Uri,
    /// What signs.
    pub secret: Option<Secret>,
}

/// What the arguments say, and where they are silent the configuration.
pub fn choose(layering: &Layering, arguments: &Arguments) -> anyhow::Result<Target> {
    let given = given_secret(arguments)?;
    let config = match (&given, &arguments.url) {
        (Some(_), _) => layering.peek()?,
        (None, _) => layering.load()?.config,
    };
    let url = match &arguments.url {
        Some(url) => url.clone(),
        None => own_url(&config, arguments)?,
    };
    let secret = match given {
        Some(secret) => Some(secret),
        None => secret_of(&config, arguments)?,
    };
    let parsed: Option<Uri> = url.parse().ok();
    let usable =
        |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
    match parsed.filter(usable) {
        Some(url) => Ok(Target { url, secret }),
        None => Err(misused(
            format!("`{url}` is no URL"),
            "--url http://127.0.0.1:8080/webhooks/deskdirector",
        )),
    }
}

fn given_secret(arguments: &Arguments) -> anyhow::Result<Option<Secret>> {
    let Some(path) = &arguments.secret_file else {
        return Ok(arguments.secret.clone());
    };
    let text = fs::read_to_string(path).map_err(|why| {
        failed(
            format!("reading the secret in `{}`", path.display()),
            why,
            "name a file that holds the secret and nothing else",
        )
    })?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(Some(Secret::new(line.strip_suffix('\r').unwrap_or(line))))
}

fn own_url(config: &Config, arguments: &Arguments) -> anyhow::Result<String> {
    let (name, listen) = match &arguments.source {
        Some(name) => (name.as_str(), config.http.listen),
        None => (source(config, arguments)?.0, config.http.listen),
    };
    Ok(format!("http://{}/webhooks/{name}", reachable(listen)))
}

fn secret_of(config: &Config, arguments: &Arguments) -> anyhow::Result<Option<Secret>> {
    let (name, source) = source(config, arguments)?;
    match source.secrets.first() {
        Some(secret) if source.is_signed() => Ok(Some(secret.clone())),
        None if source.is_signed() => Err(misused(
            format!("the source `{name}` has no secret yet"),
            "--secret-file FILE",
        )),
        _ => Ok(None),
    }
}

fn source<'c>(config: &'c Config, arguments: &Arguments) -> anyhow::Result<(&'c str, &'c Source)> {
    let mut sources = config.sources.iter();
    let names: Vec<&str> = config.sources.keys().map(String::as_str).collect();
    let found = match (&arguments.source, names.len()) {
        (Some(name), _) => sources.find(|(source, _)| *source == name),
        (None, 1) => sources.next(),
        (None, 0) => {
            return Err(misused(
                "there is no source to post as",
                "--url URL --secret-file FILE",
            ));
        }
        (None, _) => {
            return Err(misused(
                "there are several sources",
                format!("--source with one of {}", names.join(", ")),
            ));
        }
    };
    found
        .map(|(name, source)| (name.as_str(), source))
        .ok_or_else(|| {
            let name = arguments.source.as_deref().unwrap_or_default();
            misused(
                format!("there is no source `{name}`"),
                format!("--source with one of {}", names.join(", ")),
            )
        })
}

//! Where to post, and with which secrets.

use deskbridge::config::Config;
use deskbridge::config::http_url::HttpUrl;
use deskbridge::config::secrets::read_secret;
use deskbridge::config::sources::{Secret, Source};
use hyper::Uri;

use super::Arguments;
use super::life::Occasion;
use crate::cli::Layering;
use crate::cli::failure::{failed, misused};
use crate::cli::health::reachable;

/// Where to post, and with which secrets; none for a source that needs no signature.
pub struct Target {
    /// The source's URL, to be asked. Not to be shown.
    pub url: Uri,
    /// The same without what may be secret.
    pub shown: String,
    secrets: Vec<Secret>,
}

impl Target {
    /// What signs a webhook: the first secret that of *New Chat Session*, the second, if there is
    /// one, that of *Chat Session Status Changed*.
    pub fn secret(&self, occasion: Occasion) -> Option<&Secret> {
        self.secrets.get(occasion as usize).or(self.secrets.first())
    }
}

/// What the arguments say, and where they are silent the configuration.
pub fn choose(layering: &Layering, arguments: &Arguments) -> anyhow::Result<Target> {
    let given = given_secrets(arguments)?;
    let config = match (given.is_empty(), &arguments.url) {
        (false, _) => layering.peek()?,
        (true, _) => layering.load()?.config,
    };
    let url = match &arguments.url {
        Some(url) => url.clone(),
        None => own_url(&config, arguments)?,
    };
    let secrets = if given.is_empty() {
        secrets_of(&config, arguments)?
    } else {
        given
    };
    let advice = "--url http://127.0.0.1:8080/webhooks/deskdirector";
    let url = HttpUrl::parse(&url).map_err(|why| misused(format!("--url: {why}"), advice))?;
    if url.login().is_some() {
        let problem = "--url: a user and a password mean nothing to a webhook; it is signed";
        return Err(misused(problem, advice));
    }
    match url.request().parse() {
        Ok(request) => Ok(Target {
            url: request,
            shown: url.to_string(),
            secrets,
        }),
        Err(_) => Err(misused("--url: it is no URL", advice)),
    }
}

fn given_secrets(arguments: &Arguments) -> anyhow::Result<Vec<Secret>> {
    let read = arguments.secret_file.iter().map(|path| {
        read_secret(path).map_err(|why| {
            failed(
                "reading --secret-file",
                why,
                "name a file that holds the secret and nothing else",
            )
        })
    });
    let read: anyhow::Result<Vec<_>> = read.collect();
    Ok(arguments.secret.iter().cloned().chain(read?).collect())
}

fn own_url(config: &Config, arguments: &Arguments) -> anyhow::Result<String> {
    let (name, listen) = match &arguments.source {
        Some(name) => (name.as_str(), config.http.listen),
        None => (source(config, arguments)?.0, config.http.listen),
    };
    Ok(format!("http://{}/webhooks/{name}", reachable(listen)))
}

fn secrets_of(config: &Config, arguments: &Arguments) -> anyhow::Result<Vec<Secret>> {
    let (name, source) = source(config, arguments)?;
    if source.is_signed() && source.secrets.is_empty() {
        return Err(misused(
            format!("the source `{name}` has no secret yet"),
            "--secret-file FILE",
        ));
    }
    let signing = source.secrets.iter().filter(|_| source.is_signed());
    Ok(signing.cloned().collect())
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

//! The URL to post to, and the secrets to sign with.

use deskbridge::config::Config;
use deskbridge::config::http_url::HttpUrl;
use deskbridge::config::secrets::read_secret;
use deskbridge::config::sources::{Secret, SourceConfig};
use deskbridge::http_client::reachable;
use deskbridge::simulator::Target;

use super::Arguments;
use crate::cli::ConfigArguments;
use crate::cli::failure::{failed, usage_error};

/// The target from the arguments, and its URL without parts that may be secret. What they do not
/// give comes from the configuration.
pub fn choose(
    layering: &ConfigArguments,
    arguments: &Arguments,
) -> anyhow::Result<(Target, String)> {
    let mut secrets = given_secrets(arguments)?;
    let config = if secrets.is_empty() {
        layering.load()?.config
    } else {
        layering.peek()?
    };
    let url = match (&arguments.url, &arguments.source) {
        (Some(url), _) => url.clone(),
        (None, Some(name)) => own_url(&config, name),
        (None, None) => own_url(&config, source(&config, arguments)?.0),
    };
    if secrets.is_empty() {
        secrets = secrets_of(&config, arguments)?;
    }
    let advice = "--url http://127.0.0.1:8080/webhooks/deskdirector";
    let refused = |problem| usage_error(format!("--url: {problem}"), advice);
    let url = HttpUrl::parse(&url).map_err(|why| refused(why.to_string()))?;
    if url.login().is_some() {
        let problem = "webhooks are signed; a user and a password are not used";
        return Err(refused(problem.into()));
    }
    let shown = url.to_string();
    let url = url.request().parse();
    let url = url.map_err(|_| refused("not a valid URL".into()))?;
    Ok((Target { url, secrets }, shown))
}

fn given_secrets(arguments: &Arguments) -> anyhow::Result<Vec<Secret>> {
    let mut secrets = arguments.secret.clone();
    for path in &arguments.secret_file {
        let advice = "name a file that holds the secret and nothing else";
        let secret = read_secret(path);
        secrets.push(secret.map_err(|why| failed("reading --secret-file", why, advice))?);
    }
    Ok(secrets)
}

fn own_url(config: &Config, source: &str) -> String {
    format!("http://{}/webhooks/{source}", reachable(config.http.listen))
}

fn secrets_of(config: &Config, arguments: &Arguments) -> anyhow::Result<Vec<Secret>> {
    let (name, source) = source(config, arguments)?;
    if !source.is_signed() {
        return Ok(Vec::new());
    }
    if source.secrets.is_empty() {
        let problem = format!("the source `{name}` has no secret yet");
        return Err(usage_error(problem, "--secret-file FILE"));
    }
    Ok(source.secrets.clone())
}

fn source<'c>(
    config: &'c Config,
    arguments: &Arguments,
) -> anyhow::Result<(&'c str, &'c SourceConfig)> {
    let sources = &config.sources;
    let found = match &arguments.source {
        Some(name) => sources.get_key_value(name),
        None => sources.first_key_value().filter(|_| sources.len() == 1),
    };
    if let Some((name, source)) = found {
        return Ok((name, source));
    }
    let problem = match &arguments.source {
        Some(name) => format!("there is no source `{name}`"),
        None if sources.is_empty() => {
            let advice = "--url URL --secret-file FILE";
            return Err(usage_error("there is no source to post as", advice));
        }
        None => "there are several sources".into(),
    };
    let known: Vec<_> = sources.keys().map(String::as_str).collect();
    let advice = format!("--source with one of {}", known.join(", "));
    Err(usage_error(problem, advice))
}

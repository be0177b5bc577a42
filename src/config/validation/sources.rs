//! `[sources]`: names that can stand in a URL, secrets that are there and long enough.

use super::super::Config;
use super::super::finding::Finding;
use super::super::secrets::slip;
use super::super::sources::{SECRET_BYTES_MIN, Signature, Source};

pub(super) fn check_sources(config: &Config, findings: &mut Vec<Finding>) {
    if config.sources.is_empty() {
        findings.push(Finding::new(
            "sources",
            "there is no source, so nobody could post; add `[sources.deskdirector]` with \
             `secrets = [\"…\"]` or `secret_files = [\"…\"]`",
        ));
    }
    for (name, source) in &config.sources {
        let key = format!("sources.{name}");
        if name.is_empty()
            || !name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        {
            let problem = "a source is part of a URL: use letters, digits, `-` and `_` only";
            findings.push(Finding::new(&key, problem));
        }
        check_secrets(&key, source, findings);
    }
}

fn check_secrets(key: &str, source: &Source, findings: &mut Vec<Finding>) {
    let is_signed = source.signature == Signature::Required;
    if is_signed && source.secrets.is_empty() && !source.await_secret {
        findings.push(Finding::new(
            key,
            "signatures are required and there is no secret; set `secrets` or `secret_files` to \
             the webhook's secret, or `signature = \"none\"` to let anybody post",
        ));
    }
    if is_signed
        && source.await_secret
        && source.secrets.is_empty()
        && source.secret_files.is_empty()
    {
        let problem = "`await_secret` waits for a file, and `secret_files` names none";
        findings.push(Finding::new(key, problem));
    }
    for (index, secret) in source.secrets.iter().enumerate() {
        let (text, number) = (secret.expose(), index + 1);
        let problem = if text.trim() != text {
            "begins or ends with a blank or line break; take it away".to_owned()
        } else if let Some(slip) = slip(text) {
            format!("holds {slip}")
        } else if text.len() < SECRET_BYTES_MIN {
            format!(
                "has {} bytes; at least {SECRET_BYTES_MIN} are needed",
                text.len()
            )
        } else {
            continue;
        };
        let problem = format!("secret number {number} {problem}");
        findings.push(Finding::new(format!("{key}.secrets"), problem));
    }
}

//! Validates `[sources]`: names that fit into a URL, and secrets that exist and are long enough.

use super::super::Config;
use super::super::finding::ConfigFinding;
use super::super::secrets::problem_of;
use super::super::sources::SourceConfig;

pub(super) fn check_sources(config: &Config, findings: &mut Vec<ConfigFinding>) {
    if config.sources.is_empty() {
        findings.push(ConfigFinding::new(
            "sources",
            "there is no source, so nobody could post; add `[sources.deskdirector]` with \
             `secrets = [\"…\"]` or `secret_files = [\"…\"]`",
        ));
    }
    for (name, source) in &config.sources {
        let key = format!("sources.{name}");
        let is_part_of_url = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || !name.chars().all(is_part_of_url) {
            let problem = "a source is part of a URL: use letters, digits, `-` and `_` only";
            findings.push(ConfigFinding::new(&key, problem));
        }
        check_secrets(&key, source, findings);
    }
}

fn check_secrets(key: &str, source: &SourceConfig, findings: &mut Vec<ConfigFinding>) {
    if source.is_signed() && source.secrets.is_empty() {
        let problem = match (source.await_secret, source.secret_files.is_empty()) {
            (false, _) => {
                "signatures are required and there is no secret; set `secrets` or `secret_files` \
                 to the webhook's secret, or `signature = \"none\"` to let anybody post"
            }
            (true, true) => "`await_secret` waits for a file, and `secret_files` names none",
            (true, false) => return,
        };
        findings.push(ConfigFinding::new(key, problem));
    }
    for (index, secret) in source.secrets.iter().enumerate() {
        let (text, number) = (secret.expose(), index + 1);
        let problem = if text.trim() == text {
            problem_of(text)
        } else {
            Some("begins or ends with white space; remove it".to_owned())
        };
        let problem = problem.map(|problem| format!("secret number {number} {problem}"));
        findings
            .extend(problem.map(|problem| ConfigFinding::new(format!("{key}.secrets"), problem)));
    }
}

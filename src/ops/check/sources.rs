//! Sources that refuse every webhook, and sources that accept webhooks from anybody.

use super::finding::Findings;
use crate::config::Loaded;

/// Findings about the secrets and signatures of the sources.
pub fn judge(loaded: &Loaded, list: &mut Findings) {
    for finding in &loaded.missing_secrets {
        list.error(finding.to_string())
            .impact("every webhook of this source is refused, and DeskDirector pauses it")
            .fix("write the secret that DeskDirector shows for the webhook into the file, then send SIGHUP");
    }
    for (name, source) in &loaded.config.sources {
        for (_, problem) in source.absent.iter().filter(|_| !source.secrets.is_empty()) {
            list.note(format!(
                "sources.{name}: {problem}; webhooks that are signed with its secret are refused"
            ));
        }
        if !source.is_signed() {
            list.warning(format!("sources.{name}: anybody who reaches the listener can post (`signature = \"none\"`)"))
                .fix("set `signature = \"required\"` and the secret that DeskDirector shows for the webhook");
        }
    }
}

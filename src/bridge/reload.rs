//! Reload on SIGHUP: applies the sources, routes, queues, broker URLs and log level of the new
//! configuration, and declares what is missing on the broker. An invalid configuration is rejected as a
//! whole.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Bridge;
use crate::config::finding::ConfigFinding;
use crate::config::rabbitmq::RabbitMq;
use crate::config::telemetry::Telemetry;
use crate::config::{Config, Loaded, paths};
use crate::forwarder::Reroute;
use crate::rabbitmq::ConnectConfig;
use crate::rabbitmq::topology::Topology;
use crate::slow_call;
use crate::telemetry::status::ReloadStatus;
use crate::webhook::routing::Routing;

/// Limit for reading the configuration and its secret files again.
const READING_MAX: Duration = Duration::from_secs(5);

/// Loads the configuration again.
pub type ConfigLoader = Arc<dyn Fn() -> LoadResult + Send + Sync>;

/// The loaded configuration, or its findings, one sentence each.
pub type LoadResult = Result<Loaded, Vec<String>>;

impl Bridge {
    pub(super) async fn reload(&mut self, reload: &ConfigLoader) {
        let mut waiting_for_restart = Vec::new();
        let findings = match load(reload).await {
            Ok(mut loaded) => {
                for (name, source) in &mut loaded.config.sources {
                    if let Some(running) = self.config.sources.get(name) {
                        source.keep_secrets(running);
                    }
                    for (key, _, problem) in source.kept_secrets() {
                        tracing::warn!(
                            "sources.{name}.{key}: {problem}; its last secret stays in use"
                        );
                    }
                }
                let is_missing = |finding: &&ConfigFinding| {
                    let mut sources = loaded.config.sources.iter();
                    sources.any(|(name, source)| {
                        let key = format!("sources.{name}.");
                        source.secrets.is_empty() && finding.key.starts_with(&key)
                    })
                };
                for finding in loaded.missing_secrets.iter().filter(is_missing) {
                    tracing::warn!("{finding}");
                }
                waiting_for_restart = sections_needing_restart(&self.config, &loaded.config);
                self.apply(loaded.config).await
            }
            Err(findings) => findings,
        };
        let is_applied = findings.is_empty();
        if is_applied {
            tracing::info!("configuration reloaded");
            if !waiting_for_restart.is_empty() {
                tracing::warn!(
                    sections = waiting_for_restart.join(", "),
                    "setting changed but requires a restart"
                );
            }
        } else {
            waiting_for_restart.clear();
            tracing::error!(
                ?findings,
                "configuration rejected; the previous one stays in use"
            );
        }
        let status = ReloadStatus {
            at: Timestamp::now(),
            is_applied,
            findings,
            waiting_for_restart,
        };
        self.reload_status.send_replace(Some(status));
    }

    /// Steps that can fail come first, so that a failed reload leaves the sources, the statuses and
    /// `config` as they were.
    async fn apply(&mut self, read: Config) -> Vec<String> {
        let new = with_reloadable(&self.config, read);
        let routing = match super::routing(&new) {
            Ok(routing) => routing,
            Err(error) => return vec![error.to_string()],
        };
        let settings = match ConnectConfig::from_config(&new) {
            Ok(settings) => settings,
            Err(error) => return vec![error.to_string()],
        };
        if let Some(logging) = &self.logging
            && new.telemetry.log_level != self.config.telemetry.log_level
            && let Err(error) = logging.set_level(&new.telemetry.log_level)
        {
            return vec![error.to_string()];
        }
        // Before the routes: a new exchange has to exist when its first event is published. Also
        // without a change: somebody may have deleted a declared object.
        self.publisher.redeclare(Topology::plan(&new));
        let has_new_routes =
            (&new.routing, &new.dead_letter) != (&self.config.routing, &self.config.dead_letter);
        if has_new_routes && let Err(finding) = self.reroute(routing.clone()).await {
            return vec![finding];
        }
        self.publisher.configure(settings);
        self.sources.replace(super::sources(&new));
        self.statuses.send_replace(super::statuses(&routing));
        self.config = new;
        Vec::new()
    }

    async fn reroute(&self, routing: Arc<Routing>) -> Result<(), String> {
        let is_stopping = || "the bridge is stopping".to_owned();
        let (done, rerouted) = oneshot::channel();
        let reroute = Reroute { routing, done };
        self.reroutes
            .send(reroute)
            .await
            .map_err(|_| is_stopping())?;
        let result = rerouted.await.map_err(|_| is_stopping())?;
        result.map_err(|error| error.to_string())
    }
}

async fn load(reload: &ConfigLoader) -> LoadResult {
    let reload = Arc::clone(reload);
    let reading = slow_call::run("configuration", move || reload());
    match timeout(READING_MAX, reading).await {
        Ok(loaded) => loaded.unwrap_or_else(|error| Err(vec![error.to_string()])),
        Err(_) => Err(vec![format!(
            "reading {} took longer than {READING_MAX:?}",
            paths::being_read()
        )]),
    }
}

/// The running configuration, with those sections of the new one that need no restart.
fn with_reloadable(running: &Config, read: Config) -> Config {
    Config {
        sources: read.sources,
        routing: read.routing,
        unrouted: read.unrouted,
        dead_letter: read.dead_letter,
        queues: read.queues,
        rabbitmq: with_urls(&running.rabbitmq, &read.rabbitmq),
        telemetry: Telemetry {
            log_format: running.telemetry.log_format,
            ..read.telemetry
        },
        ..running.clone()
    }
}

fn with_urls(running: &RabbitMq, read: &RabbitMq) -> RabbitMq {
    RabbitMq {
        urls: read.urls.clone(),
        url_file: read.url_file.clone(),
        urls_from: read.urls_from.clone(),
        ..running.clone()
    }
}

/// The changed sections and keys that take effect only after a restart.
fn sections_needing_restart(running: &Config, read: &Config) -> Vec<&'static str> {
    let changed = [
        ("http", running.http != read.http),
        ("admin", running.admin != read.admin),
        (
            "rabbitmq",
            with_urls(&running.rabbitmq, &read.rabbitmq) != read.rabbitmq,
        ),
        ("retry", running.retry != read.retry),
        ("journal", running.journal != read.journal),
        ("shutdown", running.shutdown != read.shutdown),
        (
            "telemetry.log_format",
            running.telemetry.log_format != read.telemetry.log_format,
        ),
    ];
    let changed = changed.into_iter().filter(|(_, is_other)| *is_other);
    changed.map(|(section, _)| section).collect()
}

//! SIGHUP: sources, routes and log level are read again. A bad new configuration is refused
//! whole.

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::Bridge;
use crate::config::{Config, Loaded};
use crate::forwarder::Reroute;
use crate::telemetry::status::ReloadStatus;

/// Reads the configuration again, or says what is wrong with it, one sentence each.
pub type Reload = Box<dyn Fn() -> Reloaded + Send + Sync>;

/// What reading it again brought.
pub type Reloaded = Result<Loaded, Vec<String>>;

impl Bridge {
    pub(super) async fn reload(&mut self, reload: &Reload) {
        let findings = match reload() {
            Ok(loaded) => self.apply(loaded.config).await,
            Err(findings) => findings,
        };
        let is_applied = findings.is_empty();
        if is_applied {
            tracing::info!("the configuration was read again and is in use");
        } else {
            tracing::error!(
                ?findings,
                "the new configuration is refused; the old one stays"
            );
        }
        let status = ReloadStatus {
            at: Timestamp::now(),
            is_applied,
            findings,
        };
        self.reload_status.send_replace(Some(status));
    }

    /// What can fail comes first: after it everything is taken over.
    async fn apply(&mut self, config: Config) -> Vec<String> {
        let routing = match super::routing(&config) {
            Ok(routing) => routing,
            Err(error) => return vec![error.to_string()],
        };
        if let Some(logging) = &self.logging
            && config.telemetry.log_level != self.config.telemetry.log_level
            && let Err(error) = logging.set_level(&config.telemetry.log_level)
        {
            return vec![error.to_string()];
        }
        if config.routing != self.config.routing || config.dead_letter != self.config.dead_letter {
            let (done, rerouted) = oneshot::channel();
            let reroute = Reroute {
                routing: routing.clone(),
                done,
            };
            if self.reroutes.send(reroute).await.is_err() {
                return vec!["the bridge is stopping".to_owned()];
            }
            match rerouted.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return vec![error.to_string()],
                Err(_) => return vec!["the bridge is stopping".to_owned()],
            }
        }
        self.sources.replace(super::sources(&config));
        self.statuses.send_replace(super::statuses(&routing));
        self.config.routing = config.routing;
        self.config.dead_letter = config.dead_letter;
        self.config.sources = config.sources;
        self.config.telemetry = config.telemetry;
        Vec::new()
    }
}

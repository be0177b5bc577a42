//! What needs both the configuration and the routes: [`config`](crate::config) cannot parse key
//! templates, and [`webhook`](crate::webhook) does not know the keys.

use crate::config::finding::{ConfigError, ConfigFinding};
use crate::config::layers::Layers;
use crate::config::{Config, Loaded};
use crate::webhook::routing::{Routing, TemplateError, Templates};

/// Reads, merges and validates all layers.
///
/// # Errors
/// All findings at once, those about key templates included; if a layer cannot be read at all, only
/// why not.
pub fn load(layers: &Layers) -> Result<Loaded, ConfigError> {
    Config::load(layers, |config| {
        let errors = routing(config).err().unwrap_or_default();
        let finding =
            |error: TemplateError| ConfigFinding::new(error.name, error.problem.to_string());
        errors.into_iter().map(finding).collect()
    })
}

/// The routes of a configuration.
///
/// # Errors
/// All key templates that cannot be parsed.
pub fn routing(config: &Config) -> Result<Routing, Vec<TemplateError>> {
    let statuses = config.routing.statuses.iter().map(|(name, status)| {
        let own = (status.exchange.as_deref(), status.routing_key.as_deref());
        (name.as_str(), own)
    });
    Routing::new(&Templates {
        exchange: &config.routing.exchange,
        routing_key: &config.routing.routing_key,
        statuses: statuses.collect(),
        dead_letters: &config.dead_letter.exchange,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_template_is_a_finding_like_any_other() {
        let set = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let layers = Layers {
            settings: vec![
                set("routing.routing_key", "a.{staus}"),
                set("routing.statuses.new.routing_key", "{"),
                set("http.sessions_max", "0"),
                set("sources.dd.signature", "none"),
            ],
            ..Layers::default()
        };
        let error = load(&layers).unwrap_err().to_string();
        for (line, start) in error.lines().zip([
            "http.sessions_max: a limit of 0 lets nothing through (--set http.sessions_max)",
            "routing.routing_key: unknown placeholder `{staus}`",
            "routing.statuses.new.routing_key: unbalanced brace",
        ]) {
            assert!(line.starts_with(start), "{line}");
        }
        assert_eq!(error.lines().count(), 3, "{error}");
    }
}

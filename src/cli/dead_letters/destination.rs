//! Where replayed messages may go: their headers are anybody's, and the bridge's user may publish to
//! more than the bridge does. So only to exchanges of the configuration, or to the one that is given.

use std::collections::BTreeSet;
use std::sync::Arc;

use deskbridge::config::Config;
use deskbridge::webhook::routing::{Route, Routing};

use crate::cli::failure::failed;

/// Exchanges that are published to.
#[derive(Debug)]
pub struct Destination {
    configured: BTreeSet<Arc<str>>,
    given: Option<Arc<str>>,
}

impl Destination {
    /// Those of `[routing]`, unless one is given.
    ///
    /// # Errors
    /// If the routing keys of the configuration cannot be read.
    pub fn new(config: &Config, given: Option<&str>) -> anyhow::Result<Self> {
        let routing =
            Routing::new(&config.routing, &config.dead_letter).map_err(|mut errors| {
                let why = errors.swap_remove(0);
                failed("reading `routing`", why, "`deskbridge check`")
            })?;
        Ok(Self {
            configured: routing.exchanges().cloned().collect(),
            given: given.map(Into::into),
        })
    }

    /// Where a message goes that was going there.
    ///
    /// # Errors
    /// If that is an exchange the bridge does not publish to.
    pub fn of(&self, origin: Route) -> Result<Route, String> {
        if let Some(exchange) = &self.given {
            return Ok(Route {
                exchange: Arc::clone(exchange),
                ..origin
            });
        }
        if self.configured.contains(&origin.exchange) {
            return Ok(origin);
        }
        let Route {
            exchange,
            routing_key,
        } = origin;
        Err(if exchange.is_empty() {
            format!(
                "it says that it was going straight into queue `{routing_key}`, and the bridge publishes to no queue; --to-exchange NAME for another way"
            )
        } else {
            format!(
                "it says that it was going to exchange `{exchange}`, which is not one of [routing]; --to-exchange {exchange} if it belongs there"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(exchange: &str, routing_key: &str) -> Route {
        Route {
            exchange: exchange.into(),
            routing_key: routing_key.into(),
        }
    }

    #[test]
    fn only_configured_exchanges_are_published_to() {
        let any = Destination::new(&Config::default(), None).unwrap();
        let own = route("chat-sessions", "chat-session.missed");
        assert_eq!(any.of(own.clone()), Ok(own));
        for exchange in [
            "",
            "amq.topic",
            "chat-sessions.dead-letter",
            "Chat-Sessions",
        ] {
            let why = any.of(route(exchange, "payroll")).unwrap_err();
            assert!(why.contains("--to-exchange"), "{why}");
        }
    }

    #[test]
    fn a_given_exchange_takes_all() {
        for to in ["orders", ""] {
            let given = Destination::new(&Config::default(), Some(to)).unwrap();
            for from in ["", "chat-sessions", "elsewhere"] {
                assert_eq!(given.of(route(from, "k")), Ok(route(to, "k")));
            }
        }
    }
}

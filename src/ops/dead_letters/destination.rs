//! Where replayed messages may go. Anybody who may publish to the queue can write the headers that
//! name an exchange, and the bridge's user may publish to more exchanges than the bridge does.
//! Therefore a message goes only to an exchange of the configuration, or to the one that is given.

use crate::webhook::routing::{Route, Routing};

/// Where an operator sends messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Destination {
    /// To the exchange and key that each message was going to.
    #[default]
    Original,
    /// To this exchange, each with its own key.
    Exchange(String),
    /// Into this queue alone.
    Queue(String),
}

/// Where to publish a message that was going to `origin`.
///
/// # Errors
/// If the bridge does not publish to the exchange of `origin`, or if the origin is needed and
/// unknown.
pub(super) fn of(
    routing: &Routing,
    given: &Destination,
    origin: Result<Route, String>,
) -> Result<Route, String> {
    let origin = match given {
        Destination::Original => origin?,
        Destination::Exchange(exchange) => {
            return Ok(Route {
                exchange: exchange.as_str().into(),
                ..origin?
            });
        }
        // The default exchange routes a key to the queue of that name, and to no other.
        Destination::Queue(queue) => {
            return Ok(Route {
                exchange: "".into(),
                routing_key: queue.as_str().into(),
            });
        }
    };
    if routing
        .exchanges()
        .any(|exchange| *exchange == origin.exchange)
    {
        return Ok(origin);
    }
    let (exchange, routing_key) = (origin.exchange, origin.routing_key);
    Err(if exchange.is_empty() {
        format!(
            "it says that it was going directly to queue `{routing_key}`, but the bridge does not publish to queues; use --to-queue {routing_key} if it belongs there"
        )
    } else {
        format!(
            "it says that it was going to exchange `{exchange}`, which is not one of [routing]; use --to-exchange {exchange} if it belongs there"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn destination(given: &Destination, origin: Route) -> Result<Route, String> {
        let routing = crate::settings::routing(&Config::default()).unwrap();
        of(&routing, given, Ok(origin))
    }

    fn route(exchange: &str, routing_key: &str) -> Route {
        Route {
            exchange: exchange.into(),
            routing_key: routing_key.into(),
        }
    }

    #[test]
    fn only_configured_exchanges_are_destinations() {
        let own = route("chat-sessions", "chat-session.missed");
        let original = Destination::Original;
        assert_eq!(destination(&original, own.clone()), Ok(own));
        for (exchange, advice) in [
            ("", "--to-queue payroll"),
            ("amq.topic", "--to-exchange amq.topic"),
            ("chat-sessions.dead-letter", "--to-exchange chat-sessions.d"),
            ("Chat-Sessions", "--to-exchange Chat-Sessions"),
        ] {
            let why = destination(&original, route(exchange, "payroll")).unwrap_err();
            assert!(why.contains(advice), "{why}");
        }
    }

    #[test]
    fn given_exchange_overrides_the_destination() {
        for to in ["orders", ""] {
            for from in ["", "chat-sessions", "elsewhere"] {
                let given = Destination::Exchange(to.into());
                assert_eq!(destination(&given, route(from, "k")), Ok(route(to, "k")));
            }
        }
    }

    #[test]
    fn given_queue_needs_no_origin() {
        let routing = crate::settings::routing(&Config::default()).unwrap();
        let crm = Destination::Queue("crm".into());
        for origin in [Ok(route("elsewhere", "k")), Err("unknown".to_owned())] {
            assert_eq!(of(&routing, &crm, origin), Ok(route("", "crm")));
        }
        let orders = Destination::Exchange("orders".into());
        for given in [Destination::Original, orders] {
            let unknown = of(&routing, &given, Err("unknown".to_owned()));
            assert_eq!(unknown, Err("unknown".to_owned()));
        }
    }
}

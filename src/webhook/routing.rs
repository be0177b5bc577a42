//! Which exchange and routing key an event goes to. Decided by the configuration and the event's
//! fields alone.

use std::sync::Arc;

/// Where a message goes: an exchange and a routing key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    /// Name of the exchange.
    pub exchange: Arc<str>,
    /// Routing key, at most 255 bytes.
    pub routing_key: Arc<str>,
}

//! The route of one status.

use std::sync::Arc;

use super::template::Template;
use super::{Route, RoutePattern};
use crate::webhook::Fields;

/// Where the events of one status go.
#[derive(Debug, Clone)]
pub struct StatusRoute {
    /// With values of the event as placeholders.
    pub address: RoutePattern,
    key: StatusKey,
}

#[derive(Debug, Clone)]
enum StatusKey {
    /// The same for all events of the status.
    Fixed(Arc<Route>),
    /// Filled in from the event's fields.
    Templated(Template),
}

impl StatusRoute {
    /// The route of a status with this exchange and routing key.
    pub fn new(status: Arc<str>, exchange: Arc<str>, key: Template) -> Self {
        let template = key.with_status(&status);
        let (routing_key, key) = match template.fixed() {
            Some(routing_key) => {
                let exchange = Arc::clone(&exchange);
                let text = routing_key.to_string();
                let route = Arc::new(Route {
                    exchange,
                    routing_key,
                });
                (text, StatusKey::Fixed(route))
            }
            None => (template.address(), StatusKey::Templated(template)),
        };
        Self {
            address: RoutePattern {
                status,
                exchange,
                routing_key,
            },
            key,
        }
    }

    /// The route of one event of the status.
    pub fn route(&self, source: &str, fields: &Fields) -> Arc<Route> {
        match &self.key {
            StatusKey::Fixed(route) => Arc::clone(route),
            StatusKey::Templated(template) => Arc::new(Route {
                exchange: Arc::clone(&self.address.exchange),
                routing_key: template.fill(source, fields),
            }),
        }
    }
}

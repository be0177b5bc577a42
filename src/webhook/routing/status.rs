//! Where the events of one status go, and how that is read from the configuration.

use std::sync::Arc;

use super::Route;
use super::template::{Template, TemplateError};
use crate::config::routing as config;
use crate::webhook::Fields;

/// Where the events of one status go.
#[derive(Debug, Clone)]
pub struct StatusRoute {
    /// Its name.
    pub status: Arc<str>,
    /// Its exchange.
    pub exchange: Arc<str>,
    key: Key,
}

#[derive(Debug, Clone)]
enum Key {
    /// The same for all events of the status.
    Fixed(Arc<Route>),
    /// Made of the event's fields.
    Made(Template),
}

impl StatusRoute {
    fn new(status: Arc<str>, exchange: Arc<str>, key: Template) -> Self {
        let key = match key.fixed(&status) {
            Some(routing_key) => Key::Fixed(Arc::new(Route {
                exchange: Arc::clone(&exchange),
                routing_key,
            })),
            None => Key::Made(key),
        };
        Self {
            status,
            exchange,
            key,
        }
    }

    /// Its routing key, in which values of the event stay placeholders in braces.
    pub fn address(&self) -> String {
        match &self.key {
            Key::Fixed(route) => route.routing_key.to_string(),
            Key::Made(template) => template.address(&self.status),
        }
    }

    /// Where one event of the status goes.
    pub fn route(&self, source: &str, fields: &Fields) -> Arc<Route> {
        match &self.key {
            Key::Fixed(route) => Arc::clone(route),
            Key::Made(template) => Arc::new(Route {
                exchange: Arc::clone(&self.exchange),
                routing_key: template.fill(&self.status, source, fields),
            }),
        }
    }
}

/// Reads the routes of the configuration and collects what is wrong with them.
pub struct Reader<'c> {
    /// The default exchange.
    pub exchange: Arc<str>,
    /// What was wrong so far.
    pub errors: Vec<TemplateError>,
    key: Template,
    routing: &'c config::Routing,
}

impl<'c> Reader<'c> {
    /// Begins with the defaults.
    pub fn new(routing: &'c config::Routing) -> Self {
        let exchange = routing.exchange.as_str().into();
        let mut reader = Self {
            routing,
            exchange,
            key: Template::default(),
            errors: Vec::new(),
        };
        reader.key = reader.template("routing.routing_key".into(), &routing.routing_key);
        reader
    }

    /// The route of one status: its own section's, and where that is silent the default.
    pub fn status_route(&mut self, status: &str) -> StatusRoute {
        let own = self
            .routing
            .statuses
            .get(status)
            .cloned()
            .unwrap_or_default();
        let exchange = own
            .exchange
            .map_or_else(|| Arc::clone(&self.exchange), Arc::from);
        let key = match own.routing_key {
            Some(key) => self.template(format!("routing.statuses.{status}.routing_key"), &key),
            None => self.key.clone(),
        };
        StatusRoute::new(status.into(), exchange, key)
    }

    fn template(&mut self, name: String, template: &str) -> Template {
        Template::parse(template).unwrap_or_else(|problem| {
            self.errors.push(TemplateError { name, problem });
            Template::default()
        })
    }
}

//! Receives webhooks and answers operators. The only module that knows HTTP.
//!
//! - [`server`] accepts connections and enforces their [`limits`], whatever they request.
//! - [`ingress`] answers `POST /webhooks/{source}`.
//! - [`admin`] answers operators on a separate listener.
//! - [`problem`] is the body of an error response; [`refused`] counts and logs the requests that
//!   reach no source.

pub mod admin;
pub mod event_store;
pub mod ingress;
pub mod limits;
pub mod problem;
pub mod refused;
pub mod server;
pub mod sources;

mod body;
mod connection;
mod descriptors;
mod json;
mod progress;
mod slots;
mod socket;
mod throttle;

#[cfg(test)]
mod tests;

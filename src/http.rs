//! Receives webhooks and answers operators. The only room that knows HTTP.
//!
//! - [`server`] accepts connections and keeps their limits, whatever is asked on them.
//! - [`ingress`] answers `POST /webhooks/{source}`.
//! - [`admin`] answers operators on a listener of its own.
//! - [`problem`] is what a refusal looks like; [`refused`] counts and logs those that reach no source.

pub mod admin;
pub mod hold;
pub mod ingress;
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

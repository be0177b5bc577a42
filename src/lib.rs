//! deskbridge: the bridge between DeskDirector's chat webhooks and RabbitMQ.
//!
//! In reading order:
//!
//! - [`webhook`] turns a verified request into events, and an event into a message. Pure.
//! - [`config`] contains the settings, one small struct per section. Plain values.
//! - [`settings`] parses the key templates of a configuration into routes, and reports those that are
//!   invalid.
//! - [`journal`] stores every accepted event on disk until it is complete. Knows SQLite.
//! - [`rabbitmq`] connects, maintains the topology and publishes windows. Knows AMQP.
//! - [`forwarder`] decides when each event is published, and what an outcome means. Knows the
//!   rules.
//! - [`http`] receives webhooks and serves the admin endpoints. Knows HTTP.
//! - [`ops`] contains what operators do: inspect, search, replay. Used by the command line.
//! - [`asyncapi`] describes to consumers what is published, from `config`, `webhook` and
//!   `rabbitmq`.
//! - [`bridge`] wires the modules together, and starts and stops them in order.
//! - [`telemetry`] contains logs, metrics, traces and status values; every module may use it.
//! - [`foreign`] escapes foreign text before people see it.
//! - [`simulator`] posts webhooks as DeskDirector would, for `deskbridge send`.
//! - [`http_client`] sends requests to the bridge, the broker's management API and a collector.
//! - [`backoff`] computes the delays between attempts.
//! - [`memory`] allocates large bodies.
//! - [`failpoint`] names the places where tests end the process; compiled to nothing in a release.

pub mod asyncapi;
pub mod backoff;
pub mod bridge;
pub mod config;
pub mod failpoint;
pub mod foreign;
pub mod forwarder;
pub mod http;
pub mod http_client;
pub mod journal;
pub mod memory;
pub mod ops;
pub mod rabbitmq;
pub mod settings;
pub mod simulator;
pub mod slow_call;
pub mod telemetry;
pub mod webhook;

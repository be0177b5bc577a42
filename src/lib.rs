//! deskbridge: the bridge between DeskDirector's chat webhooks and RabbitMQ.
//!
//! In reading order:
//!
//! - [`webhook`] turns a verified request into events, and an event into a message. Pure.
//! - [`config`] is what an operator can tune, one small struct a section. Plain values.
//! - [`journal`] holds every accepted event on disk until it is settled. Knows SQLite.
//! - [`rabbitmq`] connects, keeps the topology and publishes windows. Knows AMQP.
//! - [`forwarder`] decides what is published when, and what an outcome means. Knows the rules.
//! - [`http`] receives webhooks and answers operators. Knows HTTP.
//! - [`asyncapi`] tells consumers what is published, made of `config`, `webhook` and `rabbitmq`.
//! - [`bridge`] wires the rooms and starts and stops them in order.
//! - [`telemetry`] is logs and metrics, beside all of them.
//! - [`memory`] is where large bodies lie.
//! - [`failpoint`] is where tests end the process; nothing in a release.

pub mod asyncapi;
pub mod bridge;
pub mod config;
pub mod failpoint;
pub mod forwarder;
pub mod http;
pub mod journal;
pub mod memory;
pub mod rabbitmq;
pub mod telemetry;
pub mod webhook;

//! Everything the bridge promises, shown on the real binary and a real, private RabbitMQ.

#![allow(clippy::float_cmp, reason = "counters of Prometheus are whole numbers")]

mod arrival;
mod attack;
mod configuration;
mod contract_http;
mod disk;
#[cfg(feature = "failpoints")]
mod failpoints;
mod fuzz;
mod host;
mod house;
mod lifecycle;
mod outages;
mod publisher;
mod refusals;
mod routes;
mod sending;
mod support;
mod support_works;

//! Everything the bridge promises, shown on the real binary and a real, private RabbitMQ.

mod configuration;
mod outages;
mod publisher;
mod refusals;
mod routes;
mod sending;
mod support;
mod support_works;

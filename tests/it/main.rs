//! Everything the bridge promises, shown on the real binary and a real, private RabbitMQ.

mod arrival;
mod configuration;
mod contract_http;
mod disk;
mod lifecycle;
mod publisher;
mod sending;
mod support;
mod support_works;

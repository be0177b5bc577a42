//! Integration tests: the guarantees of the bridge, tested on the real binary and a real, private
//! RabbitMQ.

#![allow(clippy::float_cmp, reason = "counters of Prometheus are whole numbers")]

mod alerts;
mod architecture;
mod attack;
mod check;
mod cluster;
mod configuration;
mod consumer_examples;
mod dashboard;
mod dead_letters;
mod delayed_retry;
mod disk;
mod documents;
mod end_to_end;
mod events;
#[cfg(feature = "failpoints")]
mod failpoints;
mod figures;
mod fuzz;
mod host;
mod http_answers;
mod lifecycle;
mod network;
mod outages;
mod output_pipes;
mod pauses;
mod protocol_violations;
mod publisher;
mod reconnects;
mod refusals;
mod refused_requests;
mod routes;
mod schemas;
mod scripts;
mod secrets;
mod send_command;
mod status_command;
mod support;
mod support_selftest;
mod terminal_output;
mod topology;
#[cfg(feature = "otel")]
mod traces;
mod why_command;

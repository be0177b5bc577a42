//! Everything the bridge promises, shown on the real binary and a real, private RabbitMQ.

#![allow(clippy::float_cmp, reason = "counters of Prometheus are whole numbers")]

mod alerts;
mod arrival;
mod attack;
mod check;
mod cluster;
mod configuration;
mod consumers;
mod contract_http;
mod dead_letters;
mod delayed;
mod disk;
mod events;
#[cfg(feature = "failpoints")]
mod failpoints;
mod figures;
mod fuzz;
mod host;
mod house;
mod lifecycle;
mod misbehaviour;
mod network;
mod outage;
mod outages;
mod pages;
mod pipes;
mod publisher;
mod refusals;
mod routes;
mod schemas;
mod scripts;
mod secrecy;
mod sending;
mod storms;
mod strangers;
mod support;
mod support_works;
mod terminals;
mod vanished;

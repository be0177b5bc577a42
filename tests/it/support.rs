//! The building blocks of the tests: a broker, a bridge, a sender, a consumer and a faulty network,
//! each a type with verbs. Nothing here knows what is being tested.

pub mod authority;
pub mod bridge;
pub mod broker;
pub mod cluster;
#[cfg(feature = "otel")]
pub mod collector;
pub mod consumer;
pub mod disk;
pub mod example;
pub mod http;
pub mod load;
pub mod manager;
pub mod message;
pub mod metrics;
pub mod peer;
pub mod process;
pub mod prometheus;
pub mod proxy;
pub mod sender;
pub mod skip;
pub mod terminal;
pub mod tls_server;
pub mod validator;
pub mod vhost;
pub mod wait;

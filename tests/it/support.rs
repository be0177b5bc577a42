//! What the tests are written with: a broker, a bridge, a sender, a consumer and a bad network,
//! each with verbs. Nothing here knows what is being tested.

#![allow(dead_code, reason = "a verb may wait for its test")]

pub mod authority;
pub mod bridge;
pub mod broker;
pub mod cluster;
pub mod consumer;
pub mod disk;
pub mod encrypted;
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
pub mod sessions;
pub mod skip;
pub mod terminal;
pub mod validator;
pub mod vhost;
pub mod wait;

//! The module `rabbitmq` alone, without journal and forwarder: the outcomes of publish windows on a
//! real broker, whatever happens to it.

mod broker_limits;
mod confirms;
mod connection_cuts;
mod harness;
mod login;
mod outages;
mod outcomes;
mod tls;
mod topology;

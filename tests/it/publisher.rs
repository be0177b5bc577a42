//! The `RabbitMQ` room alone, without journal and forwarder: what becomes of windows on a real
//! broker, whatever is done to it.

mod certificates;
mod confirms;
mod cuts;
mod leaks;
mod limits;
mod login;
mod outages;
mod outcomes;
mod room;
mod speed;
mod tls;
mod topology;

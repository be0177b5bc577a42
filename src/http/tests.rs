//! The module on real loopback sockets, with an in-memory journal. Clients write bytes instead of
//! using a client library, which would not send most of what is tested here.

mod admin;
mod answers;
mod bodies;
mod connections;
mod drain;
mod forged;
mod hostile;
mod oversized;
mod smuggling;
mod support;

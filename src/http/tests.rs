//! The room on real loopback sockets, with a journal made of memory. Clients write bytes, not
//! requests: most of what is tested here no client library would send.

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

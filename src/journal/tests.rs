//! Tests of the journal, by subject. `support` contains the shared helpers.

mod accounting;
mod archive;
pub(super) mod cost;
mod damage;
mod fetch;
mod migration;
mod parked;
mod queue;
mod refusals;
mod retention;
mod routes;
mod sizes;
pub(super) mod support;
mod tail;
mod unknown;
mod writer;

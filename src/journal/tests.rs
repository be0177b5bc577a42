//! The journal by subject. `support` has the verbs.

mod accounting;
mod archive;
mod cost;
mod damage;
mod parked;
mod queue;
mod refusals;
mod retention;
mod routes;
mod sizes;
pub(super) mod support;
mod take;
mod unknown;
mod writer;

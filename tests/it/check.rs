//! `check`: every way in which a broker can be weaker than the documented guarantee is set up on a
//! real broker and must be found by the built binary. On a healthy broker it finds nothing.

mod environment;
mod faults;
mod queues;
pub(crate) mod setup;

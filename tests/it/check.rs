//! `check`, the doctor: every way in which a broker can be weaker than the promise, seeded into a
//! real one and found by the built binary, and a healthy one about which it has nothing to say.

mod around;
mod exchanges;
mod faults;
mod queues;
mod setup;

//! What the machine denies or does to the bridge: descriptors, memory, threads, processor time, a
//! place for the log, a steady clock.

mod clock;
mod descriptors;
mod logs;
mod resources;

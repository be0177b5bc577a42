//! Limits and faults of the machine: file descriptors, memory, threads, CPU time, a log that cannot
//! be written, clock jumps.

mod clock;
mod descriptors;
mod logs;
mod resources;

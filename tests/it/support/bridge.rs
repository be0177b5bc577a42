//! The built binary as a real process with a directory of its own, and what can be done to it:
//! [`builder`] writes its configuration, [`run`] runs it.

pub mod builder;
pub mod run;

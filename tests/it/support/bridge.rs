//! The built binary as a real process with its own directory: [`builder`] writes its configuration,
//! [`run`] runs and controls it, [`status`] reads what it reports.

pub mod builder;
pub mod run;
mod status;

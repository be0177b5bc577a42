//! What the rooms tell the outside: logs, metrics, status. Beside all rooms, knows none of them.

pub mod exposition;
pub mod foreign;
pub mod logging;
pub mod metrics;
pub mod status;

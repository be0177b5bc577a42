//! Logs, metrics, traces and status values. Every module may use it; it imports none of them but
//! `config`, `foreign` and `http_client`.

pub mod exposition;
pub mod logging;
pub mod metrics;
pub mod status;
pub mod traces;

//! Decides what is published when, and what an outcome means.
pub mod flow;
pub mod retry;

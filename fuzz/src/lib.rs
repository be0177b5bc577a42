//! Properties that hold for every input, one module per fuzz target. libFuzzer searches for inputs
//! that violate them. The bridge's tests replay past findings (`regressions/`) and the seeds
//! (`seeds/`).

pub mod config;
pub mod http;
pub mod json;
pub mod routing;
pub mod signature;
pub mod split;

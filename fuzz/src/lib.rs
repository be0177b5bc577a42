//! What holds for every input, one file a target. libFuzzer looks for an input it does not hold
//! for; the tests of the bridge replay those it once found (`regressions/`) and those it began
//! with (`seeds/`).

pub mod config;
pub mod http;
pub mod json;
pub mod routing;
pub mod signature;
pub mod split;

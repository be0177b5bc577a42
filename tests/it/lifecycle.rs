//! How the bridge starts, stops and takes a new configuration, and what it tells operators
//! meanwhile.

mod admin;
mod reload;
mod start;
mod stop;

//! How the bridge starts, stops and takes a new configuration, and what it tells operators
//! meanwhile.

mod admin;
mod directory;
mod journal;
mod reload;
mod signals;
mod start;
mod stop;

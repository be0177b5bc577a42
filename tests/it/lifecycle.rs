//! How the bridge starts, stops and reloads its configuration, and what it reports to operators
//! meanwhile.

mod admin;
mod journal;
mod journal_directory;
mod reload;
mod service;
mod start;
mod stop;

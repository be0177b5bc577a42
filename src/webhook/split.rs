//! Cuts a verified body into events.

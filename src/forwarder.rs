//! Decides what is published when, and what an outcome means.

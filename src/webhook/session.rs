//! The tolerant model of the whole `ChatSession` interface.

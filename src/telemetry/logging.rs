//! Logs: text for people or JSON for machines, to standard error, never blocking.

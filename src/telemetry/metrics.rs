//! The metrics of the contract that rooms change as they work; those of the journal are read from
//! its [`Totals`](super::status::Totals).

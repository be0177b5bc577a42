//! The flow against a model of the world around it, in virtual time and from seeds; and what that
//! found, told without chance.

mod retold;
mod simulation;

//! The flow against a model of the world around it, in virtual time and from seeds; what that
//! found, told without chance; and the flow by itself.

mod alone;
mod retold;
mod simulation;

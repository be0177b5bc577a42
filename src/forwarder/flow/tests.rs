//! The flow against a model of the world around it, in virtual time and from seeds.

mod simulation;

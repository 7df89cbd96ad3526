//! Tests of the whole system and of its parts against the real services.

mod merge;
mod simulation;

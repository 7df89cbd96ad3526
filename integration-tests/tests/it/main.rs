//! Tests of the whole system and of its parts against the real services.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test says what is wrong by failing"
)]

mod alone;
mod apart;
mod batch;
mod bytes;
mod cli;
mod clients;
mod deploy;
mod differ;
mod documents;
mod failed;
mod full;
mod hostile;
mod kafka;
mod keys;
mod lost;
mod merge;
mod page;
mod plans;
mod security;
mod signals;
mod simulation;
mod speed;
mod sql;
mod start;
mod system;

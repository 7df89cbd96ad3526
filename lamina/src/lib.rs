//! Lamina's command line, and all three layers in one process.
//!
//! In reading order: [`lock`] holds the data folder, [`assembly`] starts the layers, [`demo`] feeds
//! them, [`client`] talks to a running Lamina, and [`token`] makes tokens for those who do.

pub mod assembly;
pub mod check;
pub mod client;
pub mod demo;
pub mod lock;
pub mod token;

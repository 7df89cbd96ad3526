//! Lamina's serving layer: merges batch views and speed states on every query, and answers over HTTP.
//!
//! In reading order: [`stamp`] says which prefix of the log an answer is of, [`engine`] answers queries, and [`http`]
//! speaks for it.

pub mod engine;
pub mod http;
pub mod stamp;

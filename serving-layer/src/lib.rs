//! Lamina's serving layer: merges batch views and speed states on every query, and answers over HTTP.
//!
//! In reading order: [`stamp`] says which prefix of the log an answer is of; [`published`] knows the batch view versions;
//! [`merged`] is a view as a table, merged at one head, with the help of [`touched`]; [`engine`] answers queries;
//! [`http`] speaks for it; [`deploy`] puts another catalog's engine in its place, and [`mend`] sees to damaged views.

pub mod deploy;
pub mod engine;
pub mod http;
pub mod mend;
mod merged;
pub mod published;
pub mod remote;
pub mod stamp;
mod touched;

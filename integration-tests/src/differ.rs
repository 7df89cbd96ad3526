//! The differential tester: random catalogs, values, cuts and queries, against engines that are not ours.
//!
//! A seed draws a [`plan::Plan`]: views over a dataset of every type, events, what happens to the layers, and queries.
//! A [`trial`] runs it and holds each answer to PostgreSQL and DuckDB (`reference.py` decodes the events itself), to the
//! view's SQL over the plain events, and to the same query after a recompute. What differs is cut down ([`shrink`]).

mod compare;
pub mod differences;
pub mod features;
mod ops;
mod plan;
mod query;
mod reference;
mod rounds;
mod shrink;
mod sql;
mod trial;
mod values;

pub use rounds::{Rounds, Tally};

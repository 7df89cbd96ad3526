//! The benchmark: what Lamina costs beside the floors that nobody gets under on this machine, in one run.

pub mod build;
pub mod catalog;
pub mod floors;
pub mod ingest;
pub mod queries;
pub mod recompute;
pub mod report;
pub mod scale;

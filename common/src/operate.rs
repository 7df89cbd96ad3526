//! What the serving layer asks of the batch layer: work on demand.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::{
    fault::{Domain, Fault},
    jobs::Job,
};

/// The batch layer, as its operators reach it.
#[async_trait]
pub trait BatchLayer: Send + Sync + Debug {
    /// Starts a full recompute of `view`.
    async fn recompute(&self, view: &str) -> Result<Job, Error>;

    /// The newest jobs first, at most `limit`.
    async fn jobs(&self, limit: usize) -> Result<Vec<Job>, Error>;

    /// One job.
    async fn job(&self, id: &str) -> Result<Job, Error>;
}

/// Why the batch layer does not do it.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each field is")]
pub enum Error {
    #[error("there is no view `{view}`")]
    UnknownView { view: String },
    #[error("there is no job `{id}`")]
    UnknownJob { id: String },
    #[error("view `{view}` is being recomputed already, by job `{id}`")]
    Running { view: String, id: String },
    #[error("the batch layer cannot be reached")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Fault for Error {
    fn domain(&self) -> Domain {
        match self {
            Self::UnknownView { .. } | Self::UnknownJob { .. } | Self::Running { .. } => Domain::User,
            Self::Unavailable(_) => Domain::External,
        }
    }
}

//! What the serving layer asks of the batch layer: work on demand.

use std::fmt::Debug;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    fault::{Domain, Fault, chain},
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

    /// What it tries again and again at the moment, with the reason, as far as that is known here.
    fn troubles(&self) -> Vec<String> {
        Vec::new()
    }
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

/// An [`Error`] on its way from the batch layer to the serving layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "as in `Error`")]
pub enum Refusal {
    UnknownView { view: String },
    Running { view: String, id: String },
    Unavailable { reason: String },
}

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Self {
        match error {
            Error::UnknownView { view } => Self::UnknownView { view: view.clone() },
            Error::Running { view, id } => Self::Running { view: view.clone(), id: id.clone() },
            other => Self::Unavailable { reason: chain(other) },
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::UnknownView { view } => Self::UnknownView { view },
            Refusal::Running { view, id } => Self::Running { view, id },
            Refusal::Unavailable { reason } => Self::Unavailable(reason.into()),
        }
    }
}

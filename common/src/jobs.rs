//! Records of recomputes, kept in the object store so that they outlive the process.

use serde::{Deserialize, Serialize};

use crate::position::Frontier;

/// One piece of the batch layer's work, as `/v1/jobs` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// A UUID whose order is the order of creation.
    pub id: String,
    /// The view it works on.
    pub view: String,
    /// The view's definition.
    pub definition: String,
    /// What it does.
    pub kind: Kind,
    /// How far it has come.
    pub state: State,
    /// The share that is done, 0 to 1.
    pub progress: f64,
    /// The cut that it works towards: announced before the first row is read.
    pub cut: Option<Frontier>,
    /// The batch view version that it published; `None` also when there was nothing new to publish.
    pub batch_version: Option<i64>,
    /// Why it failed.
    pub error: Option<String>,
    /// When it was asked for, RFC 3339.
    pub created_at: String,
    /// When it began, RFC 3339.
    pub started_at: Option<String>,
    /// When it ended, RFC 3339.
    pub ended_at: Option<String>,
    /// The process that runs it.
    pub owner: String,
    /// When that process last said that it is at it, milliseconds since 1970.
    pub heartbeat_ms: i64,
}

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Recompute of a view from the whole master dataset, on its schedule.
    ScheduledRecompute,
    /// The same, because somebody asked.
    Recompute,
}

/// How far a job has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waiting for its turn.
    Queued,
    /// At work.
    Running,
    /// Done.
    Succeeded,
    /// Given up; `error` says why.
    Failed,
}

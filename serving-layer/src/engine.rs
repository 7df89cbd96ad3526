//! Queries: each is frozen at one head, merged, planned and run.

use std::{collections::BTreeMap, time::Duration};

use common::{
    fault::{Domain, Fault},
    position::Frontier,
};
use datafusion::physical_plan::SendableRecordBatchStream;

use crate::stamp::Stamp;

/// Answers queries over views and datasets.
#[derive(Debug)]
pub struct Engine {}

/// What a query may demand.
#[derive(Clone, Debug)]
pub struct Options {
    /// By dataset, a frontier that the answer's head must cover.
    pub min_position: BTreeMap<String, Frontier>,
    /// How long to wait for it.
    pub wait: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { min_position: BTreeMap::new(), wait: Duration::from_secs(10) }
    }
}

/// An answer that is still being computed.
pub struct Answer {
    /// Its rows; an error in it ends the answer.
    pub rows: SendableRecordBatchStream,
    /// The prefix it is over.
    pub stamp: Stamp,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("stamp", &self.stamp).finish_non_exhaustive()
    }
}

/// A view as `/v1/views` shows it.
#[derive(Clone, Debug)]
pub struct ViewInfo {
    /// The view's name.
    pub name: String,
    /// Its dataset.
    pub dataset: String,
    /// Its definition.
    pub definition: String,
    /// Its SQL.
    pub sql: String,
    /// How often it is recomputed.
    pub refresh: Option<Duration>,
    /// Its columns.
    pub columns: datafusion::arrow::datatypes::SchemaRef,
    /// The newest batch view version; `None` before the first.
    pub batch_version: Option<i64>,
    /// Its cut.
    pub cut: Frontier,
    /// The speed layer's head; `None` while it cannot be answered.
    pub head: Option<Frontier>,
}

/// One published version of a view.
#[derive(Clone, Debug)]
pub struct VersionInfo {
    /// The batch view version.
    pub batch_version: i64,
    /// Its cut.
    pub cut: Frontier,
    /// When it was published, milliseconds since 1970.
    pub published_at_ms: i64,
    /// How many groups it has.
    pub rows: i64,
}

/// A dataset as `/v1/datasets` shows it.
#[derive(Clone, Debug)]
pub struct DatasetInfo {
    /// The dataset's name.
    pub name: String,
    /// Its columns as events have them.
    pub columns: datafusion::arrow::datatypes::SchemaRef,
    /// Its topic.
    pub topic: String,
    /// The log's first readable offsets; `None` when the log cannot be reached.
    pub log_start: Option<Frontier>,
    /// The log's next offsets; `None` when the log cannot be reached.
    pub log_end: Option<Frontier>,
    /// The master dataset's frontier.
    pub master_frontier: Frontier,
    /// The master dataset's Delta version.
    pub master_version: i64,
    /// Events in the master dataset.
    pub events: i64,
    /// Dead letters below the master's frontier.
    pub dead_letters: i64,
}

/// A dead letter as the API shows it.
#[derive(Clone, Debug)]
pub struct DeadLetterInfo {
    /// The partition.
    pub partition: common::position::Partition,
    /// The offset.
    pub offset: common::position::Offset,
    /// The log's own time, microseconds since 1970.
    pub timestamp_us: i64,
    /// Why it cannot be used.
    pub reason: String,
    /// Its bytes; `None` for a tombstone.
    pub raw: Option<Vec<u8>>,
}

impl Engine {
    /// Runs a read-only SQL query over views, or over datasets.
    pub async fn sql(&self, sql: &str, options: &Options) -> Result<Answer, Error> {
        let _ = (sql, options);
        todo!()
    }

    /// Rows of a view: `filters` are equalities on its columns, several values of one column mean IN. The values are
    /// text and are taken as the column's type.
    pub async fn rows(
        &self,
        view: &str,
        filters: &[(String, Vec<String>)],
        limit: usize,
        options: &Options,
    ) -> Result<Answer, Error> {
        let _ = (view, filters, limit, options);
        todo!()
    }

    /// All views, by name.
    pub async fn views(&self) -> Result<Vec<ViewInfo>, Error> {
        todo!()
    }

    /// One view and its newest published versions, newest first.
    pub async fn view(&self, view: &str) -> Result<(ViewInfo, Vec<VersionInfo>), Error> {
        let _ = view;
        todo!()
    }

    /// All datasets, by name.
    pub async fn datasets(&self) -> Result<Vec<DatasetInfo>, Error> {
        todo!()
    }

    /// One dataset.
    pub async fn dataset(&self, dataset: &str) -> Result<DatasetInfo, Error> {
        let _ = dataset;
        todo!()
    }

    /// The newest dead letters of a dataset, at most `limit`.
    pub async fn dead_letters(&self, dataset: &str, limit: usize) -> Result<Vec<DeadLetterInfo>, Error> {
        let _ = (dataset, limit);
        todo!()
    }

    /// `Ok` once every view of the catalog can be answered; else the reasons.
    pub async fn ready(&self) -> Result<(), Vec<String>> {
        todo!()
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each field is")]
pub enum Error {
    #[error("there is no {kind} `{name}`")]
    Unknown {
        /// `view`, `dataset`, `column` or `job`.
        kind: &'static str,
        name: String,
        /// Names like it.
        near: Vec<String>,
    },
    #[error("{reason}")]
    Refused {
        /// Why the query cannot be run, in the user's terms.
        reason: String,
        hint: Option<String>,
        /// Where in the SQL, both from 1.
        at: Option<(u64, u64)>,
    },
    #[error(transparent)]
    Speed(#[from] common::speed::Error),
    #[error("could not {action}")]
    Storage { action: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("the query failed")]
    Execution(#[source] datafusion::error::DataFusionError),
}

impl Fault for Error {
    fn domain(&self) -> Domain {
        match self {
            Self::Unknown { .. } | Self::Refused { .. } => Domain::User,
            Self::Speed(error) => error.domain(),
            Self::Storage { .. } => Domain::External,
            Self::Execution(_) => Domain::Internal,
        }
    }
}

//! The shapes of answers: what is written is what the OpenAPI document describes, from the same types.

use std::collections::BTreeMap;

use common::{
    fold,
    jobs::{Job, rfc3339},
    position::Frontier,
    values::sql_type_name,
};
use datafusion::arrow::datatypes::Schema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::engine::{DatasetInfo, DeadLetterInfo, VersionInfo, ViewInfo};

/// A position in the log: by dataset, the next offset of every partition.
type Position = BTreeMap<String, Frontier>;

/// A column.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"name": "total_amount", "type": "DECIMAL(22,2)"}))]
pub(super) struct Column {
    /// Its name.
    name: String,
    /// Its SQL type.
    r#type: String,
}

/// The columns of a schema.
pub(super) fn columns(schema: &Schema) -> Vec<Column> {
    let column = |name: &str, data_type| Column { name: name.to_owned(), r#type: sql_type_name(data_type) };
    schema.fields().iter().map(|field| column(field.name(), field.data_type())).collect()
}

/// A query.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"sql": "SELECT * FROM daily_sales ORDER BY day DESC LIMIT 7"}))]
pub(super) struct Query {
    /// Any read-only SQL, over views or over datasets.
    pub(super) sql: String,
    /// The answer waits until its head has reached this position.
    #[schema(value_type = Option<BTreeMap<String, BTreeMap<String, i64>>>, example = json!({"sales": {"0": 1204}}))]
    pub(super) min_position: Option<Position>,
    /// How long it waits at most, 10 seconds unless told, at most 5 minutes.
    #[schema(example = "10s")]
    pub(super) wait: Option<String>,
    /// Whether partitions that no worker of the speed layer holds may be left at the views' cuts. The stamp's `missing`
    /// then names them.
    #[serde(default)]
    pub(super) allow_partial: bool,
    /// The values of `$1`, `$2`, … in the SQL: as many as it has.
    #[serde(default)]
    #[schema(value_type = Vec<serde_json::Value>, example = json!([7, "eu"]))]
    pub(super) parameters: Vec<Box<serde_json::value::RawValue>>,
    /// `text` for decimals, and integers of more than 15 digits, as strings in a JSON or NDJSON answer: JavaScript and
    /// others that read numbers into doubles lose digits of them. `digits`, unless told, for numbers everywhere.
    #[schema(example = "text")]
    pub(super) numbers: Option<String>,
}

/// All views.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Views {
    /// By name.
    pub(super) views: Vec<ViewSummary>,
}

/// A view, in short.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "name": "daily_sales", "dataset": "sales", "definition": "5f0c6a1be2d94370", "batch_version": 3,
    "cut": {"0": 1040}, "head": {"0": 1203},
}))]
pub(super) struct ViewSummary {
    /// Its name.
    name: String,
    /// What it is a view of.
    dataset: String,
    /// A hash of everything that decides what its rows are.
    definition: String,
    /// The newest batch view version; null before the first.
    batch_version: Option<i64>,
    /// Where that version ends: by partition, the next offset.
    #[schema(value_type = BTreeMap<String, i64>)]
    cut: Frontier,
    /// Where an answer would end now; null while there is none.
    #[schema(value_type = Option<BTreeMap<String, i64>>)]
    head: Option<Frontier>,
}

impl From<&ViewInfo> for ViewSummary {
    fn from(view: &ViewInfo) -> Self {
        Self {
            name: view.name.clone(),
            dataset: view.dataset.clone(),
            definition: view.definition.clone(),
            batch_version: view.batch_version,
            cut: view.cut.clone(),
            head: view.head.clone(),
        }
    }
}

/// A view.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct View {
    #[serde(flatten)]
    summary: ViewSummary,
    /// Its columns.
    columns: Vec<Column>,
    /// Its query.
    sql: String,
    /// How often it is recomputed; `never` for only on demand.
    #[schema(example = "5m")]
    refresh: String,
    /// Its newest batch view versions, the newest first.
    history: Vec<Version>,
}

/// A batch view version.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "batch_version": 3, "cut": {"0": 1040}, "published_at": "2026-01-03T17:05:00.000Z", "rows": 412,
    "failed_events": 0, "failed_groups": 0,
}))]
struct Version {
    batch_version: i64,
    /// Where it ends.
    #[schema(value_type = BTreeMap<String, i64>)]
    cut: Frontier,
    /// RFC 3339.
    published_at: String,
    /// How many groups it has.
    rows: i64,
    /// How many events below its cut are in none of them because the view cannot be computed over them.
    failed_events: i64,
    /// Of how many groups something could not be computed, and is NULL.
    failed_groups: i64,
}

impl View {
    pub(super) fn new(view: &ViewInfo, history: Vec<VersionInfo>) -> Self {
        let version = |version: VersionInfo| Version {
            batch_version: version.batch_version,
            cut: version.cut,
            published_at: rfc3339(version.published_at_ms),
            rows: version.rows,
            failed_events: version.failed_events,
            failed_groups: version.failed_groups,
        };
        let refresh = view.refresh.map(|refresh| humantime::format_duration(refresh).to_string());
        Self {
            summary: view.into(),
            columns: columns(&view.columns),
            sql: view.sql.clone(),
            refresh: refresh.unwrap_or_else(|| "never".to_owned()),
            history: history.into_iter().map(version).collect(),
        }
    }
}

/// All datasets.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Datasets {
    /// By name.
    pub(super) datasets: Vec<Dataset>,
}

/// A dataset.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "name": "sales", "columns": [{"name": "product_id", "type": "BIGINT"}], "topic": "sales",
    "log": {"start": {"0": 0}, "end": {"0": 1203}}, "master": {"version": 9, "frontier": {"0": 1040}},
    "events": 1038, "dead_letters": 2,
}))]
pub(super) struct Dataset {
    /// Its name.
    name: String,
    /// What its events have.
    columns: Vec<Column>,
    /// Its topic in the log.
    topic: String,
    /// What the log has.
    log: LogBounds,
    /// What has been archived.
    master: Master,
    /// Events in the master dataset.
    events: i64,
    /// Events that could not be used.
    dead_letters: i64,
}

/// What the log has of a topic; both null while it cannot be reached.
#[derive(Debug, Serialize, ToSchema)]
struct LogBounds {
    /// The first offset that can be read, by partition.
    #[schema(value_type = Option<BTreeMap<String, i64>>)]
    start: Option<Frontier>,
    /// The next offset to be written, by partition.
    #[schema(value_type = Option<BTreeMap<String, i64>>)]
    end: Option<Frontier>,
}

/// How the master dataset stands.
#[derive(Debug, Serialize, ToSchema)]
struct Master {
    /// The Delta version.
    version: i64,
    /// Everything below is archived.
    #[schema(value_type = BTreeMap<String, i64>)]
    frontier: Frontier,
}

impl From<&DatasetInfo> for Dataset {
    fn from(dataset: &DatasetInfo) -> Self {
        Self {
            name: dataset.name.clone(),
            columns: columns(&dataset.columns),
            topic: dataset.topic.clone(),
            log: LogBounds { start: dataset.log_start.clone(), end: dataset.log_end.clone() },
            master: Master { version: dataset.master_version, frontier: dataset.master_frontier.clone() },
            events: dataset.events,
            dead_letters: dataset.dead_letters,
        }
    }
}

/// Events that could not be used.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeadLetters {
    /// The newest first.
    pub(super) dead_letters: Vec<DeadLetter>,
}

/// An event that could not be used.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "partition": 0, "offset": 17, "timestamp": "2026-01-03T17:05:00.000Z",
    "reason": "field `quantity` is missing", "raw": "e30=",
}))]
pub(super) struct DeadLetter {
    partition: i32,
    offset: i64,
    /// The log's own time, RFC 3339.
    timestamp: String,
    /// Why it could not be used.
    reason: String,
    /// Its bytes in base64; null for a tombstone.
    raw: Option<String>,
}

impl From<&DeadLetterInfo> for DeadLetter {
    fn from(letter: &DeadLetterInfo) -> Self {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        Self {
            partition: letter.partition,
            offset: letter.offset,
            timestamp: rfc3339(letter.timestamp_us.div_euclid(1000)),
            reason: letter.reason.clone(),
            raw: letter.raw.as_ref().map(|raw| STANDARD.encode(raw)),
        }
    }
}

/// Events that a view cannot be computed over.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FailedEvents {
    /// How many there are.
    pub(super) count: i64,
    /// The newest first.
    pub(super) failed_events: Vec<FailedEvent>,
}

/// An event that a view cannot be computed over: it is in none of its rows.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "partition": 0, "offset": 17, "timestamp": "2026-01-03T17:05:00.000Z",
    "reason": "`sales.amount / sales.quantity` cannot be computed (Arrow error: Divide by zero error) with \
               `quantity` = `0`, `amount` = `19.90`",
}))]
pub(super) struct FailedEvent {
    partition: i32,
    offset: i64,
    /// The log's own time, RFC 3339.
    timestamp: String,
    /// What could not be computed, and why.
    reason: String,
}

impl From<&fold::FailedEvent> for FailedEvent {
    fn from(event: &fold::FailedEvent) -> Self {
        Self {
            partition: event.partition,
            offset: event.offset,
            timestamp: rfc3339(event.timestamp_us.div_euclid(1000)),
            reason: event.reason.clone(),
        }
    }
}

/// What was written.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"accepted": 1, "frontier": {"sales": {"0": 1204}}}))]
pub(super) struct Accepted {
    /// How many events.
    pub(super) accepted: usize,
    /// The position that an answer must reach to have them in: a query's `min_position`.
    #[schema(value_type = BTreeMap<String, BTreeMap<String, i64>>)]
    pub(super) frontier: Position,
}

/// The newest jobs.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Jobs {
    /// The newest first.
    pub(super) jobs: Vec<JobRecord>,
}

/// A recompute of a view.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": "019b8524-6c1d-7a11-9b40-0b5f6a1c2d3e", "view": "daily_sales", "kind": "recompute", "state": "succeeded",
    "progress": 1.0, "batch_version": 4, "error": null, "cut": {"0": 1203}, "created_at": "2026-01-03T17:05:00.000Z",
    "started_at": "2026-01-03T17:05:00.002Z", "ended_at": "2026-01-03T17:05:01.730Z",
}))]
pub(super) struct JobRecord {
    /// In the order of creation.
    pub(super) id: String,
    view: String,
    #[schema(value_type = String, example = "recompute")]
    kind: common::jobs::Kind,
    #[schema(inline, value_type = JobState)]
    state: common::jobs::State,
    /// The share that is done, 0 to 1.
    progress: f64,
    /// What it published; null also when there was nothing new.
    batch_version: Option<i64>,
    /// Why it failed.
    error: Option<String>,
    /// Where the new version ends.
    #[schema(value_type = Option<BTreeMap<String, i64>>)]
    cut: Option<Frontier>,
    created_at: String,
    started_at: Option<String>,
    ended_at: Option<String>,
}

/// How far a job has come, for the document.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[allow(dead_code, reason = "it describes another crate's type")]
enum JobState {
    Queued,
    Running,
    Succeeded,
    Failed,
}

impl From<&Job> for JobRecord {
    fn from(job: &Job) -> Self {
        let job = job.clone();
        Self {
            id: job.id,
            view: job.view,
            kind: job.kind,
            state: job.state,
            progress: job.progress,
            batch_version: job.batch_version,
            error: job.error,
            cut: job.cut,
            created_at: job.created_at,
            started_at: job.started_at,
            ended_at: job.ended_at,
        }
    }
}

/// How the process is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Status {
    #[schema(example = "ok")]
    pub(super) status: &'static str,
}

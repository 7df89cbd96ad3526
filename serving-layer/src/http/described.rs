//! Shapes that are written piece by piece, or read as they are: types for the OpenAPI document only.

use std::collections::BTreeMap;

use utoipa::{IntoParams, ToSchema};

use super::dto::Column;

/// An event, or several.
#[derive(ToSchema)]
#[schema(example = json!([{"order_id": 1, "product_id": 7, "store": 3, "quantity": 2, "amount": 19.90,
                           "created_at": "2026-01-03T17:05:00Z"}]))]
#[serde(untagged)]
#[allow(dead_code, reason = "events are kept as they were sent")]
pub(super) enum Events {
    /// One event.
    One(BTreeMap<String, serde_json::Value>),
    /// Several events.
    Several(Vec<BTreeMap<String, serde_json::Value>>),
}

/// An answer.
#[derive(ToSchema)]
#[schema(example = json!({
    "columns": [{"name": "day", "type": "TIMESTAMP"}, {"name": "orders", "type": "BIGINT"}],
    "rows": [{"day": "2026-01-03T00:00:00", "orders": 412}],
    "stamp": {
        "head": {"sales": {"0": 1203}},
        "views": {"daily_sales": {"definition": "5f0c6a1be2d94370", "batch_version": 3, "cut": {"0": 1040}}},
        "freshness_ms": 12,
    },
}))]
#[allow(dead_code, reason = "answers are written as they are computed")]
pub(super) struct Answer {
    /// Its columns.
    columns: Vec<Column>,
    /// Its rows, each with all columns by name.
    rows: Vec<BTreeMap<String, serde_json::Value>>,
    stamp: Stamp,
}

/// Which exact prefix of the log an answer is over. Positions are next offsets by partition; one that is missing is 0.
#[derive(ToSchema)]
#[allow(dead_code, reason = "it describes `crate::stamp::Stamp`")]
pub(super) struct Stamp {
    /// By dataset: the answer is over exactly what is below.
    head: BTreeMap<String, BTreeMap<String, i64>>,
    /// By view, what the answer was made from.
    views: BTreeMap<String, ViewStamp>,
    /// The age of the oldest logged event that the answer lacks; 0 if it lacks none, null when that cannot be told.
    freshness_ms: Option<i64>,
    /// By dataset, why the head stands still: the answer is exact, and gets old. Only there when it does.
    stopped: Option<BTreeMap<String, String>>,
    /// By dataset, partitions that nobody held: the answer has of them what the batch views have. Only there when the
    /// query allowed it and it came to that.
    missing: Option<BTreeMap<String, Vec<i32>>>,
}

/// What one view's part of an answer was made from.
#[derive(ToSchema)]
#[allow(dead_code, reason = "it describes `crate::stamp::ViewStamp`")]
pub(super) struct ViewStamp {
    /// The view's definition.
    definition: String,
    /// The batch view version; null before the first.
    batch_version: Option<i64>,
    /// Where that version ends and the speed layer's states begin.
    cut: BTreeMap<String, i64>,
    /// How many events below the head are in no row because the view cannot be computed over them; absent when none.
    failed_events: Option<i64>,
    /// Of how many groups that the answer asked for by their keys something could not be computed, and is NULL; absent
    /// when none. Of several reads of one view, that of the most.
    failed_groups: Option<i64>,
}

/// What went wrong (RFC 9457), with members for what it is about.
#[derive(ToSchema)]
#[allow(dead_code, reason = "problems are written member by member")]
pub(super) struct Problem {
    /// The kind.
    #[schema(example = "/problems/unknown-view")]
    r#type: String,
    /// The kind, in words.
    title: String,
    status: u16,
    /// What was attempted, and why it failed.
    detail: String,
    /// What to do about it.
    hint: String,
    /// Names like the one that there is not.
    near: Option<Vec<String>>,
    /// Where in the query or the body, from 1.
    line: Option<u64>,
    /// Where in the line, from 1.
    column: Option<u64>,
    /// Which of the events, from 0.
    record: Option<u64>,
    /// How many of the events cannot be used.
    failed: Option<u64>,
    /// Events that were written all the same.
    accepted: Option<u64>,
    /// The position below which those are.
    frontier: Option<BTreeMap<String, BTreeMap<String, i64>>>,
    /// How far the head has come.
    head: Option<BTreeMap<String, BTreeMap<String, i64>>>,
    /// How far it should have come.
    wanted: Option<BTreeMap<String, BTreeMap<String, i64>>>,
    /// The job that is at it.
    job: Option<String>,
    /// Why it is not ready.
    reasons: Option<Vec<String>>,
    /// The largest body that is taken.
    bytes_max: Option<u64>,
    /// The role that is needed.
    role: Option<String>,
    /// How many queries of one client are at work at once.
    queries_max: Option<u64>,
}

/// How many.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "it describes `super::datasets::Limit`")]
pub(super) struct Limit {
    /// How many at most; never more than 10,000.
    #[param(minimum = 0, maximum = 10_000, example = 20)]
    limit: Option<u64>,
}

/// What rows of a view are asked for. Every other parameter is an equality on the column of its name; repeated, it means IN.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "it describes what `super::query` reads one by one")]
pub(super) struct Rows {
    /// How many rows at most, 100 unless told.
    #[param(example = 20)]
    limit: Option<u64>,
    /// Equalities on columns, such as `product_id=7`.
    #[param(style = Form, explode = true, additional_properties = true, example = json!({"product_id": "7"}))]
    columns: BTreeMap<String, String>,
}

/// A query that stands in an address.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "it describes what `super::query` reads one by one")]
pub(super) struct Sql {
    /// Any read-only SQL, over views or over datasets.
    #[param(example = "SELECT * FROM daily_sales ORDER BY day DESC LIMIT 7")]
    sql: String,
    /// The values of `$1`, `$2`, … in the SQL: a JSON array.
    #[param(example = "[7, \"eu\"]")]
    parameters: Option<String>,
}

/// How a query in an address is to be answered.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "it describes `super::query::Asked`")]
pub(super) struct Asked {
    /// The answer waits until its head has reached this position: JSON.
    #[param(example = "{\"sales\": {\"0\": 1204}}")]
    min_position: Option<String>,
    /// How long it waits at most, 10 seconds unless told, at most 5 minutes.
    #[param(example = "10s")]
    wait: Option<String>,
    /// Whether partitions that no worker of the speed layer holds may be left at the views' cuts.
    #[param(example = false)]
    allow_partial: Option<bool>,
    /// `json`, `ndjson`, `csv` or `arrow`, whatever `Accept` says.
    #[param(example = "csv")]
    format: Option<String>,
    /// `text` for decimals, and integers of more than 15 digits, as strings in a JSON or NDJSON answer: JavaScript and
    /// others that read numbers into doubles lose digits of them. `digits`, unless told, for numbers everywhere.
    #[param(example = "text")]
    numbers: Option<String>,
}

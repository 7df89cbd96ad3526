//! Datasets and their dead letters.

use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use common::jobs::rfc3339;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Context, answer::columns, problem::Problem};
use crate::engine::DatasetInfo;

const LIMIT: usize = 20;
const LIMIT_MAX: usize = 10_000;

/// `GET /v1/datasets`.
pub(super) async fn list(State(context): State<Context>) -> Result<Json<Value>, Problem> {
    let datasets = context.engine.datasets().await?;
    Ok(Json(json!({"datasets": datasets.iter().map(info).collect::<Vec<_>>()})))
}

/// `GET /v1/datasets/{dataset}`.
pub(super) async fn one(State(context): State<Context>, Path(dataset): Path<String>) -> Result<Json<Value>, Problem> {
    Ok(Json(info(&context.engine.dataset(&dataset).await?)))
}

fn info(dataset: &DatasetInfo) -> Value {
    json!({
        "name": dataset.name, "columns": columns(&dataset.columns), "topic": dataset.topic,
        "log": {"start": dataset.log_start, "end": dataset.log_end},
        "master": {"version": dataset.master_version, "frontier": dataset.master_frontier},
        "events": dataset.events, "dead_letters": dataset.dead_letters,
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limit {
    limit: Option<usize>,
}

impl Limit {
    pub(super) fn or(&self, default: usize) -> usize {
        self.limit.unwrap_or(default).min(LIMIT_MAX)
    }
}

/// `GET /v1/datasets/{dataset}/dead_letters`.
pub(super) async fn dead_letters(
    State(context): State<Context>,
    Path(dataset): Path<String>,
    limit: Result<Query<Limit>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(limit) = limit?;
    let letters = context.engine.dead_letters(&dataset, limit.or(LIMIT)).await?;
    let letters: Vec<Value> = letters
        .iter()
        .map(|letter| {
            json!({
                "partition": letter.partition, "offset": letter.offset,
                "timestamp": rfc3339(letter.timestamp_us.div_euclid(1000)), "reason": letter.reason,
                "raw": letter.raw.as_ref().map(|raw| STANDARD.encode(raw)),
            })
        })
        .collect();
    Ok(Json(json!({"dead_letters": letters})))
}

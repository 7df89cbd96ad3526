//! Datasets and their dead letters.

use std::time::Duration;

use axum::{Json, extract::State};
use serde::Deserialize;

use super::{
    Context,
    access::Client,
    described, dto,
    extract::{Name, Parameters},
    problem::Problem,
};

pub(super) const LIMIT: usize = 20;
const LIMIT_MAX: usize = 10_000;

/// `GET /v1/datasets`.
#[utoipa::path(
    get, path = "/v1/datasets", operation_id = "list_datasets", tag = "datasets", summary = "All datasets",
    responses((status = 200, description = "By name", body = dto::Datasets))
)]
pub(super) async fn list(State(context): State<Context>, client: Client) -> Result<Json<dto::Datasets>, Problem> {
    let datasets = context.engine.datasets(client.scope()).await?;
    Ok(Json(dto::Datasets { datasets: datasets.iter().map(Into::into).collect() }))
}

/// `GET /v1/datasets/{dataset}`.
#[utoipa::path(
    get, path = "/v1/datasets/{dataset}", operation_id = "get_dataset", tag = "datasets", summary = "One dataset",
    params(("dataset" = String, Path, example = "sales")),
    responses((status = 200, description = "The dataset", body = dto::Dataset))
)]
pub(super) async fn one(
    State(context): State<Context>,
    client: Client,
    Name(dataset): Name,
) -> Result<Json<dto::Dataset>, Problem> {
    Ok(Json((&context.engine.dataset(&dataset, client.scope()).await?).into()))
}

/// How many are asked for.
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
#[utoipa::path(
    get, path = "/v1/datasets/{dataset}/dead_letters", operation_id = "list_dead_letters", tag = "datasets",
    summary = "The newest events that could not be used, 20 unless told",
    params(("dataset" = String, Path, example = "sales"), described::Limit),
    responses((status = 200, description = "The newest first", body = dto::DeadLetters))
)]
pub(super) async fn dead_letters(
    State(context): State<Context>,
    client: Client,
    Name(dataset): Name,
    Parameters(limit): Parameters<Limit>,
) -> Result<Json<dto::DeadLetters>, Problem> {
    let work = client.begin(Duration::ZERO)?;
    let letters = work.within(context.engine.dead_letters(&dataset, limit.or(LIMIT), client.scope())).await??;
    Ok(Json(dto::DeadLetters { dead_letters: letters.iter().map(Into::into).collect() }))
}

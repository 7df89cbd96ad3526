//! Recomputes on demand, and the records of jobs.

use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use common::jobs::Job;
use serde_json::{Value, json};

use super::{Context, datasets::Limit, problem::Problem};

const LIMIT: usize = 50;

fn record(job: &Job) -> Value {
    json!({
        "id": job.id, "view": job.view, "kind": job.kind, "state": job.state, "progress": job.progress,
        "batch_version": job.batch_version, "error": job.error, "cut": job.cut, "created_at": job.created_at,
        "started_at": job.started_at, "ended_at": job.ended_at,
    })
}

/// `POST /v1/views/{view}/recompute`.
pub(super) async fn recompute(State(context): State<Context>, Path(view): Path<String>) -> Result<Response, Problem> {
    if !context.catalog.views.contains_key(&view) {
        let names = context.catalog.views.keys().map(String::as_str);
        let near = common::catalog::near::near(&view, names).into_iter().map(str::to_owned).collect();
        return Err(Problem::unknown("view", &view, near));
    }
    let job = context.batch.recompute(&view).await?;
    let location = [(header::LOCATION, format!("/v1/jobs/{}", job.id))];
    Ok((StatusCode::ACCEPTED, location, Json(record(&job))).into_response())
}

/// `GET /v1/jobs`.
pub(super) async fn list(
    State(context): State<Context>,
    limit: Result<Query<Limit>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(limit) = limit?;
    let jobs = context.batch.jobs(limit.or(LIMIT)).await?;
    Ok(Json(json!({"jobs": jobs.iter().map(record).collect::<Vec<_>>()})))
}

/// `GET /v1/jobs/{id}`.
pub(super) async fn one(State(context): State<Context>, Path(id): Path<String>) -> Result<Json<Value>, Problem> {
    Ok(Json(record(&context.batch.job(&id).await?)))
}

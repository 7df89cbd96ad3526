//! Recomputes on demand, and the records of jobs.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{
    Context,
    access::Client,
    datasets::Limit,
    described, dto,
    extract::{Name, Parameters},
    problem::Problem,
};

const LIMIT: usize = 50;

/// `POST /v1/views/{view}/recompute`.
#[utoipa::path(
    post, path = "/v1/views/{view}/recompute", operation_id = "recompute_view", tag = "views",
    summary = "Recompute a view from the master dataset",
    params(("view" = String, Path, example = "daily_sales")),
    responses((
        status = 202, description = "The job that does it", body = dto::JobRecord,
        headers(("Location" = String, description = "Where the job is, such as `/v1/jobs/…`")),
    ))
)]
pub(super) async fn recompute(
    State(context): State<Context>,
    client: Client,
    Name(view): Name,
) -> Result<Response, Problem> {
    let views = || context.catalog.views.keys().filter(|view| client.scope().views.allow(view));
    if !views().any(|there_is| *there_is == view) {
        return Err(Problem::not_among("view", &view, views()));
    }
    let job = dto::JobRecord::from(&context.batch.recompute(&view).await?);
    let location = [(header::LOCATION, format!("/v1/jobs/{}", job.id))];
    Ok((StatusCode::ACCEPTED, location, Json(job)).into_response())
}

/// `GET /v1/jobs`.
#[utoipa::path(
    get, path = "/v1/jobs", operation_id = "list_jobs", tag = "jobs", summary = "The newest jobs, 50 unless told",
    params(described::Limit),
    responses((status = 200, description = "The newest first", body = dto::Jobs))
)]
pub(super) async fn list(
    State(context): State<Context>,
    client: Client,
    Parameters(limit): Parameters<Limit>,
) -> Result<Json<dto::Jobs>, Problem> {
    let mut jobs = context.batch.jobs(limit.or(LIMIT)).await?;
    jobs.retain(|job| client.scope().views.allow(&job.view));
    Ok(Json(dto::Jobs { jobs: jobs.iter().map(Into::into).collect() }))
}

/// `GET /v1/jobs/{id}`.
#[utoipa::path(
    get, path = "/v1/jobs/{id}", operation_id = "get_job", tag = "jobs", summary = "One job",
    params(("id" = String, Path, example = "019b8524-6c1d-7a11-9b40-0b5f6a1c2d3e")),
    responses((status = 200, description = "The job", body = dto::JobRecord))
)]
pub(super) async fn one(
    State(context): State<Context>,
    client: Client,
    Name(id): Name,
) -> Result<Json<dto::JobRecord>, Problem> {
    let job = context.batch.job(&id).await?;
    match client.scope().views.allow(&job.view) {
        true => Ok(Json((&job).into())),
        false => Err(Problem::unknown("job", &id, Vec::new())),
    }
}

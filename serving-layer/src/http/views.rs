//! Views.

use std::time::Duration;

use axum::{Json, extract::State};

use super::{
    Context,
    access::Client,
    datasets::{LIMIT, Limit},
    described, dto,
    extract::{Name, Parameters},
    problem::Problem,
};

/// `GET /v1/views`.
#[utoipa::path(
    get, path = "/v1/views", operation_id = "list_views", tag = "views", summary = "All views",
    responses((status = 200, description = "By name", body = dto::Views))
)]
pub(super) async fn list(State(context): State<Context>, client: Client) -> Result<Json<dto::Views>, Problem> {
    let views = context.engine.views(client.scope()).await?;
    Ok(Json(dto::Views { views: views.iter().map(Into::into).collect() }))
}

/// `GET /v1/views/{view}`.
#[utoipa::path(
    get, path = "/v1/views/{view}", operation_id = "get_view", tag = "views",
    summary = "One view, its columns and its published versions",
    params(("view" = String, Path, example = "daily_sales")),
    responses((status = 200, description = "The view", body = dto::View))
)]
pub(super) async fn one(
    State(context): State<Context>,
    client: Client,
    Name(view): Name,
) -> Result<Json<dto::View>, Problem> {
    let (view, history) = context.engine.view(&view, client.scope()).await?;
    Ok(Json(dto::View::new(&view, history)))
}

/// `GET /v1/views/{view}/failed_events`.
#[utoipa::path(
    get, path = "/v1/views/{view}/failed_events", operation_id = "list_failed_events", tag = "views",
    summary = "The newest events that are in no row of the view because it cannot be computed over them, 20 unless told",
    description = "All are counted; some hundred of the newest are kept with their reasons. Other views have them.",
    params(("view" = String, Path, example = "daily_sales"), described::Limit),
    responses((status = 200, description = "The newest first", body = dto::FailedEvents))
)]
pub(super) async fn failed_events(
    State(context): State<Context>,
    client: Client,
    Name(view): Name,
    Parameters(limit): Parameters<Limit>,
) -> Result<Json<dto::FailedEvents>, Problem> {
    let work = client.begin(Duration::ZERO)?;
    let failed = work.within(context.engine.failed_events(&view, client.scope())).await??;
    let failed_events = failed.newest(limit.or(LIMIT)).iter().map(Into::into).collect();
    Ok(Json(dto::FailedEvents { count: failed.count(), failed_events }))
}

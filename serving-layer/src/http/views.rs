//! Views.

use axum::{Json, extract::State};

use super::{Context, access::Client, dto, extract::Name, problem::Problem};

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

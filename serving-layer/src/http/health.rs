//! Health and metrics.

use axum::{Json, extract::State, response::Response};
use common::{access::Role, web};

use super::{
    Context,
    access::Anyone,
    dto,
    problem::{Kind, Problem},
};

/// `GET /healthz`.
#[utoipa::path(
    get, path = "/healthz", operation_id = "health", tag = "operation", summary = "Whether the process answers",
    responses((status = 200, description = "It does", body = dto::Status))
)]
pub(super) async fn healthz() -> Json<dto::Status> {
    Json(dto::Status { status: "ok" })
}

/// `GET /readyz`.
#[utoipa::path(
    get, path = "/readyz", operation_id = "readiness", tag = "operation",
    summary = "Whether every view can be answered",
    description = "A view that cannot be computed wherever it is asked for does not count. Where tokens are asked for, why not is told to those who have the role `operate`.",
    responses((status = 200, description = "Every view can", body = dto::Status, example = json!({"status": "ready"})))
)]
pub(super) async fn readyz(
    State(context): State<Context>,
    Anyone(client): Anyone,
) -> Result<Json<dto::Status>, Problem> {
    match context.engine.ready().await {
        Ok(()) => Ok(Json(dto::Status { status: "ready" })),
        // The reasons name views and datasets.
        Err(_) if !client.is_some_and(|client| client.has(Role::Operate)) => {
            Err(Problem::new(Kind::NotReady, "some views cannot be answered"))
        }
        Err(reasons) => Err(Problem::new(Kind::NotReady, reasons.join("; ")).member("reasons", reasons)),
    }
}

/// `GET /metrics`.
#[utoipa::path(
    get, path = "/metrics", operation_id = "metrics", tag = "operation", summary = "Metrics in Prometheus' text format",
    responses((status = 200, description = "All metrics", body = String, content_type = "text/plain"))
)]
pub(super) async fn metrics(State(context): State<Context>) -> Result<Response, Problem> {
    web::metrics(&context.registry)
        .map_err(|error| Problem::new(Kind::Internal, format!("could not write the metrics: {error}")))
}

//! Health and metrics.

use std::time::Duration;

use axum::{Json, extract::State, response::Response};
use common::{access::Role, web};

use super::{
    Context,
    access::{Anyone, Client},
    dto,
    problem::{Kind, Problem},
};

/// Whoever asks whether it is ready hears so within a second, whatever hangs.
const WITHIN: Duration = Duration::from_millis(900);
const HANGS: &str = "the speed layer or the store did not say within 900 ms what there is";

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
    let ready = tokio::time::timeout(WITHIN, context.engine.ready()).await;
    let mut reasons = ready.unwrap_or_else(|_| Err(vec![HANGS.to_owned()])).err().unwrap_or_default();
    reasons.extend(context.batch.troubles());
    if reasons.is_empty() {
        return Ok(Json(dto::Status { status: "ready" }));
    }
    // The reasons name views and datasets.
    if !client.is_some_and(|client| client.has(Role::Operate)) {
        return Err(Problem::new(Kind::NotReady, "some views cannot be answered"));
    }
    Err(Problem::new(Kind::NotReady, reasons.join("; ")).member("reasons", reasons))
}

/// `GET /metrics`.
#[utoipa::path(
    get, path = "/metrics", operation_id = "metrics", tag = "operation", summary = "Metrics in Prometheus' text format",
    responses((status = 200, description = "All metrics", body = String, content_type = "text/plain"))
)]
pub(super) async fn metrics(State(context): State<Context>, client: Client) -> Result<Response, Problem> {
    let scope = client.scope();
    let may_show = |label: &str, name: &str| match label {
        "view" => scope.views.allow(name),
        "dataset" => scope.datasets.allow(name),
        _ => true,
    };
    web::metrics(&context.registry, may_show)
        .map_err(|error| Problem::new(Kind::Internal, format!("could not write the metrics: {error}")))
}

//! Health and metrics.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use prometheus::TextEncoder;
use serde_json::{Value, json};

use super::{Context, problem::Problem};

/// `GET /healthz`.
pub(super) async fn healthz() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// `GET /readyz`.
pub(super) async fn readyz(State(context): State<Context>) -> Result<Json<Value>, Problem> {
    match context.engine.ready().await {
        Ok(()) => Ok(Json(json!({"status": "ready"}))),
        Err(reasons) => {
            let detail = reasons.join("; ");
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", "not every view can be answered", detail)
                .hint("it is ready once every view can be answered; wait, or see the server's log")
                .member("reasons", reasons)
                .member("ready", false))
        }
    }
}

/// `GET /metrics`.
pub(super) async fn metrics(State(context): State<Context>) -> Result<Response, Problem> {
    let text = TextEncoder::new().encode_to_string(&context.registry.gather()).map_err(|error| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Lamina failed", error.to_string())
    })?;
    Ok(([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response())
}

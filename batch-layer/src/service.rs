//! The batch layer as a service: what the serving layer asks of it over HTTP.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::post,
};
use common::{
    access::Shared,
    operate::{BatchLayer, Refusal},
};

/// The routes, for whoever has the `secret`; for everyone without.
pub fn router(batch: Arc<dyn BatchLayer>, secret: Option<Shared>) -> Router {
    Router::new()
        .route("/v1/views/{view}/recompute", post(recompute))
        .layer(middleware::from_fn_with_state(secret, admit))
        .with_state(batch)
}

async fn admit(State(secret): State<Option<Shared>>, request: Request, next: Next) -> Response {
    let presented = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match &secret {
        Some(secret) if !secret.admits(presented) => {
            let reason = "the layers' shared secret is missing or another one: set `secret` alike".to_owned();
            (StatusCode::UNAUTHORIZED, Json(Refusal::Unavailable { reason })).into_response()
        }
        _ => next.run(request).await,
    }
}

async fn recompute(State(batch): State<Arc<dyn BatchLayer>>, Path(view): Path<String>) -> Response {
    match batch.recompute(&view).await {
        Ok(job) => (StatusCode::ACCEPTED, Json(job)).into_response(),
        Err(error) => {
            let refusal = Refusal::from(&error);
            let status = match refusal {
                Refusal::UnknownView { .. } => StatusCode::NOT_FOUND,
                Refusal::Running { .. } => StatusCode::CONFLICT,
                Refusal::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            };
            (status, Json(refusal)).into_response()
        }
    }
}

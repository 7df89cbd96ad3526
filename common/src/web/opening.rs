//! A server that answers from its first moment on: until the layer behind it is there, with what it is about.

use std::sync::{Arc, PoisonError, RwLock};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::Method,
    middleware,
    response::{IntoResponse, Response},
};
use tower::ServiceExt;

use super::{
    bodies, guard,
    listen::answer,
    refusal::{Refusal, STARTING},
};
use crate::supervisor::Supervisor;

/// A server whose layer is still starting.
#[derive(Clone, Debug)]
pub struct Opening(Arc<RwLock<Stand>>);

/// How far it has come.
#[derive(Clone, Debug)]
enum Stand {
    /// What it is about.
    Starting(String),
    /// It has come.
    Open(Router),
}

/// Answers at `listener` from now on, until told to stop: `/healthz` at once, and everything else once there is
/// something to answer it.
pub fn open(listener: tokio::net::TcpListener, front: super::Front, supervisor: &Supervisor) -> Opening {
    let opening = Opening(Arc::new(RwLock::new(Stand::Starting("it has just begun".to_owned()))));
    let router = Router::new()
        .fallback(forward)
        .layer(middleware::from_fn_with_state(front.bodies.clone(), bodies::watch))
        .layer(middleware::from_fn_with_state(front.hosts.clone(), guard::check))
        .with_state(opening.clone());
    let stop = supervisor.cancelled();
    supervisor.spawn("http server", async move {
        answer(listener, front, router, stop).await;
        Ok::<(), std::convert::Infallible>(())
    });
    opening
}

impl Opening {
    /// Says what the start is about from now on.
    pub fn says(&self, what: impl Into<String>) {
        self.set(Stand::Starting(what.into()));
    }

    /// Answers with `router` from now on.
    pub fn answer(&self, router: Router) {
        self.set(Stand::Open(router));
    }

    fn set(&self, stand: Stand) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = stand;
    }
}

async fn forward(State(Opening(stand)): State<Opening>, request: Request) -> Response {
    let stand = stand.read().unwrap_or_else(PoisonError::into_inner).clone();
    let why = match stand {
        Stand::Open(router) => match router.oneshot(request).await {
            Ok(response) => return response,
            Err(never) => match never {},
        },
        Stand::Starting(why) => why,
    };
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/healthz") => Json(serde_json::json!({"status": "starting"})).into_response(),
        _ => Refusal::new(&STARTING, format!("it is starting: {why}")).member("starting", true).into_response(),
    }
}

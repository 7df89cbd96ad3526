//! The HTTP API. Only this module and those below it know wire formats.

use std::sync::{Arc, PoisonError, RwLock};

use axum::{
    Router,
    extract::{FromRef, Request, State},
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};
use common::{
    access::{Limits, Tokens},
    catalog::Catalog,
    clock::Clock,
    log::Log,
    operate::BatchLayer,
    renewed::Renewed,
};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

use crate::engine::Engine;

mod access;
mod answer;
mod datasets;
mod described;
mod dto;
mod events;
mod extract;
mod health;
mod jobs;
mod lanes;
mod limits;
mod negotiate;
mod openapi;
mod page;
pub mod problem;
mod query;
mod views;

/// Requests, by route and status.
pub const REQUESTS: &str = "lamina_serving_http_requests_total";
/// Time until an answer's head is sent, in seconds, by route and status.
pub const REQUEST_SECONDS: &str = "lamina_serving_http_request_seconds";

/// Queries that were given up on, and are still at work.
pub const FROZEN: &str = "lamina_serving_queries_frozen";
/// Queries that did not stop when they were given up on.
pub const GIVEN_UP: &str = "lamina_serving_queries_given_up_total";

/// What the API speaks for.
#[derive(Clone, Debug)]
pub struct Context {
    /// Answers queries.
    pub engine: Arc<Engine>,
    /// The datasets and views.
    pub catalog: Arc<Catalog>,
    /// Where events go.
    pub log: Arc<dyn Log>,
    /// Does work on demand.
    pub batch: Arc<dyn BatchLayer>,
    /// What `/metrics` shows.
    pub registry: Registry,
    /// The largest body that is taken, in bytes.
    pub body_bytes_max: usize,
    /// Who may ask; `None` lets everyone do everything.
    pub tokens: Option<Renewed<Tokens>>,
    /// What one client may use.
    pub limits: Limits,
    /// So many proxies say in `x-forwarded-for` whom they ask for.
    pub proxies: usize,
    /// The time, to tell which tokens have expired.
    pub clock: Arc<dyn Clock>,
}

/// What the API speaks for at present. Clones share it: another catalog's engine takes the place of the one before
/// between two requests.
#[derive(Clone, Debug)]
pub struct Current(Arc<RwLock<Context>>);

impl Current {
    /// Speaks for this from now on.
    pub fn switch(&self, engine: Arc<Engine>) {
        let mut context = self.0.write().unwrap_or_else(PoisonError::into_inner);
        context.catalog = engine.catalog().clone();
        context.engine = engine;
    }

    /// What it speaks for.
    pub fn context(&self) -> Context {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl From<Context> for Current {
    fn from(context: Context) -> Self {
        Self(Arc::new(RwLock::new(context)))
    }
}

/// Each request takes what is there when it comes, and keeps that to its end.
impl FromRef<Current> for Context {
    fn from_ref(current: &Current) -> Self {
        current.context()
    }
}

#[derive(Clone, Debug)]
struct Metrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
    at_work: limits::AtWork,
}

impl Metrics {
    fn new(registry: &Registry, at_work: limits::AtWork) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(Opts::new(REQUESTS, "Requests by route and status"), &["route", "status"])?;
        let buckets = prometheus::exponential_buckets(0.0005, 2.0, 16)?;
        let options = HistogramOpts::new(REQUEST_SECONDS, "Time until an answer begins").buckets(buckets);
        let seconds = HistogramVec::new(options, &["route", "status"])?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(Self { requests, seconds, at_work })
    }
}

/// All routes.
pub fn router(current: impl Into<Current>) -> Result<Router, prometheus::Error> {
    let current = current.into();
    let context = current.context();
    let parallelism = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let at_work = limits::AtWork::new(lanes::Lanes::new(parallelism, &context.registry)?);
    let metrics = Metrics::new(&context.registry, at_work.clone())?;
    let gate = access::Gate {
        tokens: context.tokens.clone(),
        clock: context.clock.clone(),
        limits: Arc::new(context.limits.clone()),
        proxies: context.proxies,
        at_work: at_work.clone(),
    };
    let routes = Router::new()
        .route("/", get(page::page))
        .route("/v1/sql", get(query::sql_by_address).post(query::sql))
        .route("/v1/views", get(views::list))
        .route("/v1/views/{view}", get(views::one))
        .route("/v1/views/{view}/rows", get(query::rows))
        .route("/v1/views/{view}/failed_events", get(views::failed_events))
        .route("/v1/views/{view}/recompute", post(jobs::recompute))
        .route("/v1/datasets", get(datasets::list))
        .route("/v1/datasets/{dataset}", get(datasets::one))
        .route("/v1/datasets/{dataset}/dead_letters", get(datasets::dead_letters))
        .route("/v1/datasets/{dataset}/events", post(events::append))
        .route("/v1/jobs", get(jobs::list))
        .route("/v1/jobs/{id}", get(jobs::one))
        .route("/v1/openapi.json", get(openapi::document))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .fallback(problem::no_route)
        .method_not_allowed_fallback(problem::no_method)
        .layer(middleware::from_fn_with_state(gate, access::admit))
        .layer(middleware::from_fn_with_state(metrics, observe))
        .with_state(current);
    Ok(routes)
}

async fn observe(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let route =
        request.extensions().get::<axum::extract::MatchedPath>().map_or("other", |path| path.as_str()).to_owned();
    metrics.at_work.look();
    let began = std::time::Instant::now();
    let handled = std::panic::AssertUnwindSafe(next.run(request));
    let response = match futures::FutureExt::catch_unwind(handled).await {
        Ok(response) => response,
        Err(_) => problem::panicked(),
    };
    let status = response.status();
    let labels = [route.as_str(), status.as_str()];
    metrics.seconds.with_label_values(&labels).observe(began.elapsed().as_secs_f64());
    metrics.requests.with_label_values(&labels).inc();
    response
}

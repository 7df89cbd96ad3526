//! Queries: SQL, and rows of one view.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json,
    extract::{
        Path, Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
    http::HeaderMap,
    response::Response,
};
use common::position::Frontier;
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    Context,
    answer::{Format, respond},
    problem::Problem,
};
use crate::engine::Options;

const ROWS_LIMIT: usize = 100;
const WAIT_MAX: Duration = Duration::from_secs(300);

/// A query.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SqlRequest {
    /// Any read-only SQL over views, or over datasets.
    #[schema(example = "SELECT * FROM daily_sales ORDER BY day DESC LIMIT 7")]
    sql: String,
    /// The answer waits until its head has reached this position.
    #[schema(value_type = Option<Object>, example = json!({"sales": {"0": 1204}}))]
    min_position: Option<BTreeMap<String, Frontier>>,
    /// How long it waits at most, such as `10s`.
    wait: Option<String>,
}

/// `POST /v1/sql`.
pub(super) async fn sql(
    State(context): State<Context>,
    headers: HeaderMap,
    body: Result<Json<SqlRequest>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(request) = body?;
    let format = Format::of(&headers)?;
    let options = options(request.min_position, request.wait.as_deref())?;
    respond(context.engine.sql(&request.sql, &options).await?, format).await
}

/// `GET /v1/views/{view}/rows`.
pub(super) async fn rows(
    State(context): State<Context>,
    Path(view): Path<String>,
    headers: HeaderMap,
    parameters: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(parameters) = parameters?;
    let format = Format::of(&headers)?;
    let (mut limit, mut min_position, mut wait) = (ROWS_LIMIT, None, None);
    let mut filters: Vec<(String, Vec<String>)> = Vec::new();
    for (name, value) in parameters {
        match name.as_str() {
            "limit" => {
                limit =
                    value.parse().map_err(|_| Problem::bad_request(format!("`limit={value}` is no number of rows")))?;
            }
            "min_position" => {
                let parsed = serde_json::from_str(&value);
                min_position = Some(parsed.map_err(|error| {
                    Problem::bad_request(format!("`min_position={value}` is no position: {error}"))
                        .hint(r#"write it as JSON, such as {"sales": {"0": 1204}}"#)
                })?);
            }
            "wait" => wait = Some(value),
            _ => match filters.iter_mut().find(|(column, _)| *column == name) {
                Some((_, values)) => values.push(value),
                None => filters.push((name, vec![value])),
            },
        }
    }
    let options = options(min_position, wait.as_deref())?;
    respond(context.engine.rows(&view, &filters, limit, &options).await?, format).await
}

fn options(min_position: Option<BTreeMap<String, Frontier>>, wait: Option<&str>) -> Result<Options, Problem> {
    let mut options = Options { min_position: min_position.unwrap_or_default(), ..Options::default() };
    if let Some(wait) = wait {
        options.wait = humantime::parse_duration(wait)
            .map_err(|error| {
                Problem::bad_request(format!("`wait={wait}` is no time: {error}")).hint("write it such as `10s`")
            })?
            .min(WAIT_MAX);
    }
    Ok(options)
}

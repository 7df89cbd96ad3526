//! Queries: SQL, and rows of one view.

use std::{collections::BTreeMap, time::Duration};

use axum::{extract::State, http::HeaderMap, response::Response};
use common::position::Frontier;

use super::{
    Context,
    access::Client,
    answer::respond,
    described, dto,
    extract::{Json, Name, Parameters},
    negotiate::Format,
    problem::{Kind, Problem},
};
use crate::engine::Options;

const ROWS_LIMIT: usize = 100;
const WAIT_MAX: Duration = Duration::from_secs(300);

/// `POST /v1/sql`.
#[utoipa::path(
    post, path = "/v1/sql", operation_id = "query", tag = "queries",
    summary = "Run a read-only SQL query",
    description = "Any read-only SQL of DataFusion, `SHOW TABLES`, `DESCRIBE` and `information_schema` too. A query \
                   reads views, or datasets (the master dataset at its newest version), not both. An answer that fails \
                   after its first byte breaks the connection off: it never ends as if it were complete.",
    request_body(content = dto::Query, content_type = "application/json"),
    responses((
        status = 200, description = "The answer, in the format that `Accept` prefers",
        content(
            (described::Answer = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"),
            (String = "application/vnd.apache.arrow.stream"),
        ),
        headers(("Lamina-Stamp" = String, description = "The stamp as JSON, where the body has none")),
    ))
)]
pub(super) async fn sql(
    State(context): State<Context>,
    client: Client,
    headers: HeaderMap,
    Json(request): Json<dto::Query>,
) -> Result<Response, Problem> {
    let format = Format::of(&headers)?;
    let (length, longest) = (request.sql.len() as u64, client.limits().sql.as_u64());
    if length > longest {
        let detail = format!("the query is {length} bytes long, and at most {longest} are read");
        return Err(Problem::new(Kind::BadQuery, detail)
            .hint("send what it compares with as events, or raise the setting `serving.limits.sql`"));
    }
    let options = options(request.min_position, request.wait.as_deref(), request.allow_partial, &client)?;
    let work = client.begin(waits(&options))?;
    let answer = work.within(context.engine.sql(&request.sql, &options)).await??;
    respond(answer, format, work).await
}

/// `GET /v1/views/{view}/rows`.
#[utoipa::path(
    get, path = "/v1/views/{view}/rows", operation_id = "view_rows", tag = "queries",
    summary = "Rows of a view, in no order",
    params(("view" = String, Path, example = "product_sales"), described::Rows),
    responses((
        status = 200, description = "The answer, in the format that `Accept` prefers",
        content(
            (described::Answer = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"),
            (String = "application/vnd.apache.arrow.stream"),
        ),
        headers(("Lamina-Stamp" = String, description = "The stamp as JSON, where the body has none")),
    ))
)]
pub(super) async fn rows(
    State(context): State<Context>,
    client: Client,
    Name(view): Name,
    headers: HeaderMap,
    Parameters(parameters): Parameters<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    let format = Format::of(&headers)?;
    let wanted = Wanted::of(parameters)?;
    let options = options(wanted.min_position, wanted.wait.as_deref(), wanted.allow_partial, &client)?;
    let work = client.begin(waits(&options))?;
    let answer = work.within(context.engine.rows(&view, &wanted.filters, wanted.limit, &options)).await??;
    respond(answer, format, work).await
}

/// What the parameters of `rows` ask for.
#[derive(Debug, PartialEq)]
struct Wanted {
    filters: Vec<(String, Vec<String>)>,
    limit: usize,
    min_position: Option<BTreeMap<String, Frontier>>,
    wait: Option<String>,
    allow_partial: bool,
}

impl Wanted {
    fn of(parameters: Vec<(String, String)>) -> Result<Self, Problem> {
        let mut wanted =
            Self { filters: Vec::new(), limit: ROWS_LIMIT, min_position: None, wait: None, allow_partial: false };
        for (name, value) in parameters {
            match name.as_str() {
                "limit" => wanted.limit = value.parse().map_err(|_| no_limit(&value))?,
                "min_position" => {
                    let position = serde_json::from_str(&value);
                    wanted.min_position = Some(position.map_err(|error| no_position(&value, &error))?);
                }
                "wait" => wanted.wait = Some(value),
                "allow_partial" => wanted.allow_partial = value.parse().map_err(|_| no_flag(&value))?,
                _ => match wanted.filters.iter_mut().find(|(column, _)| *column == name) {
                    Some((_, values)) => values.push(value),
                    None => wanted.filters.push((name, vec![value])),
                },
            }
        }
        Ok(wanted)
    }
}

/// How long a query may spend waiting for events, beside its own time.
fn waits(options: &Options) -> Duration {
    if options.min_position.is_empty() { Duration::ZERO } else { options.wait }
}

fn no_limit(value: &str) -> Problem {
    Problem::bad_request(format!("`limit={value}` is no number of rows")).hint("write it such as `limit=20`")
}

fn no_flag(value: &str) -> Problem {
    Problem::bad_request(format!("`allow_partial={value}` is neither `true` nor `false`")).hint("write one of them")
}

fn no_position(value: &str, error: &serde_json::Error) -> Problem {
    Problem::bad_request(format!("`min_position={value}` is no position: {error}"))
        .hint(r#"write it as JSON, such as {"sales": {"0": 1204}}"#)
}

fn options(
    min_position: Option<BTreeMap<String, Frontier>>,
    wait: Option<&str>,
    allow_partial: bool,
    client: &Client,
) -> Result<Options, Problem> {
    let scope = client.scope().clone();
    let min_position = min_position.unwrap_or_default();
    let mut options = Options { min_position, allow_partial, scope, ..Options::default() };
    if let Some(wait) = wait {
        options.wait = humantime::parse_duration(wait).map_err(|error| {
            Problem::bad_request(format!("`wait={wait}` is no time: {error}")).hint("write it such as `10s`")
        })?;
        if options.wait > WAIT_MAX {
            let detail = format!("`wait={wait}` is longer than requests may wait");
            return Err(Problem::bad_request(detail).hint("wait at most `5m`, and ask again"));
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_options_or_equalities() {
        let check = |parameters: &[(&str, &str)], expected: Result<Wanted, &str>| {
            let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            match (Wanted::of(parameters.collect()), expected) {
                (Ok(wanted), Ok(expected)) => assert_eq!(wanted, expected),
                (Err(problem), Err(detail)) => assert!(problem.body()["detail"].as_str().unwrap().contains(detail)),
                (wanted, expected) => panic!("{wanted:?} instead of {expected:?}"),
            }
        };
        let none =
            || Wanted { filters: Vec::new(), limit: ROWS_LIMIT, min_position: None, wait: None, allow_partial: false };
        let filter = |name: &str, values: &[&str]| {
            (name.to_owned(), values.iter().map(|&value| value.to_owned()).collect::<Vec<_>>())
        };
        check(&[], Ok(none()));
        check(&[("limit", "3"), ("wait", "1s")], Ok(Wanted { limit: 3, wait: Some("1s".to_owned()), ..none() }));
        let filters = vec![filter("a", &["1", "3"]), filter("b", &["2"])];
        check(&[("a", "1"), ("b", "2"), ("a", "3")], Ok(Wanted { filters, ..none() }));
        let position = BTreeMap::from([("sales".to_owned(), Frontier::from_iter([(0, 4)]))]);
        check(&[("min_position", r#"{"sales": {"0": 4}}"#)], Ok(Wanted { min_position: Some(position), ..none() }));
        check(&[("allow_partial", "true")], Ok(Wanted { allow_partial: true, ..none() }));
        check(&[("allow_partial", "1")], Err("`allow_partial=1` is neither"));
        check(&[("limit", "-1")], Err("`limit=-1` is no number of rows"));
        check(&[("min_position", "4")], Err("`min_position=4` is no position"));
    }

    #[test]
    fn waiting_has_a_limit() {
        let options = |wait| super::options(None, wait, false, &Client::for_tests());
        assert_eq!(options(None).unwrap().wait, Duration::from_secs(10));
        assert_eq!(options(Some("250ms")).unwrap().wait, Duration::from_millis(250));
        for wait in ["soon", "6m", "-1s"] {
            assert_eq!(options(Some(wait)).unwrap_err().status().as_u16(), 400, "{wait}");
        }
    }
}

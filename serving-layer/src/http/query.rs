//! Queries: SQL, and rows of one view.

use std::{collections::BTreeMap, time::Duration};

use axum::{extract::State, http::HeaderMap, response::Response};
use common::position::Frontier;
use serde_json::value::RawValue;

use super::{
    Context,
    access::Client,
    answer::respond,
    described, dto,
    extract::{Json, Name, Parameters},
    negotiate::Written,
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
    let dto::Query { sql, min_position, wait, allow_partial, parameters, numbers } = request;
    let asked = Asked { min_position, wait, allow_partial, format: None, numbers };
    answer_to(&context, &client, &headers, (&sql, parameters), asked).await
}

/// `GET /v1/sql`.
#[utoipa::path(
    get, path = "/v1/sql", operation_id = "query_by_address", tag = "queries",
    summary = "Run a read-only SQL query that stands in the address",
    description = "The same as `POST /v1/sql`, for spreadsheets and other programs that are given an address and \
                   nothing else.",
    params(described::Sql, described::Asked),
    responses((
        status = 200, description = "The answer, in the format that `format` names or `Accept` prefers",
        content(
            (described::Answer = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"),
            (String = "application/vnd.apache.arrow.stream"),
        ),
        headers(("Lamina-Stamp" = String, description = "The stamp as JSON, where the body has none")),
    ))
)]
pub(super) async fn sql_by_address(
    State(context): State<Context>,
    client: Client,
    headers: HeaderMap,
    Parameters(parameters): Parameters<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    let (mut asked, mut sql, mut values) = (Asked::default(), None, None);
    for (name, value) in parameters {
        match name.as_str() {
            "sql" if sql.is_none() => sql = Some(value),
            "parameters" if values.is_none() => {
                values = Some(serde_json::from_str(&value).map_err(|error| no_values(&value, &error))?);
            }
            name if asked.take(name, &value)? => {}
            name => {
                return Err(Problem::bad_request(format!("a query has no parameter `{name}` here")).hint(
                    "there are `sql` and `parameters`, once, and `format`, `numbers`, `min_position`, `wait` and \
                     `allow_partial`",
                ));
            }
        }
    }
    let sql = sql.ok_or_else(|| {
        Problem::bad_request("the parameter `sql` is missing").hint("write `/v1/sql?sql=SELECT…`, or post the query")
    })?;
    answer_to(&context, &client, &headers, (&sql, values.unwrap_or_default()), asked).await
}

async fn answer_to(
    context: &Context,
    client: &Client,
    headers: &HeaderMap,
    (sql, parameters): (&str, Vec<Box<RawValue>>),
    asked: Asked,
) -> Result<Response, Problem> {
    let written = Written::asked(asked.format.as_deref(), asked.numbers.as_deref(), headers)?;
    let (length, longest) = (sql.len() as u64, client.limits().sql.as_u64());
    if length > longest {
        let detail = format!("the query is {length} bytes long, and at most {longest} are read");
        return Err(Problem::new(Kind::BadQuery, detail)
            .hint("send what it compares with as events, or raise the setting `serving.limits.sql`"));
    }
    let options = Options { parameters, ..options(asked, client)? };
    let work = client.begin(waits(&options))?;
    let (engine, sql) = (context.engine.clone(), sql.to_owned());
    let answer = work.apart(&options.stop.clone(), async move { engine.sql(&sql, &options).await }).await??;
    respond(answer, written, work).await
}

/// `GET /v1/views/{view}/rows`.
#[utoipa::path(
    get, path = "/v1/views/{view}/rows", operation_id = "view_rows", tag = "queries",
    summary = "Rows of a view, in no order",
    params(("view" = String, Path, example = "product_sales"), described::Rows, described::Asked),
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
    let Wanted { filters, limit, asked } = Wanted::of(parameters)?;
    let written = Written::asked(asked.format.as_deref(), asked.numbers.as_deref(), &headers)?;
    let options = options(asked, &client)?;
    let work = client.begin(waits(&options))?;
    let engine = context.engine.clone();
    let answer =
        work.apart(&options.stop.clone(), async move { engine.rows(&view, &filters, limit, &options).await }).await??;
    respond(answer, written, work).await
}

/// How a query is to be answered.
#[derive(Debug, Default, PartialEq)]
struct Asked {
    min_position: Option<BTreeMap<String, Frontier>>,
    wait: Option<String>,
    allow_partial: bool,
    format: Option<String>,
    numbers: Option<String>,
}

impl Asked {
    /// Takes a parameter, if it is one of these.
    fn take(&mut self, name: &str, value: &str) -> Result<bool, Problem> {
        match name {
            "min_position" => {
                let position = serde_json::from_str(value);
                self.min_position = Some(position.map_err(|error| no_position(value, &error))?);
            }
            "wait" => self.wait = Some(value.to_owned()),
            "allow_partial" => self.allow_partial = value.parse().map_err(|_| no_flag(value))?,
            "format" => self.format = Some(value.to_owned()),
            "numbers" => self.numbers = Some(value.to_owned()),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// What the parameters of `rows` ask for.
#[derive(Debug, PartialEq)]
struct Wanted {
    filters: Vec<(String, Vec<String>)>,
    limit: usize,
    asked: Asked,
}

impl Wanted {
    fn of(parameters: Vec<(String, String)>) -> Result<Self, Problem> {
        let mut wanted = Self { filters: Vec::new(), limit: ROWS_LIMIT, asked: Asked::default() };
        for (name, value) in parameters {
            if name == "limit" {
                wanted.limit = value.parse().map_err(|_| no_limit(&value))?;
            } else if !wanted.asked.take(&name, &value)? {
                match wanted.filters.iter_mut().find(|(column, _)| *column == name) {
                    Some((_, values)) => values.push(value),
                    None => wanted.filters.push((name, vec![value])),
                }
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

fn no_values(value: &str, error: &serde_json::Error) -> Problem {
    Problem::bad_request(format!("`parameters={value}` are no values: {error}"))
        .hint(r#"write them as a JSON array, such as [7, "eu"]"#)
}

fn no_position(value: &str, error: &serde_json::Error) -> Problem {
    Problem::bad_request(format!("`min_position={value}` is no position: {error}"))
        .hint(r#"write it as JSON, such as {"sales": {"0": 1204}}"#)
}

fn options(asked: Asked, client: &Client) -> Result<Options, Problem> {
    let scope = client.scope().clone();
    let min_position = asked.min_position.unwrap_or_default();
    let mut options = Options { min_position, allow_partial: asked.allow_partial, scope, ..Options::default() };
    if let Some(wait) = asked.wait {
        options.wait = humantime::parse_duration(&wait).map_err(|error| {
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
        let none = || Wanted { filters: Vec::new(), limit: ROWS_LIMIT, asked: Asked::default() };
        let with = |asked: Asked| Ok(Wanted { asked, ..none() });
        let filter = |name: &str, values: &[&str]| {
            (name.to_owned(), values.iter().map(|&value| value.to_owned()).collect::<Vec<_>>())
        };
        check(&[], Ok(none()));
        check(&[("limit", "3")], Ok(Wanted { limit: 3, ..none() }));
        check(&[("wait", "1s")], with(Asked { wait: Some("1s".to_owned()), ..Asked::default() }));
        check(&[("format", "csv")], with(Asked { format: Some("csv".to_owned()), ..Asked::default() }));
        let filters = vec![filter("a", &["1", "3"]), filter("b", &["2"])];
        check(&[("a", "1"), ("b", "2"), ("a", "3")], Ok(Wanted { filters, ..none() }));
        let position = BTreeMap::from([("sales".to_owned(), Frontier::from_iter([(0, 4)]))]);
        let at = Asked { min_position: Some(position), ..Asked::default() };
        check(&[("min_position", r#"{"sales": {"0": 4}}"#)], with(at));
        check(&[("allow_partial", "true")], with(Asked { allow_partial: true, ..Asked::default() }));
        check(&[("allow_partial", "1")], Err("`allow_partial=1` is neither"));
        check(&[("limit", "-1")], Err("`limit=-1` is no number of rows"));
        check(&[("min_position", "4")], Err("`min_position=4` is no position"));
    }

    #[test]
    fn waiting_has_a_limit() {
        let options = |wait: Option<&str>| {
            super::options(Asked { wait: wait.map(str::to_owned), ..Asked::default() }, &Client::for_tests())
        };
        assert_eq!(options(None).unwrap().wait, Duration::from_secs(10));
        assert_eq!(options(Some("250ms")).unwrap().wait, Duration::from_millis(250));
        for wait in ["soon", "6m", "-1s"] {
            assert_eq!(options(Some(wait)).unwrap_err().status().as_u16(), 400, "{wait}");
        }
    }
}

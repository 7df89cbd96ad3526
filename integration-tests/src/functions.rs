//! Every function that queries have, with arguments at the edges: the server stays, and no answer is its failure.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use datafusion::{
    arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit},
    logical_expr::{ScalarUDF, type_coercion::functions::fields_with_udf},
    prelude::SessionConfig,
};
use fastrand::Rng;
use serde_json::{Value, json};

/// Arguments, by their types.
const ARGUMENTS: &[(&str, &[&str])] = &[
    ("null", &["NULL"]),
    (
        "number",
        &[
            "0",
            "1",
            "-1",
            "2",
            "100",
            "65536",
            "100000000",
            "9223372036854775807",
            "(-9223372036854775807 - 1)",
            "NULL::bigint",
        ],
    ),
    (
        "double",
        &["0.0::double", "'NaN'::double", "'Infinity'::double", "-1e308::double", "1e-320::double", "NULL::double"],
    ),
    ("decimal", &["99999999999999999999999999999999999999", "0.1", "-1.5", "1e-10"]),
    (
        "text",
        &[
            "''",
            "'a'",
            "'ß漢🦀'",
            "'a,b,,c'",
            "'%Y-%m-%d'",
            "'g'",
            "'(a*)*b'",
            "'['",
            "'\\1$1'",
            "'2026-02-30'",
            "'day'",
            "'Europe/Berlin'",
            "'hex'",
            "'Int64'",
            "'FixedSizeBinary(2000000000)'",
            "'sha256'",
            "NULL::text",
            "repeat('a', 1000)",
            "repeat('é', 100000)",
        ],
    ),
    ("binary", &["X'ff00'", "X''", "arrow_cast(repeat('a', 100000), 'Binary')"]),
    ("boolean", &["true", "false", "NULL::boolean"]),
    ("date", &["DATE '0001-01-01'", "DATE '9999-12-31'", "DATE '2026-01-31'", "NULL::date"]),
    ("time", &["TIMESTAMP '0001-01-01'", "TIMESTAMP '9999-12-31 23:59:59.999999'", "TIMESTAMP '2026-03-29 02:30'"]),
    ("zoned", &["TIMESTAMPTZ '2026-03-29T02:30:00Z'", "TIMESTAMPTZ '9999-12-31T23:59:59Z'"]),
    (
        "interval",
        &[
            "INTERVAL '1 month -30 days'",
            "INTERVAL '0 days'",
            "INTERVAL '-1 day'",
            "INTERVAL '100000 years'",
            "INTERVAL '1 second'",
        ],
    ),
    ("numbers", &["[1, 2, NULL]", "[]::bigint[]", "range(0, 100000)", "NULL::bigint[]"]),
    ("texts", &["['a', '', NULL]", "[repeat('a', 100000)]", "array_repeat('ab', 10000)"]),
    ("doubles", &["[1.5::double, 'NaN'::double]", "[1e308::double, 1e308::double]"]),
    ("lists", &["[[1, 2], [3]]", "[[]::bigint[], NULL]"]),
    ("struct", &["named_struct('a', 1, 'b', 'x')"]),
];

fn type_of(kind: &str) -> DataType {
    let list = |of: DataType| DataType::List(Arc::new(Field::new_list_field(of, true)));
    match kind {
        "null" => DataType::Null,
        "number" => DataType::Int64,
        "double" => DataType::Float64,
        "decimal" => DataType::Decimal128(38, 0),
        "binary" => DataType::Binary,
        "boolean" => DataType::Boolean,
        "date" => DataType::Date32,
        "time" => DataType::Timestamp(TimeUnit::Microsecond, None),
        "zoned" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        "interval" => DataType::Interval(IntervalUnit::MonthDayNano),
        "numbers" => list(DataType::Int64),
        "texts" => list(DataType::Utf8),
        "doubles" => list(DataType::Float64),
        "lists" => list(list(DataType::Int64)),
        "struct" => {
            DataType::Struct(vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, true)].into())
        }
        _ => DataType::Utf8,
    }
}

/// What there is to call.
#[derive(Debug)]
enum Callable {
    Scalar(Arc<ScalarUDF>),
    /// Aggregates and windows, with what follows the call.
    Over(String, &'static str),
}

/// Calls drawn at random, and what came of them.
#[derive(Debug)]
pub struct Trials {
    random: Rng,
    callables: Vec<Callable>,
    /// The server's limit.
    time: Duration,
    statuses: BTreeMap<u16, usize>,
    faults: Vec<String>,
    longest: Duration,
}

impl Trials {
    /// Draws by `seed`, of a server that stops queries after `time`.
    pub fn new(seed: u64, time: Duration) -> Self {
        let state = common::sql::session(SessionConfig::new()).build();
        // Functions are there under each of their names.
        let scalars: BTreeMap<String, Arc<ScalarUDF>> =
            state.scalar_functions().values().map(|function| (function.name().to_owned(), function.clone())).collect();
        let mut callables: Vec<Callable> = scalars.into_values().map(Callable::Scalar).collect();
        let mut others: Vec<(String, &'static str)> =
            state.aggregate_functions().keys().map(|name| (name.clone(), "")).collect();
        others.extend(state.aggregate_functions().keys().map(|name| (name.clone(), " OVER ()")));
        others.extend(state.window_functions().keys().map(|name| (name.clone(), " OVER (ORDER BY 1)")));
        others.sort_unstable();
        callables.extend(others.into_iter().map(|(name, after)| Callable::Over(name, after)));
        let (statuses, faults) = (BTreeMap::new(), Vec::new());
        Self { random: Rng::with_seed(seed), callables, time, statuses, faults, longest: Duration::ZERO }
    }

    /// Asks the server at `url` for so long, each function at least once. An error where it is gone.
    pub async fn run(&mut self, url: &str, long: Duration) -> Result<()> {
        let http = reqwest::Client::new();
        let began = Instant::now();
        let mut turn = 0;
        while began.elapsed() < long || turn < self.callables.len() {
            let sql = self.draw(turn % self.callables.len());
            turn += 1;
            let asked = Instant::now();
            let request = http.post(format!("{url}/v1/sql")).json(&json!({"sql": sql}));
            let response = request.send().await.with_context(|| format!("the server is gone after {sql}"))?;
            let status = response.status().as_u16();
            let body = response.text().await.unwrap_or_default();
            let took = asked.elapsed();
            self.longest = self.longest.max(took);
            *self.statuses.entry(status).or_default() += 1;
            let kind = serde_json::from_str::<Value>(&body).ok().map(|body| body["type"].clone());
            let too_late = took > self.time + Duration::from_secs(5);
            if too_late || status >= 500 && (status != 503 || kind == Some(json!("/problems/unavailable"))) {
                let said: String = body.chars().take(300).collect();
                self.faults.push(format!("{status} in {took:?}: {sql}: {said}"));
            }
        }
        Ok(())
    }

    /// A query with a call, whose arguments are constants or columns.
    fn draw(&mut self, callable: usize) -> String {
        let (name, after, kinds) = match &self.callables[callable] {
            Callable::Scalar(function) => (function.name().to_owned(), "", kinds(function, &mut self.random)),
            Callable::Over(name, after) => {
                let count = self.random.usize(0..3);
                (name.clone(), *after, (0..count).map(|_| self.random.usize(0..ARGUMENTS.len())).collect())
            }
        };
        let arguments: Vec<&str> = kinds.iter().map(|kind| drawn(ARGUMENTS[*kind].1, &mut self.random)).collect();
        if arguments.is_empty() || self.random.bool() {
            return format!("SELECT {name}({}){after}", arguments.join(", "));
        }
        let columns: Vec<String> = (0..arguments.len()).map(|column| format!("c{column}")).collect();
        let columns = columns.join(", ");
        let others: Vec<&str> = kinds.iter().map(|kind| drawn(ARGUMENTS[*kind].1, &mut self.random)).collect();
        let rows = format!("SELECT {} UNION ALL SELECT {}", arguments.join(", "), others.join(", "));
        format!("SELECT {name}({columns}){after} FROM ({rows}) t({columns})")
    }

    /// What went wrong, with what the server printed.
    pub fn faults(&self, output: &str) -> Vec<String> {
        let panics = output.lines().filter(|line| line.contains("panicked at")).map(str::to_owned);
        self.faults.iter().cloned().chain(panics).collect()
    }

    /// How many answers had which status.
    pub fn summary(&self) -> String {
        let all: usize = self.statuses.values().sum();
        format!(
            "{all} calls of {} functions, by status {:?}, the longest {:?}",
            self.callables.len(),
            self.statuses,
            self.longest
        )
    }
}

fn drawn<'a>(from: &'a [&'a str], random: &mut Rng) -> &'a str {
    from[random.usize(0..from.len())]
}

/// Kinds of arguments that a function takes, now and then others.
fn kinds(function: &ScalarUDF, random: &mut Rng) -> Vec<usize> {
    let mut kinds = Vec::new();
    for _ in 0..200 {
        let count = random.usize(0..5);
        kinds = (0..count).map(|_| random.usize(0..ARGUMENTS.len())).collect();
        let fields: Vec<Arc<Field>> =
            kinds.iter().map(|kind| Arc::new(Field::new("a", type_of(ARGUMENTS[*kind].0), true))).collect();
        if fields_with_udf(&fields, function).is_ok() {
            break;
        }
    }
    kinds
}

//! Filters on group keys: what is left out below the merge is what the query's own filter leaves out.
//!
//! Every key type with its edge values, in groups that are only in the batch view, only in the speed layer, and in both.
//! Queries are compared with themselves where the key is hidden from the scan, and after a recompute at the same head.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use common::{
    access::Scope,
    catalog::Catalog,
    clock::System,
    log::{Log, NewRecord},
    storage::Storage,
    values::output,
};
use futures::{StreamExt, TryStreamExt, stream};
use integration_tests::{
    memory_log::MemoryLog,
    world::{Settings, World, at_least},
};
use serde_json::Value;
use serving_layer::engine::{Answer, Options};

/// A column, its type, its edge values as an event and as SQL has them, and literals of other types.
type Key = (&'static str, &'static str, &'static [(&'static str, &'static str)], &'static [&'static str]);

const KEYS: &[Key] = &[
    ("k_flag", "BOOLEAN", &[("true", "true"), ("false", "false")], &["'true'", "1 = 1"]),
    (
        "k_small",
        "SMALLINT",
        &[("-32768", "-32768"), ("-1", "-1"), ("0", "0"), ("32767", "32767")],
        &["-1.0", "'0'", "0.5", "32768", "CAST(0 AS BIGINT)", "1 - 1", "-0.0", "1e0 - 1e0"],
    ),
    (
        "k_whole",
        "INT",
        &[("-2147483648", "-2147483648"), ("0", "0"), ("7", "7"), ("2147483647", "2147483647")],
        &["7.0", "'7'", "7.5", "2147483648", "CAST(7 AS DOUBLE)", "3 + 4", "CAST(7 AS SMALLINT)"],
    ),
    (
        "k_big",
        "BIGINT",
        &[
            ("-9223372036854775808", "CAST('-9223372036854775808' AS BIGINT)"),
            ("0", "0"),
            ("9007199254740993", "9007199254740993"),
            ("9223372036854775807", "9223372036854775807"),
        ],
        &["0.0", "'0'", "9007199254740992", "9007199254740993.0", "CAST(0 AS SMALLINT)"],
    ),
    (
        "k_single",
        "REAL",
        &[
            ("0", "CAST(0 AS REAL)"),
            ("0.1", "CAST(0.1 AS REAL)"),
            ("-3.4028234663852886e38", "CAST('-3.4028234663852886e38' AS REAL)"),
            ("\"NaN\"", "CAST('NaN' AS REAL)"),
            ("\"Infinity\"", "CAST('Infinity' AS REAL)"),
            ("1e-45", "CAST('1e-45' AS REAL)"),
        ],
        &["-0.0", "0", "0.1", "CAST(-0.0 AS REAL)", "-1 * 0.0", "'0'"],
    ),
    (
        "k_x",
        "DOUBLE",
        &[
            ("-0.0", "CAST(0 AS DOUBLE)"),
            ("1", "CAST(1 AS DOUBLE)"),
            ("\"NaN\"", "CAST('NaN' AS DOUBLE)"),
            ("\"Infinity\"", "CAST('Infinity' AS DOUBLE)"),
            ("\"-Infinity\"", "CAST('-Infinity' AS DOUBLE)"),
            ("1.7976931348623157e308", "CAST('1.7976931348623157e308' AS DOUBLE)"),
            ("5e-324", "CAST('5e-324' AS DOUBLE)"),
        ],
        &["-0.0", "0.0", "0", "1", "1.0", "'1'", "-1 * 0.0", "CAST(-0.0 AS REAL)", "-CAST('NaN' AS DOUBLE)"],
    ),
    (
        "k_amount",
        "DECIMAL(12,2)",
        &[("117.89", "117.89"), ("0", "CAST(0 AS DECIMAL(12,2))"), ("-9999999999.99", "-9999999999.99"), ("5", "5")],
        &["117.890", "'117.89'", "117.894", "CAST(117.89 AS DECIMAL(30,10))", "117.89e0", "0", "-0.0", "5.0", "4.999"],
    ),
    (
        "k_wide",
        "DECIMAL(38,18)",
        &[
            ("1.123456789012345678", "CAST('1.123456789012345678' AS DECIMAL(38,18))"),
            (
                "-99999999999999999999.999999999999999999",
                "CAST('-99999999999999999999.999999999999999999' AS DECIMAL(38,18))",
            ),
            ("0", "0"),
        ],
        &["'1.123456789012345678'", "1.123456789012345678", "0.0", "CAST(0 AS DECIMAL(3,1))"],
    ),
    (
        "k_name",
        "TEXT",
        &[
            ("\"\"", "''"),
            ("\"a\"", "'a'"),
            ("\"\u{10FFFF}\u{10FFFF}\"", "'\u{10FFFF}\u{10FFFF}'"),
            (
                concat!("\"", "0123456789012345678901234567890123456789012345678901234567890123456789", "\""),
                concat!("'", "0123456789012345678901234567890123456789012345678901234567890123456789", "'"),
            ),
            ("\" 1\"", "' 1'"),
        ],
        &["'A'", "'a' || ''", "lower('A')", "'01'", "1"],
    ),
    (
        "k_raw",
        "BYTEA",
        &[("\"\"", "X''"), ("\"fb74\"", "X'fb74'"), ("\"00ff\"", "X'00ff'")],
        &["CAST('t' AS BYTEA)", "X'fb'"],
    ),
    (
        "k_day",
        "DATE",
        &[
            ("\"0001-01-01\"", "CAST('0001-01-01' AS DATE)"),
            ("\"1970-01-01\"", "CAST('1970-01-01' AS DATE)"),
            ("\"9999-12-31\"", "CAST('9999-12-31' AS DATE)"),
        ],
        &["'1970-01-01'", "CAST('1970-01-02' AS DATE) - INTERVAL '1 day'"],
    ),
    (
        "k_at",
        "TIMESTAMP",
        &[
            ("\"0001-01-01T00:00:00\"", "arrow_cast(-62135596800000000, 'Timestamp(Microsecond, None)')"),
            ("\"1970-01-01T00:00:47.5\"", "arrow_cast(47500000, 'Timestamp(Microsecond, None)')"),
            ("\"9999-12-31T23:59:59.999999\"", "arrow_cast(253402300799999999, 'Timestamp(Microsecond, None)')"),
        ],
        &["'1970-01-01T00:00:47.5'", "'1970-01-01T00:00:47.500000001'", "CAST('1970-01-01' AS DATE)"],
    ),
    (
        "k_zoned",
        "TIMESTAMPTZ",
        &[
            ("\"1970-01-01T02:00:00+02:00\"", "arrow_cast(0, 'Timestamp(Microsecond, Some(\"UTC\"))')"),
            ("\"2026-03-29T01:00:00Z\"", "arrow_cast(1774746000000000, 'Timestamp(Microsecond, Some(\"UTC\"))')"),
        ],
        &["'1970-01-01T00:00:00Z'", "'1970-01-01T02:00:00+02:00'"],
    ),
];

fn catalog() -> Arc<Catalog> {
    let columns: Vec<String> = KEYS.iter().map(|(name, sql_type, ..)| format!("{name} {sql_type}")).collect();
    let mut sql = format!("CREATE TABLE m ({}) WITH (partitions = 2);", columns.join(", "));
    for (name, ..) in KEYS {
        sql.push_str(&format!(
            "CREATE MATERIALIZED VIEW by_{name} WITH (refresh = 'never') AS SELECT {name}, count(*) AS c FROM m GROUP BY {name};"
        ));
    }
    sql.push_str(
        "CREATE MATERIALIZED VIEW by_two WITH (refresh = 'never') AS SELECT k_name, k_x, count(*) AS c FROM m GROUP BY k_x, k_name;",
    );
    // Infinity by itself is another NaN than an event's.
    sql.push_str(
        "CREATE MATERIALIZED VIEW by_quotient WITH (refresh = 'never') AS
         SELECT k_x / k_x AS k_q, count(*) AS c FROM m WHERE k_x > 0 GROUP BY 1;",
    );
    Arc::new(Catalog::parse(&[("m.sql".to_owned(), sql)]).unwrap_or_else(|faults| panic!("{faults}")))
}

/// Events whose value number `i` of each column is among those that `part` wants; NULL is the last of all.
fn events(wanted: impl Fn(usize) -> bool) -> Vec<String> {
    let longest = KEYS.iter().map(|(_, _, values, _)| values.len()).max().unwrap();
    (0..=longest)
        .map(|i| {
            let members = KEYS.iter().filter_map(|(name, _, values, _)| {
                let value = values.get(i).filter(|_| wanted(i))?;
                Some(format!("\"{name}\":{}", value.0))
            });
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        })
        .collect()
}

/// Filters on `key` by one literal and others beside it.
fn filters(key: &str, literal: &str, beside: &[&str]) -> Vec<String> {
    let [other, another, ..] = beside else { panic!("too few literals") };
    let many: Vec<&str> = beside.iter().copied().cycle().take(5).collect();
    vec![
        format!("{key} = {literal}"),
        format!("{key} IN ({literal}, {other})"),
        format!("{key} IN ({literal}, {})", many.join(", ")),
        format!("{literal} = {key} OR {key} = {other} OR {key} = {another}"),
        format!("{key} IN (NULL, {literal})"),
        format!("{key} <> {literal}"),
        format!("{key} NOT IN ({literal}, {})", many.join(", ")),
    ]
}

struct Test {
    world: World,
    log: Arc<dyn Log>,
    catalog: Arc<Catalog>,
}

impl Test {
    async fn start() -> Self {
        let log: Arc<dyn Log> = Arc::new(MemoryLog::new(0, Arc::new(System)));
        let store = Arc::new(object_store::memory::InMemory::new());
        let storage = Storage::with_store("memory:///lamina/".parse().unwrap(), store).unwrap();
        let catalog = catalog();
        log.ensure_topic("m", 2).await.unwrap();
        let world = World::start(&storage, &log, &catalog, Settings::hasty()).await.unwrap();
        Self { world, log, catalog }
    }

    /// Appends events, and waits until all layers have them.
    async fn append(&self, events: Vec<String>) -> Options {
        for (i, event) in events.into_iter().enumerate() {
            let record = NewRecord { key: None, value: Some(event.into()) };
            self.log.append("m", i32::try_from(i % 2).unwrap(), vec![record]).await.unwrap();
        }
        let end = self.log.bounds("m").await.unwrap().end;
        let options = at_least("m", &end, Duration::from_secs(60));
        self.world.query("SELECT count(*) FROM m", &options).await.unwrap();
        options
    }

    async fn recompute(&self) {
        for view in self.catalog.views.keys() {
            let job = self.world.recompute(view).await.unwrap();
            assert!(job.error.is_none(), "{job:?}");
        }
    }

    /// The rows in order; `None` when the query is refused or fails.
    async fn rows(&self, sql: &str, options: &Options) -> Option<Vec<String>> {
        let (rows, _) = self.world.query(sql, options).await.ok()?;
        Some(sorted(rows))
    }
}

fn sorted(rows: Vec<Value>) -> Vec<String> {
    let mut rows: Vec<String> = rows.iter().map(Value::to_string).collect();
    rows.sort();
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_type_is_filtered_as_it_is_compared() {
    let test = Test::start().await;
    // Without a batch view version, then with groups of both layers and of either.
    for (is_wanted, hides) in [((|i| i % 3 != 1) as fn(usize) -> bool, false), (|i| i % 3 != 0, true)] {
        let options = test.append(events(is_wanted)).await;
        let before = answers(&test, &options, hides).await;
        test.recompute().await;
        let after = answers(&test, &options, false).await;
        for (sql, rows) in before {
            assert_eq!(rows, after[&sql], "a recompute at the same head changes it: {sql}");
        }
    }
    test.world.stop().await.unwrap();
}

type Answers = BTreeMap<String, Option<Vec<String>>>;

/// A query, the same where the key is hidden from the scan, and whether it has to have an answer.
type Query = (String, String, bool);

fn queries() -> Vec<Query> {
    let mut queries = Vec::new();
    for (name, _, values, others) in KEYS {
        let own: Vec<&str> = values.iter().map(|(_, literal)| *literal).collect();
        for (i, literal) in own.iter().chain(*others).enumerate() {
            let beside: Vec<&str> = own.iter().cycle().skip(i + 1).take(3).copied().collect();
            let mut filters = filters(name, literal, &beside);
            // What is special of other types is in the literal.
            filters.truncate(if i < own.len() { filters.len() } else { 2 });
            queries.extend(filters.iter().map(|filter| query(name, filter, &[*name], i < own.len())));
        }
    }
    for filter in ["k_x = -0.0 AND k_name = ''", "k_name = 'a' AND k_x IN (1, -0.0)", "k_x = CAST('NaN' AS DOUBLE)"] {
        queries.push(query("two", filter, &["k_x", "k_name"], true));
    }
    for filter in ["k_q = CAST('NaN' AS DOUBLE)", "k_q IN (1, 2, 3, 4, CAST('NaN' AS DOUBLE))", "k_q <> 'NaN'"] {
        queries.push(query("quotient", filter, &["k_q"], true));
    }
    queries
}

fn query(view: &str, filter: &str, keys: &[&str], has_answer: bool) -> Query {
    let sql = |filter: &str| format!("SELECT * FROM by_{view} WHERE {filter}");
    let hide = |filter: String, key: &&str| filter.replace(*key, &format!("(CASE WHEN c > 0 THEN {key} END)"));
    (sql(filter), sql(&keys.iter().fold(filter.to_owned(), hide)), has_answer)
}

/// The rows of each query.
async fn answers(test: &Test, options: &Options, hides: bool) -> Answers {
    let asked = stream::iter(queries()).map(|(sql, hidden, has_answer)| async move {
        let rows = test.rows(&sql, options).await;
        let mut fault = (rows.is_none() && has_answer).then(|| format!("no answer: {sql}"));
        if hides {
            let expected = test.rows(&hidden, options).await;
            fault = fault.or_else(|| (rows != expected).then(|| format!("{sql}: {rows:?} instead of {expected:?}")));
        }
        (sql, rows, fault)
    });
    let (mut answers, mut faults): (Answers, Vec<String>) = Default::default();
    for (sql, rows, fault) in asked.buffer_unordered(4).collect::<Vec<_>>().await {
        answers.insert(sql, rows);
        faults.extend(fault);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_answers_show_find_their_rows() {
    let test = Test::start().await;
    test.append(events(|_| true)).await;
    test.recompute().await;
    let options = test.append(events(|i| i % 2 == 0)).await;
    for (name, _, values, _) in KEYS {
        let view = format!("by_{name}");
        let sql = format!("SELECT * FROM {view} WHERE {name} IS NOT NULL");
        let rows = shown(test.world.engine.sql(&sql, &options).await.unwrap()).await;
        assert_eq!(rows.len(), values.len(), "{name}");
        for (value, row) in rows {
            assert_eq!(found(&test, &view, name, &value, &options).await.unwrap(), [row], "{name}={value}");
        }
    }
    for (name, value, expected) in [
        ("k_x", "-0.0", Ok(1)),
        ("k_x", "7", Ok(0)),
        ("k_amount", "117.890", Ok(1)),
        ("k_amount", "117.894", Err("has more fractional digits than that")),
        ("k_at", "1970-01-01T00:00:47.5000009", Err("is not a whole number of microseconds")),
        ("k_at", "1970-01-01T02:00:47.5+02:00", Ok(1)),
        ("k_whole", "7.5", Err("has a fraction")),
        ("k_raw", "fb7", Err("is not hex digits")),
        ("k_small", "32768", Err("is out of its range")),
    ] {
        match (found(&test, &format!("by_{name}"), name, value, &options).await, expected) {
            (Ok(rows), Ok(count)) => assert_eq!(rows.len(), count, "{name}={value}"),
            (Err(reason), Err(part)) => assert!(reason.contains(part), "{name}={value}: {reason}"),
            (got, expected) => panic!("{name}={value}: {got:?} instead of {expected:?}"),
        }
    }
    test.world.stop().await.unwrap();
}

/// The rows of `GET …/rows?column=value`, or why it is refused.
async fn found(test: &Test, view: &str, column: &str, value: &str, options: &Options) -> Result<Vec<String>, String> {
    let filters = [(column.to_owned(), vec![value.to_owned()])];
    let options = Options { scope: Scope::default(), ..options.clone() };
    let answer = test.world.engine.rows(view, &filters, 100, &options).await;
    let answer = answer.map_err(|error| common::fault::chain(&error))?;
    Ok(shown(answer).await.into_iter().map(|(_, row)| row).collect())
}

/// Each row of an answer, and its first value, as JSON has it but for the quotes.
async fn shown(answer: Answer) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    for batch in answer.rows.try_collect::<Vec<_>>().await.unwrap() {
        for row in 0..batch.num_rows() {
            let (mut value, mut text) = (Vec::new(), Vec::new());
            output::write_value(batch.column(0), row, &mut value).unwrap();
            output::write_rows(&batch.slice(row, 1), &mut text, b"\n").unwrap();
            let value = String::from_utf8(value).unwrap();
            let value = if value.starts_with('"') { serde_json::from_str(&value).unwrap() } else { value };
            rows.push((value, String::from_utf8(text).unwrap()));
        }
    }
    rows
}

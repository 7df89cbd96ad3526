use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{
            ArrayRef, AsArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int16Array,
            Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
        },
        buffer::NullBuffer,
        datatypes::{DataType, Field, TimestampMicrosecondType},
        util::display::{ArrayFormatter, FormatOptions},
    },
    common::{DataFusionError, ScalarValue, config::ConfigOptions},
    datasource::MemTable,
    execution::context::{SessionConfig, SessionContext},
    logical_expr::{ColumnarValue, ScalarFunctionArgs},
    sql::parser::{DFParserBuilder, Statement},
};
use sqlparser::{ast, parser::Parser};

use super::*;

mod bounded;
mod precedence;

/// Rows of edge values, each in a batch of its own where `apart`.
fn context(apart: bool) -> SessionContext {
    let nines = 10_i128.pow(38) - 1;
    let decimals = |values: Vec<Option<i128>>, precision, scale| -> ArrayRef {
        Arc::new(Decimal128Array::from(values).with_precision_and_scale(precision, scale).unwrap())
    };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("k", Arc::new(StringArray::from(vec![Some("a"), Some("a"), Some("b"), None]))),
        ("s", Arc::new(Int16Array::from(vec![200, 1, i16::MAX, i16::MIN]))),
        ("q", Arc::new(Int32Array::from(vec![100_000, 1, i32::MAX, i32::MIN]))),
        ("p", Arc::new(Int32Array::from(vec![50_000, 1, 0, -1]))),
        ("n", Arc::new(Int64Array::from(vec![i64::MAX, 1, i64::MIN, 0]))),
        ("d", decimals(vec![Some(nines), Some(nines), Some(-nines), None], 38, 0)),
        ("price", decimals(vec![Some(10_i128.pow(18) + 1), Some(10_i128.pow(18) + 2), Some(15), None], 20, 4)),
        ("x", Arc::new(Float64Array::from(vec![Some(1.0), Some(f64::NAN), Some(f64::INFINITY), None]))),
        ("z", Arc::new(Float64Array::from(vec![0.0, -0.0, 0.0, f64::NEG_INFINITY]))),
        ("r", Arc::new(Float32Array::from(vec![0.1, 16_777_216.0, -2.5, 2.5]))),
        ("flag", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None, Some(true)]))),
        ("day", Arc::new(Date32Array::from(vec![20_466, 2_932_896, -719_162, 0]))),
        (
            "ts",
            Arc::new(TimestampMicrosecondArray::from(vec![
                1_767_571_200_000_000,
                253_402_300_799_999_999,
                -62_135_596_800_000_000,
                0,
            ])),
        ),
        (
            "tz",
            Arc::new(
                TimestampMicrosecondArray::from(vec![
                    1_782_900_000_000_000,
                    253_402_300_799_999_999,
                    1_774_746_000_000_000,
                    1_761_438_600_000_000,
                ])
                .with_timezone("UTC"),
            ),
        ),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, c)| (name, c, true))).unwrap();
    let batches = match apart {
        true => (0..batch.num_rows()).map(|row| batch.slice(row, 1)).collect(),
        false => vec![batch.clone()],
    };
    let config = SessionConfig::new().with_target_partitions(1);
    let context = SessionContext::new_with_state(session(config).build());
    context.register_table("m", Arc::new(MemTable::try_new(batch.schema(), vec![batches]).unwrap())).unwrap();
    context
}

async fn answer(context: &SessionContext, sql: &str) -> Result<String, DataFusionError> {
    let mut parser = DFParserBuilder::new(sql).with_dialect(&Dialect).build()?;
    let Some(Statement::Statement(mut statement)) = parser.parse_statements()?.pop_front() else {
        panic!("{sql}: no statement")
    };
    crate::statement::plain::rewrite(statement.as_mut()).unwrap();
    let plan = context.state().statement_to_plan(Statement::Statement(statement)).await?;
    let batches = context.execute_logical_plan(plan).await?.collect().await?;
    let options = FormatOptions::default().with_null("NULL").with_display_error(false);
    let mut rows = Vec::new();
    for batch in &batches {
        for row in 0..batch.num_rows() {
            let cells: Result<Vec<String>, _> = batch
                .columns()
                .iter()
                .map(|column| ArrayFormatter::try_new(column, &options)?.value(row).try_to_string())
                .collect();
            rows.push(cells?.join(" "));
        }
    }
    Ok(rows.join(" | "))
}

/// Checks an answer, or a part of an error's message, however the rows are batched.
async fn check(sql: &str, expected: Result<&str, &str>) {
    for apart in [false, true] {
        match (answer(&context(apart), sql).await, expected) {
            (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{sql}"),
            (Err(error), Err(part)) => {
                let message = error.strip_backtrace();
                assert!(message.contains(part), "{sql}: {message}");
            }
            (Ok(got), Err(part)) => panic!("{sql} is an error with `{part}`, and gave {got}"),
            (Err(error), Ok(expected)) => panic!("{sql} is {expected}, and failed: {}", error.strip_backtrace()),
        }
    }
}

#[tokio::test]
async fn arithmetic_leaves_its_type_only_as_an_error() {
    for (sql, expected) in [
        ("SELECT q * p FROM m WHERE k = 'a'", Err("verflow")),
        ("SELECT s * s FROM m WHERE s = 200", Err("verflow")),
        ("SELECT q + p FROM m WHERE p = -1", Err("verflow")),
        ("SELECT n + 1 FROM m WHERE n > 1", Err("verflow")),
        ("SELECT n - 1 FROM m WHERE n < 0", Err("verflow")),
        ("SELECT n * 2 FROM m WHERE n > 1", Err("verflow")),
        ("SELECT -n FROM m WHERE n < 0", Err("verflow")),
        ("SELECT d + 1 FROM m WHERE d > 0", Err("too large")),
        ("SELECT d * 10 FROM m WHERE d > 0", Err("verflow")),
        ("SELECT -d FROM m WHERE d < 0", Ok("99999999999999999999999999999999999999")),
        ("SELECT 9223372036854775807 + 1", Err("verflow")),
        ("SELECT 9223372036854775808 + 1", Ok("9223372036854775809")),
        ("SELECT q / p FROM m WHERE p = 0", Err("ivide by zero")),
        ("SELECT q % p FROM m WHERE p = -1", Ok("0")),
        ("SELECT 7 / 2, -7 / 2, -7 % 2, 7.0 / 2", Ok("3 -3 -1 3.50000")),
        ("SELECT sum(n) FROM m WHERE n > 0", Ok("9223372036854775808")),
        ("SELECT sum(q), sum(s) FROM m", Ok("100000 200")),
        ("SELECT sum(d) FROM m WHERE k = 'a'", Err("more than 38 digits")),
        ("SELECT sum(d) FROM m WHERE k <> 'a' OR q = 1", Ok("0")),
        ("SELECT sum(d) OVER () FROM m WHERE k = 'b'", Ok("-99999999999999999999999999999999999999")),
        ("SELECT sum(price * 1.1) FROM m WHERE k = 'a'", Ok("220000000000000.00033")),
    ] {
        check(sql, expected).await;
    }
}

#[tokio::test]
async fn literals_with_a_point_are_decimal() {
    for (sql, expected) in [
        ("SELECT 0.1 + 0.2 = 0.3", Ok("true")),
        ("SELECT price FROM m WHERE price = 100000000000000.0002", Ok("100000000000000.0002")),
        ("SELECT price FROM m WHERE price > 100000000000000.0001", Ok("100000000000000.0002")),
        ("SELECT arrow_typeof(1.50)", Ok("Decimal128(3, 2)")),
        ("SELECT count(*) FROM m WHERE r = 0.1", Ok("0")),
        ("SELECT count(*) FROM m WHERE r = 0.1::real", Ok("1")),
        ("SELECT count(*) FROM m WHERE r = 16777217", Ok("0")),
        ("SELECT count(*) FROM m WHERE x = 1.0", Ok("1")),
        ("SELECT count(*) FROM m WHERE x IN (1e0, 1.7976931348623157e308, 4.9e-324)", Ok("1")),
        ("SELECT 1.7976931348623157e308, 1e3 = 1000", Ok("1.7976931348623157e308 true")),
        ("SELECT count(*) FROM m WHERE d = 0.5", Ok("0")),
        ("SELECT count(*) FROM m WHERE d > 0.5", Ok("2")),
        ("SELECT count(*) FROM m WHERE d IN (0.5, 99999999999999999999999999999999999999)", Ok("2")),
    ] {
        check(sql, expected).await;
    }
}

#[tokio::test]
async fn floating_point_numbers_have_one_order() {
    for (sql, expected) in [
        ("SELECT min(x), max(x) FROM m", Ok("1.0 NaN")),
        ("SELECT min(x), max(x) FROM m WHERE k = 'b'", Ok("inf inf")),
        ("SELECT k, min(x), max(x) FROM m WHERE k = 'a' GROUP BY k", Ok("a 1.0 NaN")),
        ("SELECT max(z), min(z) FROM m WHERE k IS NULL", Ok("-inf -inf")),
        ("SELECT count(*) FROM m WHERE z = -0.0", Ok("3")),
        ("SELECT count(*) FROM m WHERE z IN (-0.0, 77)", Ok("3")),
        ("SELECT count(*) FROM m WHERE z = -1 * 0.0::double", Ok("3")),
        ("SELECT count(DISTINCT z) FROM m", Ok("2")),
        ("SELECT count(*) FROM (SELECT DISTINCT z * -1 FROM m)", Ok("2")),
        ("SELECT count(*) FROM (SELECT z / z AS r FROM m WHERE z = 0 UNION SELECT 'NaN'::double)", Ok("1")),
        ("SELECT count(*) FROM m WHERE x = 'NaN'", Ok("1")),
        ("SELECT count(*) FROM m WHERE z / z = 'NaN'", Ok("4")),
        ("SELECT count(*) FROM m WHERE x > 'Infinity'", Ok("1")),
        ("SELECT x FROM m ORDER BY x DESC NULLS LAST LIMIT 1", Ok("NaN")),
        ("SELECT -x FROM m ORDER BY -x DESC NULLS LAST LIMIT 1", Ok("NaN")),
        ("SELECT count(nullif('-0.0'::double, z * 1)) FROM m", Ok("1")),
        ("SELECT max(x) OVER (ORDER BY q) FROM m WHERE k = 'a' ORDER BY 1", Ok("NaN | NaN")),
    ] {
        check(sql, expected).await;
    }
}

#[tokio::test]
async fn times_have_one_range() {
    for (sql, expected) in [
        ("SELECT date_bin(INTERVAL '1 hour', ts) FROM m WHERE q = 1", Ok("9999-12-31T23:00:00")),
        ("SELECT date_bin('5 minutes', ts) FROM m WHERE q = 1", Ok("9999-12-31T23:55:00")),
        ("SELECT date_bin('7 hours', ts) FROM m WHERE q > 1 AND p = 0", Ok("0000-12-31T19:00:00")),
        ("SELECT date_bin('1 month', ts) FROM m WHERE q = 1", Ok("9999-12-01T00:00:00")),
        ("SELECT date_bin('1 day 1 month', ts) FROM m", Err("months together")),
        ("SELECT date_trunc('month', ts) FROM m WHERE q = 1", Ok("9999-12-01T00:00:00")),
        ("SELECT date_trunc('year', ts) FROM m WHERE p = 0", Ok("0001-01-01T00:00:00")),
        ("SELECT count(date_trunc('day', to_timestamp_micros(9223372036854775807)))", Ok("1")),
        ("SELECT date_trunc('year', to_timestamp_micros(-9223372036854775807)) IS NULL", Err("out of the range")),
        ("SELECT date_trunc('week', ts) FROM m WHERE q = 1", Ok("9999-12-27T00:00:00")),
        (
            "SELECT date_trunc('quarter', ts), date_trunc('month', day)::date FROM m WHERE q = 1",
            Ok("9999-10-01T00:00:00 9999-12-01"),
        ),
        ("SELECT extract(year FROM ts), ts::date FROM m WHERE q = 1", Ok("9999 9999-12-31")),
        ("SELECT count(*) FROM m WHERE ts < '9999-01-01'", Ok("3")),
        ("SELECT count(*) FROM m WHERE ts < TIMESTAMP '2300-01-01'", Ok("3")),
        ("SELECT count(*) FROM m WHERE ts = '9999-12-31T23:59:59.999999'", Ok("1")),
        ("SELECT count(*) FROM m WHERE ts BETWEEN '0001-01-01' AND DATE '9999-01-01'", Ok("3")),
        ("SELECT count(*) FROM m WHERE ts > day", Ok("1")),
        ("SELECT count(*) FROM m WHERE ts < now()", Ok("3")),
        ("SELECT ts::timestamp FROM m WHERE q = 1", Ok("9999-12-31T23:59:59.999999")),
        ("SELECT arrow_typeof(now())", Ok("Timestamp(µs)")),
        (
            "SELECT to_timestamp(253402300799), to_timestamp('9999-12-31')",
            Ok("9999-12-31T23:59:59 9999-12-31T00:00:00"),
        ),
        ("SELECT to_timestamp_millis(1764200000000)", Ok("2025-11-26T23:33:20")),
        ("SELECT to_timestamp_millis(1764200000000000000)", Err("")),
        ("SELECT CAST(q AS TIMESTAMP) FROM m", Err("a number is not a time")),
        ("SELECT TIMESTAMP '2026-01-01 00:00:00.1234567'", Err("below a microsecond")),
        ("SELECT tz AT TIME ZONE 'Europe/Berlin' FROM m WHERE q = 100000", Ok("2026-07-01T12:00:00")),
        ("SELECT date_trunc('day', tz AT TIME ZONE 'Europe/Berlin') FROM m WHERE p = 0", Ok("2026-03-29T00:00:00")),
        ("SELECT TIMESTAMP '2026-07-01 12:00:00' AT TIME ZONE 'Europe/Berlin'", Ok("2026-07-01T10:00:00Z")),
        ("SELECT TIMESTAMP '2026-03-29 02:30:00' AT TIME ZONE 'Europe/Berlin'", Ok("2026-03-29T01:30:00Z")),
        ("SELECT TIMESTAMP '2025-10-26 02:30:00' AT TIME ZONE 'Europe/Berlin'", Ok("2025-10-26T01:30:00Z")),
        ("SELECT tz AT TIME ZONE 'Nowhere/Else' FROM m", Err("no time zone `Nowhere/Else`")),
        ("SELECT count(*) FROM m WHERE ts - date_trunc('month', ts) > INTERVAL '1 day' AND q = 1", Ok("1")),
        ("SELECT INTERVAL '24 hours' = INTERVAL '1 day', INTERVAL '1 month' > INTERVAL '29 days'", Ok("true true")),
        ("SELECT max(q) FROM m WHERE ts - '2026-01-01'::timestamp < '5 days'::interval AND q < 100001", Ok("100000")),
        ("SELECT extract(hour FROM tz AT TIME ZONE 'Europe/Berlin') FROM m WHERE q = 100000", Ok("12")),
    ] {
        check(sql, expected).await;
    }
}

#[tokio::test]
async fn what_is_left_out_is_not_computed() {
    for (sql, expected) in [
        ("SELECT count(*) FROM m WHERE p <> 0 AND 10 / p > -20", Ok("3")),
        ("SELECT count(*) FROM m WHERE 10 / p > -20 AND p <> 0", Ok("3")),
        ("SELECT count(*) FROM m WHERE p = 0 OR 10 / p > -20", Ok("4")),
        ("SELECT count(*) FROM m WHERE p <> 0 AND 10 / p > -20 AND 10 / p > -30", Ok("3")),
        ("SELECT count(*) FROM m WHERE p < 0 AND 10 / p = -10 OR p > 0 AND 10 / p = 10", Ok("2")),
        ("SELECT count(*) FROM m WHERE NOT (p = 0 OR 10 / p = 10)", Ok("2")),
        ("SELECT p <> 0 AND 10 / p = 10 FROM m ORDER BY q", Ok("false | true | false | false")),
        ("SELECT sum(10 / p) FILTER (WHERE p <> 0) FROM m", Ok("0")),
        ("SELECT bool_or(10 / p = 10) FILTER (WHERE p <> 0) FROM m", Ok("true")),
        ("SELECT count(*) FROM m WHERE 10 / p > -20", Err("ivide by zero")),
        ("SELECT count(*) FROM (SELECT * FROM m WHERE p <> 0) WHERE 10 / p > -20", Ok("3")),
    ] {
        check(sql, expected).await;
    }
}

#[tokio::test]
async fn an_aggregate_without_keys_has_a_row_that_filters_can_leave_out() {
    for (sql, expected) in [
        ("SELECT c FROM (SELECT count(*) AS c, 5 AS x FROM m) WHERE x < 1", Ok("")),
        ("SELECT count(*) FROM m HAVING 1 = 2", Ok("")),
        ("SELECT c FROM (SELECT count(*) AS c, 5 AS x FROM m) WHERE x > 1", Ok("4")),
        ("SELECT c FROM (SELECT count(*) AS c, 5 AS x FROM m HAVING max(q) > 0) WHERE x < 1", Ok("")),
    ] {
        check(sql, expected).await;
    }
}

#[tokio::test]
async fn plans_keep_what_a_query_says() {
    for (sql, expected) in [
        ("SELECT DISTINCT (flag IS NOT FALSE) AS c FROM m ORDER BY 1", Ok("false | true")),
        (
            "SELECT a.p, a.p AS c FROM m a WHERE p = 0 UNION ALL SELECT 7, 5 FROM m w WHERE p = 0 ORDER BY 1, 2 DESC",
            Ok("0 0 | 7 5"),
        ),
        ("SELECT count(*) FROM m HAVING false", Ok("")),
        ("SELECT count(*) FROM m HAVING true", Ok("4")),
        ("SELECT q FROM m WHERE k = 'b' AND EXISTS (SELECT 1 FROM m y WHERE 'b' = m.k)", Ok("2147483647")),
        ("SELECT q FROM m WHERE q = 1 AND EXISTS (SELECT 1 FROM m y WHERE NULL = m.q)", Ok("")),
        ("SELECT q FROM m WHERE q > 0 AND EXISTS (SELECT 1 FROM m y WHERE CAST(NULL AS INT) < m.q)", Ok("")),
        (
            "SELECT q FROM m WHERE q > 0 AND EXISTS (SELECT 1 FROM m y WHERE 2 < m.q) ORDER BY 1",
            Ok("100000 | 2147483647"),
        ),
    ] {
        check(sql, expected).await;
    }
}

#[tokio::test]
async fn casts_round_and_types_are_what_they_say() {
    for (sql, expected) in [
        (
            "SELECT 2.5::double::int AS a, 3.5::double::int AS b, -2.5::double::int AS c, 2.5::int AS d, -2.5::int AS e",
            Ok("2 4 -2 3 -3"),
        ),
        ("SELECT r::int FROM m WHERE r IN (-2.5, 2.5)", Ok("-2 | 2")),
        ("SELECT 1e10::double::int", Err("")),
        ("SELECT 1.995::decimal(3,2), 1.994::decimal(3,2)", Ok("2.00 1.99")),
        ("SELECT 1.5::decimal", Err("has no precision")),
        ("SELECT 'abc'::varchar(2)", Err("is not kept")),
        ("SELECT '2026-01-01'::timestamp(3)", Err("fewer digits")),
        ("SELECT arrow_typeof('2026-01-01'::timestamp), arrow_typeof(1::float)", Ok("Timestamp(µs) Float64")),
        ("SELECT 2 ^ 3, -2 ^ 2", Ok("8.0 4.0")),
        ("SELECT percentile_cont(q, 0.95) FROM m WHERE k = 'a'", Ok("95000.04999999999")),
        ("SELECT percentile_cont(0.123456789) WITHIN GROUP (ORDER BY q) FROM m WHERE k = 'a'", Ok("12346.555443211")),
        ("SELECT median(p) FROM m WHERE p IN (0, 1)", Ok("0.5")),
        ("SELECT percentile_cont(x, 0.5) FROM m WHERE k = 'b'", Ok("inf")),
    ] {
        check(sql, expected).await;
    }
}

/// An error of what nobody needs is none.
#[tokio::test]
async fn constants_that_fail_are_computed_only_where_there_is_a_row_for_them() {
    for (sql, expected) in [
        (
            "SELECT q FROM (SELECT q, CAST(CAST('-9223372036854775808' AS BIGINT) AS INT) AS c FROM m) WHERE q = 1",
            Ok("1"),
        ),
        ("SELECT CAST(9999999999 AS INT) FROM m WHERE q = 1 AND p = 7", Ok("")),
        ("SELECT CASE WHEN q > 1 THEN 1 ELSE CAST(9999999999 AS INT) END FROM m WHERE p = 50000", Ok("1")),
        ("SELECT q FROM m WHERE q = 1 AND (p = 1 OR CAST(9999999999 AS INT) = q)", Ok("1")),
        ("SELECT q FROM m WHERE false AND CAST(9999999999 AS INT) = q", Ok("")),
        ("SELECT CAST(1e10 AS INT) FROM m LIMIT 0", Ok("")),
        ("SELECT CAST(9999999999 AS INT) FROM m", Err("Can't cast")),
        ("SELECT CAST('x' AS INT) FROM m", Err("Cannot cast string 'x'")),
        ("SELECT 1 / 0 FROM m WHERE q = 1 AND p = 7", Ok("")),
    ] {
        check(sql, expected).await;
    }
}

#[tokio::test]
async fn rounded_decimals_are_of_the_type_that_they_say() {
    for (sql, expected) in [
        ("SELECT round(CAST('99.99' AS DECIMAL(12,2)), 1) > CAST('1.5' AS DECIMAL(12,2))", Ok("true")),
        ("SELECT round(CAST('1234.5' AS DECIMAL(12,2)), -2) = 1200", Ok("true")),
        ("SELECT round(price, 2) > round(1.239, 2) FROM m WHERE price < 1", Ok("false")),
        (
            "SELECT round(1.5) = 2, round(-2.5) = -3, round(CAST('0.05' AS DECIMAL(12,2)), 1) = 0.1",
            Ok("true true true"),
        ),
    ] {
        check(sql, expected).await;
    }
}

#[tokio::test]
async fn numbers_in_the_orders_of_aggregates_are_constants() {
    for (sql, expected) in [
        (
            "SELECT max(q) FILTER (WHERE q > 1), count(first_value) FROM (SELECT q, first_value(q ORDER BY 99) AS first_value FROM m GROUP BY q)",
            Ok("2147483647 4"),
        ),
        ("SELECT array_agg(q ORDER BY 14, q) FROM m WHERE k = 'a'", Ok("[1, 100000]")),
        ("SELECT q, row_number() OVER (ORDER BY 1.5, q DESC) FROM m WHERE k = 'a' ORDER BY 2", Ok("100000 1 | 1 2")),
        (
            "SELECT q, sum(q) OVER w FROM m WHERE k = 'a' WINDOW w AS (ORDER BY 2) ORDER BY 1",
            Ok("1 100001 | 100000 100001"),
        ),
        ("SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY 2) FROM m", Ok("2.0")),
    ] {
        check(sql, expected).await;
    }
}

/// Whatever is computed before may leave any number there.
#[test]
fn what_lies_under_a_null_is_no_time() {
    let nulls = Some(NullBuffer::from(vec![false, true, false]));
    let times = TimestampMicrosecondArray::new(vec![i64::MIN, 1_767_571_201_000_000, i64::MAX].into(), nulls);
    let field = |data_type: DataType| Arc::new(Field::new("x", data_type, true));
    let call = ScalarFunctionArgs {
        args: vec![ColumnarValue::Scalar(ScalarValue::from("day")), ColumnarValue::Array(Arc::new(times))],
        arg_fields: vec![field(DataType::Utf8), field(types::timestamp(false))],
        number_rows: 3,
        return_field: field(types::timestamp(false)),
        config_options: Arc::new(ConfigOptions::default()),
    };
    let days = times::date_trunc().invoke_with_args(call).unwrap().into_array(3).unwrap();
    let days = days.as_primitive::<TimestampMicrosecondType>();
    assert_eq!(days.iter().collect::<Vec<_>>(), [None, Some(1_767_571_200_000_000), None]);
}

/// DataFusion computes a list's items over no rows, and takes what has a value there for a constant.
#[tokio::test]
async fn items_of_lists_are_computed_for_each_row() {
    for (sql, expected) in [
        ("SELECT count(*) FROM m WHERE 'ü' NOT IN (CASE k WHEN k THEN k END, CAST(100 AS TEXT))", Ok("3")),
        ("SELECT q FROM m WHERE q IN (CASE k WHEN 'a' THEN 1 END, 100000) ORDER BY q", Ok("1 | 100000")),
        ("SELECT q FROM m WHERE q NOT IN (CASE WHEN p < 2 THEN q END, 7)", Ok("")),
        ("SELECT q FROM m WHERE q IN (p + 50000, p, 5) ORDER BY q", Ok("1 | 100000")),
        ("SELECT q FROM m WHERE (q IN (CASE WHEN p < 0 THEN q END)) IS NULL ORDER BY q", Ok("1 | 100000 | 2147483647")),
    ] {
        check(sql, expected).await;
    }
}

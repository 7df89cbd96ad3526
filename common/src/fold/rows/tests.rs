use std::{fmt, sync::Arc};

use datafusion::{
    arrow::{
        datatypes::{DataType, Schema},
        record_batch::RecordBatch,
    },
    datasource::memory::MemorySourceConfig,
    execution::TaskContext,
    logical_expr::ColumnarValue,
    physical_expr::expressions::Column,
    physical_plan::{PhysicalExpr, collect},
};

use super::*;
use crate::{
    catalog::Catalog,
    fold::{Collector, Fold, HAVING},
    log::Chunk,
    values::{Decoder, output},
};

/// `a` is the event's own number in all of them.
const EVENTS: &[&str] = &[
    r#"{"k": "x", "a": 0, "b": 5, "t": "7", "ms": 1764200000000, "tags": [1, 2]}"#,
    r#"{"k": "x", "a": 1, "b": 0, "t": "seven", "ms": 1764200000000000000, "tags": []}"#,
    r#"{"k": "y", "a": 2, "b": 2, "t": "9", "ms": null, "tags": [3]}"#,
    r#"{"k": "y", "a": 3, "b": null, "t": null, "ms": 9223372036854775807, "tags": null}"#,
    r#"{"k": "y", "a": 4, "b": 0, "t": "", "ms": 0, "tags": [9223372036854775807]}"#,
    r#"{"k": "y", "a": 5, "b": -1, "t": "-3", "ms": 1, "tags": [-4]}"#,
];

fn planned(select: &str) -> (Fold, RecordBatch) {
    let sql = format!(
        "CREATE TABLE e (k TEXT NOT NULL, a BIGINT, b BIGINT, t TEXT, ms BIGINT, tags BIGINT[]) WITH (partitions = 1);
         CREATE MATERIALIZED VIEW v AS {select};"
    );
    let catalog = Catalog::parse(&[("e.sql".to_owned(), sql)]).unwrap_or_else(|faults| panic!("{faults}"));
    let mut chunk = Chunk::new(0, 0);
    for (offset, event) in (0..).zip(EVENTS) {
        chunk.push(offset, 1000 + offset, Some(event.as_bytes()));
    }
    let decoded = Decoder::new(catalog.datasets["e"].clone()).decode(&chunk);
    assert!(decoded.dead.is_empty(), "{:?}", decoded.dead);
    let fold = catalog.views["v"].fold.clone();
    let rows = decoded.rows.project(fold.projection()).unwrap();
    (fold, rows)
}

/// The answer's rows, those of groups of which something failed marked, and the failed events.
async fn folded(fold: &Fold, rows: &RecordBatch, at_once: usize) -> (Vec<String>, Failed) {
    let context = Arc::new(TaskContext::default());
    let (mut states, mut failed) = (Vec::new(), Failed::default());
    for from in (0..rows.num_rows()).step_by(at_once) {
        let some = rows.slice(from, at_once.min(rows.num_rows() - from));
        let (state, some) = fold.partial(vec![some], &context).await.unwrap();
        states.push(state);
        failed.join(&some);
    }
    let reduced = fold.reduce(states.clone(), &context).await.unwrap();
    let (finished, complete) = (fold.finish(states, &context).await.unwrap(), fold.complete(&reduced).unwrap());
    let lines = |finished: &RecordBatch| {
        let marks = finished.column(fold.failed()).as_boolean().clone();
        let passes = finished.column_by_name(HAVING).map(|passes| passes.as_boolean().clone());
        let visible = finished.project(&(0..fold.visible()).collect::<Vec<_>>()).unwrap();
        let mut text = Vec::new();
        output::write_rows(&visible, &mut text, b"\n").unwrap();
        let text = String::from_utf8(text).unwrap();
        let mut lines: Vec<String> = text
            .lines()
            .enumerate()
            .filter(|(row, _)| passes.as_ref().is_none_or(|passes| passes.iter().nth(*row).unwrap() == Some(true)))
            .map(|(row, line)| if marks.value(row) { format!("{line} failed") } else { line.to_owned() })
            .collect();
        lines.sort();
        lines
    };
    assert_eq!(lines(&finished), lines(&complete), "finish and complete");
    (lines(&finished), failed)
}

async fn check(select: &str, failed: &[i64], rows: &[&str]) {
    let (fold, input) = planned(select);
    for at_once in [EVENTS.len(), 4, 2, 1] {
        let (got, some) = folded(&fold, &input, at_once).await;
        let mut offsets: Vec<i64> = some.newest(100).iter().map(|event| event.offset).collect();
        offsets.sort_unstable();
        assert_eq!((offsets.as_slice(), some.count()), (failed, failed.len() as i64), "{select} by {at_once}");
        assert_eq!(got, rows, "{select} by {at_once}");
    }
}

#[tokio::test]
async fn an_event_whose_row_cannot_be_computed_costs_that_row() {
    for (select, failed, rows) in [
        ("SELECT count(*) AS n FROM e", &[][..], &[r#"{"n":6}"#][..]),
        ("SELECT sum(a / b) AS s FROM e", &[1, 4], &[r#"{"s":-4}"#]),
        ("SELECT k, count(a / b) AS n FROM e GROUP BY k", &[1, 4], &[r#"{"k":"x","n":1}"#, r#"{"k":"y","n":2}"#]),
        ("SELECT a % b AS m, count(*) AS n FROM e WHERE k = 'x' GROUP BY 1", &[1], &[r#"{"m":0,"n":1}"#]),
        ("SELECT count(*) AS n FROM e WHERE a / b > 0", &[1, 4], &[r#"{"n":1}"#]),
        ("SELECT sum(CAST(t AS INT)) AS s FROM e", &[1, 4], &[r#"{"s":13}"#]),
        ("SELECT count(*) AS n, sum(TRY_CAST(t AS INT)) AS s FROM e", &[], &[r#"{"n":6,"s":13}"#]),
        ("SELECT first_value(k ORDER BY CAST(t AS INT)) AS f FROM e WHERE t IS NOT NULL", &[1, 4], &[r#"{"f":"y"}"#]),
        (
            "SELECT count(arrow_cast(ms, 'Timestamp(Millisecond, None)')::timestamp) AS n FROM e",
            &[1, 3],
            &[r#"{"n":3}"#],
        ),
        ("SELECT count(rpad(k, ms)) AS n FROM e WHERE ms IS NOT NULL", &[0, 1, 3], &[r#"{"n":2}"#]),
        ("SELECT count(k || repeat('ab', ms)) AS n FROM e WHERE ms IS NOT NULL", &[0, 1, 3], &[r#"{"n":2}"#]),
        ("SELECT count(*) FILTER (WHERE 10 / b > 1) AS n, count(*) AS all FROM e", &[1, 4], &[r#"{"n":2,"all":4}"#]),
        (
            "SELECT count(*) AS n, max(regexp_replace(t, '(', 'x')) AS m FROM e WHERE t IS NOT NULL",
            &[0, 1, 2, 4, 5],
            &[r#"{"n":0,"m":null}"#],
        ),
    ] {
        check(select, failed, rows).await;
    }
}

/// What a row is not asked for cannot fail: neither what stands behind a condition that it does not pass, nor an
/// argument that its `FILTER` leaves out.
#[tokio::test]
async fn what_is_not_asked_of_a_row_does_not_fail() {
    for (select, failed, rows) in [
        ("SELECT count(*) AS n FROM e WHERE b <> 0 AND 10 / b > 1", &[][..], &[r#"{"n":2}"#][..]),
        ("SELECT count(*) AS n FROM e WHERE 10 / b > 1 AND b <> 0", &[], &[r#"{"n":2}"#]),
        ("SELECT sum(a / b) AS s FROM e WHERE b <> 0", &[], &[r#"{"s":-4}"#]),
        ("SELECT sum(a / b) FILTER (WHERE b <> 0) AS s, count(*) AS n FROM e", &[], &[r#"{"s":-4,"n":6}"#]),
        ("SELECT sum(CASE WHEN b = 0 THEN 0 ELSE a / b END) AS s FROM e", &[], &[r#"{"s":-4}"#]),
        ("SELECT array_agg(a ORDER BY a / b) FILTER (WHERE b > 0) AS l FROM e", &[], &[r#"{"l":[0,2]}"#]),
    ] {
        check(select, failed, rows).await;
    }
}

#[tokio::test]
async fn a_group_without_a_value_is_null_and_said() {
    for (select, rows) in [
        ("SELECT k, a / b AS r, count(*) AS n FROM e WHERE b = 0 GROUP BY k, a, b", &[][..]),
        (
            "SELECT k, sum(a) / sum(b) AS r, count(*) AS n FROM e WHERE a IN (1, 2, 5) GROUP BY k",
            &[r#"{"k":"x","r":null,"n":1} failed"#, r#"{"k":"y","r":7.0000,"n":2}"#],
        ),
        (
            "SELECT k, count(*) AS n FROM e WHERE a IN (1, 2, 5) GROUP BY k HAVING sum(a) / sum(b) > 1",
            &[r#"{"k":"y","n":2}"#],
        ),
        ("SELECT sum(a) / sum(b) AS r, max(a) AS m FROM e WHERE b = 0", &[r#"{"r":null,"m":4} failed"#]),
    ] {
        let failed: &[i64] = if rows.is_empty() { &[1, 4] } else { &[] };
        let rows = if rows.is_empty() { &[][..] } else { rows };
        if select.contains("GROUP BY k, a, b") {
            // The keys' own expression is an output: the groups are there, without it.
            let (fold, input) = planned(select);
            let (got, some) = folded(&fold, &input, 2).await;
            assert_eq!((got.len(), some.count()), (2, 0), "{got:?} {failed:?}");
            assert!(got.iter().all(|row| row.ends_with("failed")), "{got:?}");
            continue;
        }
        check(select, &[], rows).await;
    }
}

#[tokio::test]
async fn a_reason_says_what_with_which_values() {
    let (fold, input) = planned("SELECT sum(a / b) AS s FROM e");
    let (_, failed) = folded(&fold, &input, 100).await;
    let newest = failed.newest(1);
    assert_eq!((newest[0].partition, newest[0].timestamp_us), (0, 1_004_000));
    assert!(newest[0].reason.contains("with `a` = `4`, `b` = `0`"), "{}", newest[0].reason);
    assert!(newest[0].reason.to_lowercase().contains("divide by zero"), "{}", newest[0].reason);
}

/// A stream without positions is enough until an event fails.
#[tokio::test]
async fn positions_are_asked_for_when_an_event_fails() {
    for (select, is_enough) in [
        ("SELECT count(*) AS n FROM e", true),
        ("SELECT sum(a / b) AS s FROM e WHERE b <> 0", true),
        ("SELECT sum(a / b) AS s FROM e", false),
    ] {
        let (fold, input) = planned(select);
        let width = fold.unplaced_projection().len();
        let rows = input.project(&(0..width).collect::<Vec<_>>()).unwrap();
        let source = MemorySourceConfig::try_new_exec(&[vec![rows.clone()]], rows.schema(), None).unwrap();
        let plan = fold.partial_plan(source, &Collector::default()).unwrap();
        let states = collect(plan, Arc::new(TaskContext::default())).await;
        assert_eq!(states.as_ref().map_err(is_unplaced).err(), (!is_enough).then_some(true), "{select}");
    }
}

/// Panics where it is computed for a row whose `b` is 0.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Panics(Column);

impl fmt::Display for Panics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "panics({})", self.0)
    }
}

impl PhysicalExpr for Panics {
    fn data_type(&self, _: &Schema) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn nullable(&self, _: &Schema) -> Result<bool> {
        Ok(true)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let values = self.0.evaluate(batch)?.into_array(batch.num_rows())?;
        assert!(!values.as_primitive::<Int64Type>().iter().any(|value| value == Some(0)), "zero is not expected");
        Ok(ColumnarValue::Array(values))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        Vec::new()
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        Ok(self)
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[tokio::test]
async fn a_panic_is_a_failure_of_the_row_that_it_comes_from() {
    let (mut fold, input) = planned("SELECT max(a / b) AS s, count(*) AS n FROM e");
    let b = Column::new_with_schema("b", fold.input()).unwrap();
    let rows = Rows {
        conditions: Vec::new(),
        columns: vec![Computed { expr: Arc::new(Panics(b)), sql: "panics(b)".to_owned(), only_where: None }],
        width: fold.rows.width,
        output: fold.rows.output.clone(),
        position: fold.rows.position,
    };
    fold.rows = Arc::new(rows);
    for at_once in [6, 3, 1] {
        let (rows, failed) = folded(&fold, &input, at_once).await;
        assert_eq!((rows, failed.count()), (vec![r#"{"s":5,"n":4}"#.to_owned()], 2));
        assert!(failed.newest(1)[0].reason.contains("it panicked: zero is not expected"));
    }
}

//! Every scalar function that there is, as a view's group key or inside an aggregate, over values at the edges: events
//! split into parts that are merged give what each event gives by itself.

use std::{collections::BTreeMap, sync::Arc};

use datafusion::{
    arrow::{
        array::{
            Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
            Int32Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray, TimestampMicrosecondArray,
        },
        compute::{CastOptions, cast, cast_with_options, concat_batches},
        datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit},
        util::display::{ArrayFormatter, FormatOptions},
    },
    common::Result,
    datasource::MemTable,
    logical_expr::{ScalarUDF, Volatility, type_coercion::functions::fields_with_udf},
    prelude::SessionContext,
};

use super::{contexts, query, visible};
use crate::{
    catalog::Dataset,
    fold::{Fold, plan::session},
};

/// Functions that are not tried, and why.
const NOT_TRIED: &[(&str, &str)] = &[
    ("arrow_field", "says what an expression is, not what a row has"),
    ("arrow_metadata", "says what an expression is, not what a row has"),
    ("with_metadata", "says what an expression is, not what a row has"),
    ("union_extract", "no column is a union"),
    ("union_tag", "no column is a union"),
    ("map_entries", "no column is a map"),
    ("map_extract", "no column is a map"),
    ("map_keys", "no column is a map"),
    ("map_values", "no column is a map"),
];

/// What functions are called with, by its type.
const COLUMNS: &[&str] =
    &["b", "i", "n", "x", "r", "d", "s", "u", "at", "tz", "day", "tags", "nums", "p", "'a'", "2", "interval '1 day'"];

/// Second arguments.
const SECOND: &[&str] = &["s", "i", "n", "x", "at", "day", "tags", "nums", "'a'", "2", "'day'", "0"];

/// What a function is called with that the others do not fit, or do not try.
const BY_NAME: &[(&str, &[&str])] = &[
    ("arrow_cast", &["i, 'Int64'", "s, 'Utf8View'"]),
    ("arrow_try_cast", &["s, 'Int64'"]),
    ("array_element", &["tags, i", "nums, 1"]),
    ("array_except", &["tags, tags"]),
    ("array_remove_n", &["tags, 'a', 1"]),
    ("array_replace", &["tags, 'a', s"]),
    ("array_replace_all", &["tags, 'a', s"]),
    ("array_replace_n", &["tags, 'a', s, 1"]),
    ("array_slice", &["tags, 1, i", "nums, 2, 3"]),
    ("array_sort", &["nums", "tags, 'DESC', 'NULLS LAST'"]),
    ("array_to_string", &["tags, ','", "tags, ',', 'none'"]),
    ("concat_ws", &["'-', s, s"]),
    ("date_bin", &["interval '1 hour', at", "interval '15 minutes', at, timestamp '2001-01-01'"]),
    ("date_part", &["'epoch', at", "'week', day", "'hour', tz"]),
    ("date_trunc", &["'month', at", "'hour', tz", "'week', at"]),
    ("decode", &["s, 'hex'", "s, 'base64'"]),
    ("digest", &["s, 'sha256'"]),
    ("encode", &["u, 'hex'", "u, 'base64'"]),
    ("find_in_set", &["s, 'a,b,c'"]),
    ("get_field", &["p, 'a'", "p, 'c'"]),
    ("lpad", &["s, 5, 'xy'"]),
    ("rpad", &["s, 5, 'xy'"]),
    ("make_date", &["i, 2, 3"]),
    ("make_time", &["i, 2, 3"]),
    ("map", &["[s], [i]"]),
    ("named_struct", &["'a', i, 'c', s"]),
    ("overlay", &["s, 'xy', 2"]),
    ("regexp_count", &["s, 'a+'"]),
    ("regexp_extract", &["s, '(a)', 1"]),
    ("regexp_instr", &["s, 'a+'"]),
    ("regexp_like", &["s, '^a'", "s, s"]),
    ("regexp_match", &["s, '(a)(b)?'"]),
    ("regexp_replace", &["s, 'a', 'b'"]),
    ("replace", &["s, 'a', 'bb'"]),
    ("split_part", &["s, 'a', 1", "s, 'a', i"]),
    ("substr", &["s, 2", "s, i, 2"]),
    ("substr_index", &["s, 'a', 1"]),
    ("translate", &["s, 'ab', 'ba'"]),
    ("nvl2", &["i, n, n"]),
    ("array_any_value", &["tags"]),
    ("array_repeat", &["s, 2", "tags, 2", "i, 0"]),
    ("repeat", &["s, 2", "s, -1"]),
    ("array_resize", &["nums, 3, 0"]),
    ("generate_series", &["1, 3"]),
    ("range", &["1, 3"]),
    ("to_char", &["at, '%Y-%m'", "day, '%d'"]),
    ("to_date", &["s", "'2024-01-02'"]),
    ("to_local_time", &["tz", "at"]),
    ("to_timestamp", &["s", "n", "x"]),
    ("to_timestamp_micros", &["n"]),
    ("to_timestamp_millis", &["n", "i"]),
    ("to_timestamp_nanos", &["n"]),
    ("to_timestamp_seconds", &["n", "i"]),
    ("width_bucket", &["x, 0, 10, 5"]),
];

fn columns() -> Vec<(&'static str, ArrayRef)> {
    let list = Field::new("element", DataType::Utf8, true);
    let tags = [
        Some(vec![Some("a"), None, Some("b")]),
        Some(vec![]),
        None,
        Some(vec![Some(""), Some("\u{10ffff}")]),
        Some(vec![Some("a"), Some("a")]),
        Some(vec![None]),
    ];
    let tags = {
        let mut builder =
            datafusion::arrow::array::ListBuilder::new(datafusion::arrow::array::StringBuilder::new()).with_field(list);
        tags.into_iter().for_each(|row| builder.append_option(row));
        builder.finish()
    };
    let nums = [
        Some(vec![Some(1), Some(2), Some(3)]),
        Some(vec![Some(i64::MAX), Some(i64::MIN)]),
        None,
        Some(vec![]),
        Some(vec![None, Some(0)]),
        Some(vec![Some(2), Some(1), Some(2)]),
    ];
    let member = |name: &str, data_type| Arc::new(Field::new(name, data_type, true));
    let p = StructArray::from(vec![
        (
            member("a", DataType::Int64),
            Arc::new(Int64Array::from(vec![Some(1), None, Some(i64::MAX), Some(0), Some(-1), Some(2)])) as ArrayRef,
        ),
        (
            member("c", DataType::Utf8),
            Arc::new(StringArray::from(vec![Some("a"), Some(""), None, Some("b"), Some("a"), Some("a")])),
        ),
    ]);
    let year_1 = -62_135_596_800_000_000;
    let year_9999 = 253_402_300_799_999_999;
    let at = vec![Some(0), Some(year_1), Some(year_9999), None, Some(1_700_000_000_000_001), Some(-1)];
    vec![
        ("b", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None, Some(true), Some(false), Some(true)]))),
        ("i", Arc::new(Int32Array::from(vec![Some(0), Some(1), Some(-1), None, Some(i32::MAX), Some(i32::MIN)]))),
        ("n", Arc::new(Int64Array::from(vec![Some(3), Some(i64::MAX), Some(i64::MIN), None, Some(-1), Some(0)]))),
        (
            "x",
            Arc::new(Float64Array::from(vec![
                Some(f64::NAN),
                Some(f64::INFINITY),
                Some(-0.5),
                None,
                Some(0.0),
                Some(f64::MAX),
            ])),
        ),
        ("r", Arc::new(Float32Array::from(vec![Some(1.5), Some(f32::MIN), None, Some(0.0), Some(-1.0), Some(2.5)]))),
        (
            "d",
            Arc::new(
                Decimal128Array::from(vec![Some(150), Some(-250), Some(999_999_999_999), None, Some(0), Some(1)])
                    .with_precision_and_scale(12, 2)
                    .unwrap(),
            ),
        ),
        (
            "s",
            Arc::new(StringArray::from(vec![
                Some("a"),
                Some(""),
                None,
                Some("Abc aab\u{10ffff}"),
                Some("2024-02-29T01:02:03"),
                Some("12"),
            ])),
        ),
        (
            "u",
            Arc::new(BinaryArray::from(vec![
                Some(&b"a"[..]),
                Some(&b""[..]),
                None,
                Some(&b"\xff\x00"[..]),
                Some(&b"abc"[..]),
                Some(&b"a"[..]),
            ])),
        ),
        ("at", Arc::new(TimestampMicrosecondArray::from(at.clone()))),
        ("tz", Arc::new(TimestampMicrosecondArray::from(at).with_timezone("UTC"))),
        (
            "day",
            Arc::new(Date32Array::from(vec![Some(0), Some(-719_162), Some(2_932_896), None, Some(19_782), Some(1)])),
        ),
        ("tags", Arc::new(tags)),
        ("nums", {
            let nums = ListArray::from_iter_primitive::<Int64Type, _, _>(nums);
            let element = DataType::List(Arc::new(Field::new("element", DataType::Int64, true)));
            cast(&nums, &element).unwrap()
        }),
        ("p", Arc::new(p)),
    ]
}

/// The rows twice, with their positions.
fn events() -> (Arc<Dataset>, RecordBatch) {
    let columns = columns();
    let mut fields: Vec<Field> =
        columns.iter().map(|(name, values)| Field::new(*name, values.data_type().clone(), true)).collect();
    let own = Arc::new(Schema::new(fields.clone()));
    fields.push(Field::new("_partition", DataType::Int32, false));
    fields.push(Field::new("_offset", DataType::Int64, false));
    fields.push(Field::new("_timestamp", DataType::Timestamp(TimeUnit::Microsecond, None), false));
    let schema = Arc::new(Schema::new(fields));
    let once: Vec<ArrayRef> = columns.into_iter().map(|(_, values)| values).collect();
    let once = RecordBatch::try_new(own.clone(), once).unwrap();
    let twice = concat_batches(&own, &[once.clone(), once]).unwrap();
    let n = i32::try_from(twice.num_rows()).unwrap();
    let mut all = twice.columns().to_vec();
    all.push(Arc::new((0..n).map(|row| Some(row % 2)).collect::<Int32Array>()));
    all.push(Arc::new((0..n).map(|row| Some(i64::from(row))).collect::<Int64Array>()));
    all.push(Arc::new((0..n).map(|row| Some(i64::from(row))).collect::<TimestampMicrosecondArray>()));
    let dataset = super::dataset_of(own, schema.clone());
    (dataset, RecordBatch::try_new(schema, all).unwrap())
}

/// The arguments that a function takes, a few of them.
fn arguments(function: &ScalarUDF, schema: &SchemaRef) -> Vec<String> {
    if let Some((_, arguments)) = BY_NAME.iter().find(|(name, _)| *name == function.name()) {
        return arguments.iter().map(|arguments| (*arguments).to_owned()).collect();
    }
    let field = |argument: &str| -> Arc<Field> {
        let data_type = match argument {
            "2" | "0" => DataType::Int64,
            text if text.starts_with('\'') => DataType::Utf8,
            text if text.starts_with("interval") => {
                DataType::Interval(datafusion::arrow::datatypes::IntervalUnit::MonthDayNano)
            }
            column => schema.field_with_name(column).unwrap().data_type().clone(),
        };
        Arc::new(Field::new(argument, data_type, true))
    };
    let takes = |arguments: &[&str]| {
        let fields: Vec<Arc<Field>> = arguments.iter().map(|argument| field(argument)).collect();
        fields_with_udf(&fields, function).is_ok()
    };
    let mut found = Vec::new();
    if takes(&[]) {
        found.push(String::new());
    }
    found.extend(COLUMNS.iter().filter(|column| takes(&[column])).map(|column| (*column).to_owned()));
    let pairs = COLUMNS.iter().flat_map(|first| SECOND.iter().map(move |second| [*first, *second]));
    let pairs: Vec<String> = pairs.filter(|pair| takes(pair)).map(|pair| pair.join(", ")).collect();
    // Every few, as there are many.
    let few = |calls: Vec<String>| {
        let step = calls.len() / 3 + 1;
        calls.into_iter().step_by(step)
    };
    few(found).chain(few(pairs)).collect()
}

/// How often each value is there.
type Counts = BTreeMap<String, i64>;

fn counts(batches: &[RecordBatch], data_type: &DataType) -> Result<Counts> {
    let mut counts = Counts::new();
    let options = FormatOptions::new().with_null("NULL");
    let exact = CastOptions { safe: false, ..CastOptions::default() };
    for batch in batches {
        let values = cast_with_options(batch.column(0), data_type, &exact)?;
        let formatter = ArrayFormatter::try_new(&values, &options)?;
        let n = batch.column(1).as_any().downcast_ref::<Int64Array>().unwrap();
        for row in 0..batch.num_rows() {
            let value = formatter.value(row).try_to_string().unwrap_or_else(|error| error.to_string());
            // Groups do not tell zeros apart, nor what is not a number.
            let value = match value.as_str() {
                "-NaN" => "NaN".to_owned(),
                "-0.0" => "0.0".to_owned(),
                _ => value,
            };
            *counts.entry(value).or_default() += n.value(row);
        }
    }
    Ok(counts)
}

/// Each event by itself, in a session with one table for each: the values, and how many events have none.
async fn one_by_one(call: &str, alone: &SessionContext, rows: usize, to: &DataType) -> (Counts, usize) {
    let ask = async |table: &str| {
        let answer = alone.sql(&format!("select {call} as v, 1 as n from {table} as t")).await?;
        counts(&answer.collect().await?, to)
    };
    if let Ok(all) = ask("each").await {
        return (all, 0);
    }
    let (mut expected, mut failed) = (Counts::new(), 0);
    for row in 0..rows {
        match ask(&format!("row{row}")).await {
            Ok(one) => one.into_iter().for_each(|(value, n)| *expected.entry(value).or_default() += n),
            Err(_) => failed += 1,
        }
    }
    (expected, failed)
}

/// A table `each` with a batch for each row, and a table for each.
fn alone(all: &RecordBatch) -> SessionContext {
    let context = session();
    let rows: Vec<RecordBatch> = (0..all.num_rows()).map(|row| all.slice(row, 1)).collect();
    for (row, batch) in rows.iter().enumerate() {
        let table = MemTable::try_new(all.schema(), vec![vec![batch.clone()]]).unwrap();
        context.register_table(format!("row{row}"), Arc::new(table)).unwrap();
    }
    context.register_table("each", Arc::new(MemTable::try_new(all.schema(), vec![rows]).unwrap())).unwrap();
    context
}

enum Tried {
    Same,
    Refused(String),
    Different(String),
}

async fn tried(call: &str, dataset: &Arc<Dataset>, all: &RecordBatch, alone: &SessionContext) -> Tried {
    let sql = format!("select {call} as v, count(*) as n from t group by 1");
    let fold = match Fold::plan(dataset, &query(&sql)) {
        Ok(fold) => fold,
        Err(refusal) => return Tried::Refused(refusal.reason),
    };
    let context = &contexts()[0];
    let input = all.project(fold.projection()).unwrap();
    let (mut states, mut lost) = (Vec::new(), 0);
    for (start, rows) in [(0, 5), (5, 1), (6, 6)] {
        match fold.partial(vec![input.slice(start, rows)], context).await {
            Ok((state, failed)) => {
                lost += usize::try_from(failed.count()).unwrap();
                states.push(state);
            }
            Err(error) => return Tried::Different(format!("{call}: {error}")),
        }
    }
    let reduced = fold.reduce(states.split_off(1), context).await.unwrap();
    states.push(super::through_parquet(&fold, &reduced).0);
    let merged = visible(&fold, &fold.finish(states, context).await.unwrap());
    let data_type = fold.finished().field(0).data_type();
    let merged = counts(&[merged], data_type).unwrap();
    let (expected, failed) = one_by_one(call, alone, all.num_rows(), data_type).await;
    match merged == expected && lost == failed {
        true => Tried::Same,
        false => {
            Tried::Different(format!("{call}: {merged:?}, {lost} failed; one by one {expected:?}, {failed} failed"))
        }
    }
}

#[tokio::test]
async fn every_function_is_the_same_in_parts() {
    let (dataset, all) = events();
    let alone = alone(&all);
    let state = session().state();
    let functions: BTreeMap<String, Arc<ScalarUDF>> =
        state.scalar_functions().values().map(|function| (function.name().to_owned(), function.clone())).collect();
    let (mut different, mut never) = (Vec::new(), Vec::new());
    for (name, function) in &functions {
        if NOT_TRIED.iter().any(|(other, _)| other == name) {
            continue;
        }
        let is_immutable = function.signature().volatility == Volatility::Immutable;
        let mut reasons = Vec::new();
        let mut ran = false;
        for arguments in arguments(function, &dataset.schema) {
            match tried(&format!("{name}({arguments})"), &dataset, &all, &alone).await {
                Tried::Same => ran = true,
                Tried::Refused(reason) => reasons.push(reason),
                Tried::Different(difference) => different.push(difference),
            }
        }
        let by_type = reasons.iter().any(|reason| reason.contains("cannot group") || reason.contains("cannot hold"));
        let is_refused = !is_immutable && reasons.iter().all(|reason| reason.contains("gives another value each time"));
        if !ran && !by_type && !is_refused {
            never.push(format!("{name}: {:?}", reasons.first()));
        }
    }
    assert!(never.is_empty(), "functions that no view has tried:\n{}", never.join("\n"));
    assert!(different.is_empty(), "{} differ:\n{}", different.len(), different.join("\n"));
}

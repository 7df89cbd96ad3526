//! Every aggregate, split at random between files and micro-batches, equals the plain query.

mod covered;
mod golden;
mod scalars;
mod shapes;

use std::{panic::AssertUnwindSafe, sync::Arc};

use datafusion::{
    arrow::{
        array::{
            Array, ArrayRef, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
            TimestampMicrosecondArray,
        },
        compute::{SortColumn, cast, concat_batches, lexsort_to_indices, take},
        datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
        util::pretty::pretty_format_batches,
    },
    datasource::MemTable,
    execution::{
        TaskContext,
        memory_pool::{FairSpillPool, UnboundedMemoryPool},
        runtime_env::RuntimeEnvBuilder,
    },
    prelude::SessionConfig,
};
use futures::FutureExt;
use sqlparser::{
    ast::{Query, Statement},
    parser::Parser,
};

use super::{Fold, Refusal, from_stored, plan::session, to_stored};
use crate::{
    catalog::Dataset,
    storage::parquet::{File, Layout},
};

fn dataset() -> Arc<Dataset> {
    let events = vec![
        Field::new("k", DataType::Int64, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("q", DataType::Int32, true),
        Field::new("x", DataType::Float64, true),
        Field::new("amount", DataType::Decimal128(12, 2), true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
    ];
    let mut all = events.clone();
    all.push(Field::new("_partition", DataType::Int32, false));
    all.push(Field::new("_offset", DataType::Int64, false));
    all.push(Field::new("_timestamp", DataType::Timestamp(TimeUnit::Microsecond, None), false));
    dataset_of(Arc::new(Schema::new(events)), Arc::new(Schema::new(all)))
}

fn dataset_of(columns: SchemaRef, schema: SchemaRef) -> Arc<Dataset> {
    Arc::new(Dataset {
        name: "t".to_owned(),
        topic: "t".to_owned(),
        key: None,
        partitions: 1,
        columns,
        schema,
        checks: Vec::new(),
        sql: String::new(),
        definition: String::new(),
    })
}

fn rows(schema: &SchemaRef, n: usize, keys: i64, random: &mut fastrand::Rng) -> RecordBatch {
    let maybe = |p: f64, random: &mut fastrand::Rng| random.f64() >= p;
    let columns: Vec<ArrayRef> = vec![
        Arc::new((0..n).map(|_| maybe(0.1, random).then(|| random.i64(0..keys))).collect::<Int64Array>()),
        Arc::new(
            (0..n).map(|_| maybe(0.1, random).then(|| format!("n{}", random.u32(0..50)))).collect::<StringArray>(),
        ),
        Arc::new((0..n).map(|_| maybe(0.1, random).then(|| random.i32(-5..10))).collect::<Int32Array>()),
        Arc::new(
            (0..n)
                .map(|_| maybe(0.1, random).then(|| f64::from(random.i32(-1000..1000)) / 8.0))
                .collect::<Float64Array>(),
        ),
        Arc::new(
            (0..n)
                .map(|_| maybe(0.1, random).then(|| i128::from(random.i64(-100_000..1_000_000))))
                .collect::<Decimal128Array>()
                .with_precision_and_scale(12, 2)
                .unwrap(),
        ),
        Arc::new(
            (0..n)
                .map(|_| {
                    maybe(0.1, random)
                        .then(|| 1_700_000_000_000_000 + random.i64(0..3) * 86_400_000_000 + random.i64(0..1000))
                })
                .collect::<TimestampMicrosecondArray>(),
        ),
        Arc::new((0..n).map(|i| Some(i32::try_from(i % 3).unwrap())).collect::<Int32Array>()),
        Arc::new((0..n).map(|i| Some(i as i64)).collect::<Int64Array>()),
        Arc::new((0..n).map(|i| Some(i as i64 * 1000)).collect::<TimestampMicrosecondArray>()),
    ];
    RecordBatch::try_new(schema.clone(), columns).unwrap()
}

pub(crate) fn query(sql: &str) -> Query {
    match Parser::parse_sql(&crate::sql::Dialect, sql).unwrap().remove(0) {
        Statement::Query(query) => *query,
        other => panic!("{other} is no query"),
    }
}

fn contexts() -> Vec<Arc<TaskContext>> {
    let context = |pool: Option<usize>| {
        let builder = RuntimeEnvBuilder::new();
        let runtime = match pool {
            Some(bytes) => builder.with_memory_pool(Arc::new(FairSpillPool::new(bytes))),
            None => builder.with_memory_pool(Arc::new(UnboundedMemoryPool::default())),
        };
        let config = SessionConfig::new()
            .with_target_partitions(1)
            .with_batch_size(64)
            .with_sort_spill_reservation_bytes(64 << 10);
        Arc::new(TaskContext::default().with_session_config(config).with_runtime(runtime.build_arc().unwrap()))
    };
    vec![context(None), context(Some(64 << 20)), context(Some(3 << 20))]
}

/// The batch half: states as a batch view stores them, through a Parquet file and back, with their finished rows.
fn through_parquet(fold: &Fold, states: &RecordBatch) -> (RecordBatch, RecordBatch) {
    let stored = to_stored(states, fold.stored_state()).unwrap();
    let mut file = File::new(fold.stored_state(), Layout::View).unwrap();
    file.write(&stored).unwrap();
    let (bytes, data_file) = file.finish("x".to_owned()).unwrap();
    assert_eq!(data_file.rows, states.num_rows() as i64);
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(bytes, 8192).unwrap();
    let read: Vec<RecordBatch> = reader.map(|batch| batch.unwrap()).collect();
    let read = if read.is_empty() {
        RecordBatch::new_empty(fold.stored_state().clone())
    } else {
        concat_batches(&read[0].schema(), &read).unwrap()
    };
    (from_stored(&read, fold.state()).unwrap(), fold.complete(states).unwrap())
}

fn sorted(batch: &RecordBatch) -> RecordBatch {
    let columns: Vec<SortColumn> = batch
        .columns()
        .iter()
        .filter(|column| !column.data_type().is_nested())
        .map(|values| SortColumn { values: values.clone(), options: None })
        .collect();
    if columns.is_empty() {
        return batch.clone();
    }
    let order = lexsort_to_indices(&columns, None).unwrap();
    RecordBatch::try_new(
        batch.schema(),
        batch.columns().iter().map(|column| take(column, &order, None).unwrap()).collect(),
    )
    .unwrap()
}

/// Floats to a tolerance, everything else to the bit.
fn same(left: &RecordBatch, right: &RecordBatch) -> bool {
    left.num_rows() == right.num_rows()
        && left.columns().iter().zip(right.columns()).all(|(a, b)| {
            if let (Some(a), Some(b)) =
                (a.as_any().downcast_ref::<Float64Array>(), b.as_any().downcast_ref::<Float64Array>())
            {
                return a.iter().zip(b).all(|(a, b)| match (a, b) {
                    (Some(a), Some(b)) => {
                        (a - b).abs() <= 1e-6 * (1.0 + a.abs().max(b.abs())) || (a.is_nan() && b.is_nan())
                    }
                    (a, b) => a == b,
                });
            }
            a == b
        })
}

async fn check(sql: &str, seeds: std::ops::Range<u64>) {
    check_as(sql, &with_last_sort_keys(sql), seeds).await;
}

/// Each view equals its plain query; all that do not are told.
async fn check_all<'a>(cases: impl IntoIterator<Item = (&'a str, &'a str)>, seeds: std::ops::Range<u64>) {
    let mut different = Vec::new();
    for (sql, means) in cases {
        if AssertUnwindSafe(check_as(sql, means, seeds.clone())).catch_unwind().await.is_err() {
            different.push(sql);
        }
    }
    assert!(different.is_empty(), "these differ, as said above: {different:#?}");
}

/// The view equals the plain query `means`.
async fn check_as(sql: &str, means: &str, seeds: std::ops::Range<u64>) {
    let dataset = dataset();
    let fold = Fold::plan(&dataset, &query(sql)).unwrap_or_else(|refusal| panic!("{sql}: {refusal:?}"));
    for seed in seeds {
        let mut random = fastrand::Rng::with_seed(seed);
        let n = [0, 1, 7, 300, 3000][random.usize(0..5)];
        let all = rows(&dataset.schema, n, [1, 20, 2000][random.usize(0..3)], &mut random);
        for (at, context) in contexts().iter().enumerate() {
            let input = all.project(fold.projection()).unwrap();
            let cut = random.usize(0..=n);
            let batch = fold.partial(vec![input.slice(0, cut)], context).await.unwrap().0;
            let batch = fold.reduce(vec![batch], context).await.unwrap();
            let (batch, complete) = through_parquet(&fold, &batch);
            let mut states = vec![batch.clone()];
            let mut position = cut;
            while position < n {
                let rows = random.usize(1..=400).min(n - position);
                states.push(fold.partial(vec![input.slice(position, rows)], context).await.unwrap().0);
                position += rows;
                if random.bool() && states.len() > 2 {
                    let some = states.split_off(1);
                    states.push(fold.reduce(some, context).await.unwrap());
                }
            }
            let merged = fold.finish(states, context).await.unwrap();
            let merged = visible(&fold, &merged);
            let expected = plain(&dataset, &all, means, &merged.schema()).await;
            let (merged, expected) = (sorted(&merged), sorted(&expected));
            assert!(
                same(&merged, &expected),
                "{sql}\nseed {seed} context {at} cut {cut} of {n}\nmerged\n{}\nplain\n{}",
                pretty_format_batches(&[merged]).unwrap(),
                pretty_format_batches(&[expected]).unwrap()
            );
            if !fold.keys().is_empty() {
                let finished = fold.finish(vec![batch], context).await.unwrap();
                assert!(
                    same(&sorted(&finished), &sorted(&complete)),
                    "{sql} seed {seed}: complete differs from finish"
                );
            }
        }
    }
}

fn visible(fold: &Fold, finished: &RecordBatch) -> RecordBatch {
    let kept = match fold.has_having() {
        true => {
            let passes = finished.column(finished.num_columns() - 1);
            let passes = passes.as_any().downcast_ref::<datafusion::arrow::array::BooleanArray>().unwrap();
            datafusion::arrow::compute::filter_record_batch(finished, passes).unwrap()
        }
        false => finished.clone(),
    };
    kept.project(&(0..fold.visible()).collect::<Vec<_>>()).unwrap()
}

/// What the fold adds to an order, so that ties fall the same way.
fn with_last_sort_keys(sql: &str) -> String {
    let mut sql = sql.to_owned();
    for order in ["order by at", "order by at desc", "order by q desc"] {
        sql = sql.replace(&format!("{order})"), &format!("{order}, _partition, _offset)"));
    }
    sql.replace("any_value(name)", "first_value(name order by _partition, _offset) filter (where name is not null)")
}

async fn plain(dataset: &Dataset, all: &RecordBatch, sql: &str, schema: &SchemaRef) -> RecordBatch {
    let context = session();
    let table = MemTable::try_new(dataset.schema.clone(), vec![vec![all.clone()]]).unwrap();
    context.register_table("t", Arc::new(table)).unwrap();
    let batches = context.sql(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}")).collect().await.unwrap();
    let one = match batches.first() {
        Some(first) => concat_batches(&first.schema(), &batches).unwrap(),
        None => return RecordBatch::new_empty(schema.clone()),
    };
    let columns =
        one.columns().iter().zip(schema.fields()).map(|(column, field)| cast(column, field.data_type()).unwrap());
    RecordBatch::try_new(schema.clone(), columns.collect()).unwrap()
}

const AGGREGATES: &[&str] = &[
    "count(*)",
    "count(x)",
    "count(distinct name)",
    "count(distinct q)",
    "sum(q)",
    "sum(x)",
    "sum(amount)",
    "sum(distinct q)",
    "avg(x)",
    "avg(q)",
    "avg(amount)",
    "avg(distinct q)",
    "min(at)",
    "max(at)",
    "min(name)",
    "max(amount)",
    "max(x)",
    "approx_distinct(name)",
    "median(x)",
    "median(q)",
    "percentile_cont(0.5) within group (order by x)",
    "stddev(x)",
    "stddev_pop(x)",
    "var_samp(x)",
    "var_pop(x)",
    "corr(x, q)",
    "covar_samp(x, q)",
    "covar_pop(x, q)",
    "regr_slope(x, q)",
    "regr_intercept(x, q)",
    "regr_count(x, q)",
    "regr_r2(x, q)",
    "regr_avgx(x, q)",
    "regr_avgy(x, q)",
    "regr_sxx(x, q)",
    "regr_syy(x, q)",
    "regr_sxy(x, q)",
    "first_value(x order by at)",
    "last_value(x order by at)",
    "last_value(name order by q desc)",
    "bit_and(q)",
    "bit_or(q)",
    "bit_xor(k)",
    "bool_or(q > 8)",
    "bool_and(q > 0)",
    "array_agg(q order by at)",
    "array_agg(distinct q order by q)",
    "string_agg(name, ',' order by at desc)",
    "nth_value(x, 2 order by at)",
    "sum(x) filter (where q > 3)",
    "count(*) filter (where name = 'n1')",
    "sum(amount) / nullif(count(*), 0)",
    "max(x) - min(x)",
    "any_value(name)",
];

/// Those that are within an error bound, and what they are near to.
const DIGESTS: &[(&str, &str)] = &[
    ("approx_median(x)", "median(x)"),
    ("approx_percentile_cont(0.9) within group (order by x)", "percentile_cont(0.9) within group (order by x)"),
    ("approx_percentile_cont(0.9) within group (order by x desc)", "percentile_cont(0.1) within group (order by x)"),
    (
        "approx_percentile_cont_with_weight(1, 0.9) within group (order by x)",
        "percentile_cont(0.9) within group (order by x)",
    ),
];

#[tokio::test]
async fn every_aggregate_merges_by_key() {
    for aggregate in AGGREGATES {
        check(&format!("select k, {aggregate} as v from t group by k"), 0..4).await;
    }
}

#[tokio::test]
async fn every_aggregate_merges_without_keys() {
    for aggregate in AGGREGATES {
        check(&format!("select {aggregate} as v from t"), 10..12).await;
    }
}

/// Merging digests is not associative: they are held to the exact value, within a share of the values' range.
#[tokio::test]
async fn digests_stay_within_their_error() {
    let dataset = dataset();
    let context = &contexts()[0];
    for (aggregate, exact) in DIGESTS {
        let fold = Fold::plan(&dataset, &query(&format!("select {aggregate} as v from t"))).unwrap();
        for seed in 0..5 {
            let all = rows(&dataset.schema, 4000, 20, &mut fastrand::Rng::with_seed(seed));
            let input = all.project(fold.projection()).unwrap();
            let mut states = Vec::new();
            for start in (0..4000).step_by(500) {
                states.push(fold.partial(vec![input.slice(start, 500)], context).await.unwrap().0);
            }
            let batch = fold.reduce(states.split_off(4), context).await.unwrap();
            states.push(through_parquet(&fold, &batch).0);
            let merged = visible(&fold, &fold.finish(states, context).await.unwrap());
            let expected = plain(&dataset, &all, &format!("select {exact} as v from t"), &merged.schema()).await;
            let value = |batch: &RecordBatch| batch.column(0).as_any().downcast_ref::<Float64Array>().unwrap().value(0);
            // The values span 250.
            let error = (value(&merged) - value(&expected)).abs() / 250.0;
            assert!(error < 0.02, "{aggregate} seed {seed}: {} and exactly {}", value(&merged), value(&expected));
        }
    }
}

#[tokio::test]
async fn keys_filters_and_having() {
    for sql in [
        "select name, date_trunc('day', at) as day, count(*) as n, sum(amount) as total, avg(x) as mean from t where q > 0 group by 1, 2",
        "select k, count(*) as n, sum(q) as s from t group by k having count(*) > 2",
        "select count(*) as n from t group by k, name having sum(q) > 3 or max(name) is null",
        "select k % 7 as bucket, upper(name) as n, sum(q) + count(*) as both, first_value(name order by at) as f, last_value(name order by at) as l, array_agg(name order by at) as a from t group by 1, 2",
        "select k from t group by k",
        "select case when q > 3 then 'many' else 'few' end as size, count(distinct k) as ks from t as e where e.name is not null group by 1",
    ] {
        check(sql, 0..12).await;
    }
}

#[test]
fn what_cannot_be_folded_is_refused() {
    let check = |sql: &str, reason: &str| {
        let Refusal { reason: got, .. } = Fold::plan(&dataset(), &query(sql)).expect_err(sql);
        assert!(got.contains(reason), "{sql}: {got}");
    };
    check("select k, now() as t from t group by k", "gives another value each time");
    check("select k, count(*) as n from t group by k order by k", "ORDER BY");
    check("select k, count(*) as n from t group by k limit 3", "LIMIT");
    check("select k, array_agg(x) as n from t group by k", "depends on the order");
    check("select k, count(*) from t group by k", "no name of its own");
    check("select k, row_number() over () as n from t", "window");
    check("select k, x from t", "group keys or aggregates");
    check("select k, count(*) as n from t group by rollup(k)", "grouping sets");
    check("select a.k, count(*) as n from t a join t b on a.k = b.k group by 1", "joins are not allowed");
    check("select k, count(*) as n from t where k in (select k from t) group by 1", "subqueries");
    check("select nope, count(*) as n from t group by 1", "nope");
    check("select k, sum(abs(x) filter (where x > 1)) as n from t group by k", "`FILTER of abs` is not supported");
    check("select k, grouping(k) as v from t group by k", "not known to merge exactly");
    check("select array[k] as t, count(*) as n from t group by 1", "cannot group");
}

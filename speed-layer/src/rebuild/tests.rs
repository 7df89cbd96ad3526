use std::sync::Arc;

use common::{
    catalog::Catalog,
    position::Frontier,
    storage::parquet::{File, Layout},
};
use datafusion::{
    arrow::{
        array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray},
        datatypes::{DataType, Field, Schema},
    },
    execution::{TaskContext, memory_pool::UnboundedMemoryPool},
    physical_plan::collect_partitioned,
};
use object_store::memory::InMemory;

use super::*;

const PARTITIONS: i32 = 64;
const TEXT_BYTES: usize = 4 << 10;
const BATCHES: i64 = 128;

/// Rows of one offset in each partition, as a merged file of the master has them.
fn rows(schema: &SchemaRef, offsets: std::ops::Range<i64>) -> RecordBatch {
    let places: Vec<(i32, i64)> =
        (0..PARTITIONS).flat_map(|partition| offsets.clone().map(move |offset| (partition, offset))).collect();
    let text = |(partition, offset): &(i32, i64)| {
        format!("{:0width$}", offset * 100 + i64::from(*partition), width = TEXT_BYTES)
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from_iter_values(places.iter().map(|(_, offset)| i32::try_from(offset % 5).unwrap()))),
        Arc::new(StringArray::from_iter_values(places.iter().map(text))),
        Arc::new(Int32Array::from_iter_values(places.iter().map(|(partition, _)| *partition))),
        Arc::new(Int64Array::from_iter_values(places.iter().map(|(_, offset)| *offset))),
    ];
    RecordBatch::try_new(schema.clone(), columns).unwrap()
}

#[tokio::test]
async fn what_waits_is_bounded_however_wide_rows_are_and_however_many_partitions() {
    let sql = "CREATE TABLE visits (site INT NOT NULL, agent TEXT NOT NULL) WITH (partitions = 64);
               CREATE MATERIALIZED VIEW agents AS SELECT site, max(agent) AS last, count(*) AS n FROM visits GROUP BY site;";
    let catalog = Catalog::parse(&[("visits.sql".to_owned(), sql.to_owned())]).unwrap();
    let view = catalog.views["agents"].clone();
    let input = view.fold.input();
    let field = |name: &str, data_type| Field::new(name, data_type, false);
    let schema: SchemaRef = Arc::new(Schema::new(vec![
        field("site", DataType::Int32),
        input.field_with_name("agent").unwrap().clone(),
        field("_partition", DataType::Int32),
        field("_offset", DataType::Int64),
    ]));
    let wanted = vec![Wanted { view, cut: Frontier::default() }];
    let partitions: BTreeSet<Partition> = (0..PARTITIONS).collect();
    let context = Arc::new(TaskContext::default());
    let mut folding = Folding::new(wanted, partitions, schema.clone(), context.clone(), 1);
    folding.reduce_bytes = 64 << 10;
    let (mut waited, mut unreduced) = (0, 0);
    for batch in 0..BATCHES {
        let rows = rows(&schema, batch * 16..batch * 16 + 16);
        let batch_bytes = rows.get_array_memory_size();
        folding.take(&rows).await.unwrap();
        waited = waited.max(folding.waiting_bytes);
        assert!(folding.waiting_bytes <= WAITING_BYTES + batch_bytes);
        for folded in folding.folded[0].as_ref().unwrap().values() {
            let bytes: usize = folded.states.iter().map(RecordBatch::get_array_memory_size).sum();
            assert_eq!(bytes, folded.bytes);
            unreduced = unreduced.max(bytes);
        }
    }
    assert!(waited > WAITING_BYTES / 2, "{waited} bytes waited: too few to say anything");
    // One fold's states come on top of what is reduced.
    assert!(unreduced < 4 * (64 << 10) + 64 * TEXT_BYTES, "{unreduced} bytes were not reduced");
    let folded = folding.end().await.unwrap().remove(0).unwrap();
    for partition in 0..PARTITIONS {
        let states = wanted_rows(&catalog, &folded[&partition].states, &context).await;
        assert_eq!(states, BATCHES * 16);
    }
}

/// The events of all groups.
async fn wanted_rows(catalog: &Catalog, states: &[RecordBatch], context: &Arc<TaskContext>) -> i64 {
    let finished = catalog.views["agents"].fold.finish(states.to_vec(), context).await.unwrap();
    let counts = finished.column_by_name("n").unwrap().as_primitive::<Int64Type>();
    counts.values().iter().sum()
}

const SKEWED: &str = "
CREATE TABLE sales (note TEXT NOT NULL) WITH (partitions = 10);
CREATE MATERIALIZED VIEW notes AS SELECT count(*) AS n, max(note) AS last FROM sales;
";

/// The first partition has ten times as many events as any other.
fn events(partition: Partition) -> i64 {
    if partition == 0 { 100_000 } else { 10_000 }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_costs_what_it_has_above_the_cut() {
    let storage = Storage::with_store("memory:///lamina/".parse().unwrap(), Arc::new(InMemory::new())).unwrap();
    let catalog = Catalog::parse(&[("sales.sql".to_owned(), SKEWED.to_owned())]).unwrap();
    let (dataset, view) = (catalog.datasets["sales"].clone(), catalog.views["notes"].clone());
    let table = master::table(&storage, "sales").unwrap();
    let mut random = fastrand::Rng::with_seed(3);
    let mut at = Version { version: 1, ..Version::default() };
    for i in 0..4_i64 {
        let mut file = File::new(&dataset.schema, Layout::Master).unwrap();
        for partition in 0..10 {
            let offsets: Vec<i64> = (i * events(partition)..(i + 1) * events(partition)).collect();
            let columns: Vec<ArrayRef> = dataset
                .schema
                .fields()
                .iter()
                .map(|field| -> ArrayRef {
                    match field.name().as_str() {
                        "_partition" => Arc::new(Int32Array::from(vec![partition; offsets.len()])),
                        "_offset" => Arc::new(Int64Array::from(offsets.clone())),
                        "_timestamp" => Arc::new(TimestampMicrosecondArray::from(vec![0; offsets.len()])),
                        _ => Arc::new(StringArray::from_iter_values(
                            offsets.iter().map(|_| format!("{:016x}{:016x}", random.u64(..), random.u64(..))),
                        )),
                    }
                })
                .collect();
            let rows = RecordBatch::try_new(dataset.schema.clone(), columns).unwrap();
            file.write(&rows).unwrap();
            at.frontier.set(partition, (i + 1) * events(partition));
        }
        let (bytes, file) = file.finish(format!("part-{i}.parquet")).unwrap();
        table.put(&file.path, bytes).await.unwrap();
        at.files.push(Arc::new(file));
    }
    let all: i64 = at.files.iter().map(|file| file.size).sum();
    let context = Arc::new(
        TaskContext::default().with_runtime(storage.runtime(Arc::new(UnboundedMemoryPool::default())).unwrap()),
    );
    let check = async |partition: Partition, from: i64, share: i64| {
        let wanted = [Wanted { view: view.clone(), cut: [(partition, from)].into_iter().collect() }];
        let plan = plan(&storage, &dataset, &at, &[partition].into(), &wanted, &context).unwrap();
        collect_partitioned(plan.clone(), context.clone()).await.unwrap();
        let read = plan.metrics().and_then(|metrics| metrics.sum_by_name("bytes_scanned")).unwrap().as_usize();
        let read = i64::try_from(read).unwrap();
        assert!(read * 100 <= all * share, "partition {partition} from {from}: {read} bytes of {all}");
        let rebuilt = rebuild(&storage, &dataset, &at, &[partition].into(), &wanted, &context).await.unwrap();
        assert!(rebuilt[0].as_ref().unwrap().contains_key(&partition));
    };
    // Pages are read whole, two of them at the edges, and a column's dictionary: in files as small as these that is nearly
    // half of one.
    check(3, 0, 50).await;
    check(3, 39_000, 15).await;
    check(0, 390_000, 15).await;
    check(0, 0, 75).await;
    // All of them, with cuts as far apart as they come: the large one by itself, and each event once.
    let cut: Frontier = (0..10).map(|partition| (partition, 4 * events(partition) - 100)).collect();
    let wanted = [Wanted { view: view.clone(), cut }];
    let all = (0..10).collect();
    let expected: [BTreeSet<Partition>; 2] = [(1..10).collect(), [0].into()];
    assert_eq!(groups(&at, &all, &wanted), expected);
    let rebuilt = rebuild(&storage, &dataset, &at, &all, &wanted, &context).await.unwrap();
    for (partition, track) in rebuilt.into_iter().next().unwrap().unwrap() {
        let states = track.pieces()[0].states.clone();
        let finished = view.fold.finish(vec![states], &context).await.unwrap();
        let counts = finished.column_by_name("n").unwrap().as_primitive::<Int64Type>();
        assert_eq!(counts.values().iter().sum::<i64>(), 100, "partition {partition}");
    }
    let from_the_start = [Wanted { view: view.clone(), cut: Frontier::default() }];
    assert_eq!(groups(&at, &all, &from_the_start), std::slice::from_ref(&all));
}

use std::sync::Arc;

use common::{catalog::Catalog, position::Frontier};
use datafusion::{
    arrow::{
        array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray},
        datatypes::{DataType, Field, Schema},
    },
    execution::TaskContext,
};

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

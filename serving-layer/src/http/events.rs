//! Events in over HTTP: all are checked before any is written, and they are written as they were sent.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode, header},
};
use common::{
    catalog::Dataset,
    fault::chain,
    log::{self, Chunk, NewRecord, partitioner},
    position::{Frontier, Offset, Partition},
    values::Decoder,
};
use datafusion::arrow::array::Array;
use serde_json::{Value, json, value::RawValue};

use super::{Context, problem::Problem};

/// Requests without a key take turns among the partitions.
static TURN: AtomicUsize = AtomicUsize::new(0);

/// `POST /v1/datasets/{dataset}/events`.
pub(super) async fn append(
    State(context): State<Context>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Problem> {
    let body = body?;
    let Some(dataset) = context.catalog.datasets.get(&name) else {
        let names = context.catalog.datasets.keys().map(String::as_str);
        let near = common::catalog::near::near(&name, names).into_iter().map(str::to_owned).collect();
        return Err(Problem::unknown("dataset", &name, near));
    };
    let records = split(&body, &headers)?;
    let partitions = context.log.ensure_topic(&dataset.topic, dataset.partitions).await?;
    let by_partition = assign(dataset, &records, partitions)?;
    let mut frontier = Frontier::default();
    let mut written = 0;
    for (partition, some) in by_partition {
        let records: Vec<NewRecord> = some;
        let count = records.len();
        match context.log.append(&dataset.topic, partition, records).await {
            Ok(offsets) => {
                frontier.advance(partition, next(&offsets));
                written += count;
            }
            Err(error) => return Err(midway(dataset, error, written, partition, frontier)),
        }
    }
    Ok(Json(json!({"accepted": written, "frontier": {(&dataset.name): frontier}})))
}

fn next(offsets: &[Offset]) -> Offset {
    offsets.last().map_or(0, |last| last + 1)
}

/// The log failed after some partitions, or some records of this one, were written.
fn midway(
    dataset: &Dataset,
    error: log::Error,
    written: usize,
    partition: Partition,
    mut frontier: Frontier,
) -> Problem {
    let mut written = written;
    if let log::Error::Append { offsets, .. } = &error {
        written += offsets.len();
        if !offsets.is_empty() {
            frontier.advance(partition, next(offsets));
        }
    }
    let frontier = serde_json::to_value(frontier).unwrap_or_default();
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "log", "the log failed", chain(&error))
        .hint("the records up to `frontier` are written; sending all of them again would double those")
        .member("accepted", written)
        .member("frontier", json!({(&dataset.name): frontier}))
}

/// The records of a body: an object, an array of objects, or one object a line.
fn split<'a>(body: &'a [u8], headers: &HeaderMap) -> Result<Vec<&'a [u8]>, Problem> {
    let declared = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let text = body.trim_ascii();
    if !declared.starts_with("application/x-ndjson") {
        if text.first() == Some(&b'[') {
            let records: Vec<&RawValue> = serde_json::from_slice(text).map_err(|error| not_json(&error))?;
            return Ok(records.into_iter().map(|record| record.get().as_bytes()).collect());
        }
        if let Ok(record) = serde_json::from_slice::<&RawValue>(text) {
            return Ok(vec![record.get().as_bytes()]);
        }
    }
    let lines: Vec<&[u8]> =
        text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() {
        return Err(Problem::bad_request("there is no event in the body")
            .hint("send a JSON object, an array of objects, or one object a line"));
    }
    Ok(lines)
}

fn not_json(error: &serde_json::Error) -> Problem {
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "event",
        "the events cannot be used",
        format!("the body is not JSON: {error}"),
    )
    .hint("nothing was written; send a JSON object, an array of objects, or one object a line")
    .member("line", error.line())
    .member("column", error.column())
}

/// Checks all records and gives each its partition: by key as Kafka's Java clients do, else one for all.
fn assign(
    dataset: &std::sync::Arc<Dataset>,
    records: &[&[u8]],
    partitions: Partition,
) -> Result<BTreeMap<Partition, Vec<NewRecord>>, Problem> {
    let mut chunk = Chunk::new(0, 0);
    for (offset, record) in (0..).zip(records) {
        chunk.push(offset, 0, Some(record));
    }
    let decoded = Decoder::new(dataset.clone()).decode(&chunk);
    if let Some(dead) = decoded.dead.first() {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "event",
            "the events cannot be used",
            dead.reason.clone(),
        )
        .hint("nothing was written; correct the record and send all of them again")
        .member("record", dead.offset)
        .member("failed", decoded.dead.len()));
    }
    let count = usize::try_from(partitions.max(1)).unwrap_or(1);
    let turn = Partition::try_from(TURN.fetch_add(1, Ordering::Relaxed) % count).unwrap_or(0);
    let keys = dataset.key.map(|key| decoded.rows.column(key));
    let keys = keys.map(|keys| datafusion::arrow::compute::cast(keys, &datafusion::arrow::datatypes::DataType::Utf8));
    let keys = keys.transpose().map_err(|error| Problem::bad_request(error.to_string()))?;
    let mut by_partition: BTreeMap<Partition, Vec<NewRecord>> = BTreeMap::new();
    for (i, record) in records.iter().enumerate() {
        let key = keys.as_ref().filter(|keys| keys.is_valid(i)).map(|keys| {
            let keys = datafusion::arrow::array::AsArray::as_string::<i32>(keys);
            Bytes::copy_from_slice(keys.value(i).as_bytes())
        });
        let partition = key.as_ref().map_or(turn, |key| partitioner::partition(key, partitions));
        by_partition.entry(partition).or_default().push(NewRecord { key, value: Some(Bytes::copy_from_slice(record)) });
    }
    Ok(by_partition)
}

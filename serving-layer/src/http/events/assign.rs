//! Which records can be used, and which partition each goes to.

use std::{collections::BTreeMap, sync::Arc};

use axum::body::Bytes;
use common::{
    catalog::Dataset,
    log::{Chunk, NewRecord, partitioner},
    position::Partition,
    values::{Decoder, output},
};
use datafusion::arrow::{
    array::{Array, ArrayRef, AsArray},
    compute::cast,
    datatypes::DataType,
    error::ArrowError,
};

use crate::http::problem::{Kind, Problem};

/// Checks all records as the layers would, and gives each its partition: by key as Kafka's Java clients do; without one,
/// all go to the partition whose `turn` it is.
pub(super) fn assign(
    dataset: &Arc<Dataset>,
    records: &[Bytes],
    partitions: Partition,
    turn: u32,
) -> Result<BTreeMap<Partition, Vec<NewRecord>>, Problem> {
    let mut chunk = Chunk::new(0, 0);
    for (offset, record) in (0..).zip(records) {
        chunk.push(offset, 0, Some(record));
    }
    let decoded = Decoder::new(dataset.clone()).decode(&chunk);
    if let Some(dead) = decoded.dead.first() {
        let problem = Problem::new(Kind::BadEvents, dead.reason.clone());
        return Err(problem.member("record", dead.offset).member("failed", decoded.dead.len()));
    }
    let turn = Partition::try_from(turn % partitions.max(1).unsigned_abs()).unwrap_or(0);
    let keys = match dataset.key {
        Some(key) => keys(decoded.rows.column(key)).map_err(|error| Problem::new(Kind::Internal, error.to_string()))?,
        None => vec![None; records.len()],
    };
    let mut by_partition: BTreeMap<Partition, Vec<NewRecord>> = BTreeMap::new();
    for (record, key) in records.iter().zip(keys) {
        let partition = key.as_ref().map_or(turn, |key| partitioner::partition(key, partitions));
        by_partition.entry(partition).or_default().push(NewRecord { key, value: Some(record.clone()) });
    }
    Ok(by_partition)
}

/// The keys' text: a string itself, bytes themselves, and everything else as an answer shows it, without quotes.
fn keys(column: &ArrayRef) -> Result<Vec<Option<Bytes>>, ArrowError> {
    match column.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let column = cast(column, &DataType::Utf8)?;
            let texts = column.as_string::<i32>().iter();
            Ok(texts.map(|text| text.map(|text| Bytes::copy_from_slice(text.as_bytes()))).collect())
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            let column = cast(column, &DataType::Binary)?;
            Ok(column.as_binary::<i32>().iter().map(|bytes| bytes.map(Bytes::copy_from_slice)).collect())
        }
        _ => (0..column.len())
            .map(|row| {
                if column.is_null(row) {
                    return Ok(None);
                }
                let mut text = Vec::new();
                output::write_value(column, row, &mut text)?;
                let bare = text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(&text);
                Ok(Some(Bytes::copy_from_slice(bare)))
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use common::catalog::Catalog;

    use super::*;

    fn check(columns: &str, key: &str, records: &[&'static str], expected: Result<&[Option<&[u8]>], u64>) {
        let with = if key.is_empty() { String::new() } else { format!(" WITH (key = '{key}')") };
        let sql = format!("CREATE TABLE t ({columns}){with};");
        let catalog = Catalog::parse(&[("t.sql".to_owned(), sql)]).unwrap();
        let records: Vec<Bytes> = records.iter().map(|record| Bytes::from(*record)).collect();
        let assigned = assign(&catalog.datasets["t"], &records, 4, 7);
        let assigned = match (assigned, expected) {
            (Ok(assigned), Ok(_)) => assigned,
            (Err(problem), Err(record)) => return assert_eq!(problem.body()["record"], record),
            (assigned, expected) => panic!("{assigned:?} instead of {expected:?}"),
        };
        let mut left = assigned.clone();
        for (record, key) in records.iter().zip(expected.unwrap()) {
            // Without a key it is the turn of partition 7 mod 4.
            let partition = key.map_or(3, |key| partitioner::partition(key, 4));
            let found = left.get_mut(&partition).unwrap().remove(0);
            assert_eq!((found.key.as_deref(), found.value.as_ref()), (*key, Some(record)));
        }
        assert!(left.values().all(Vec::is_empty));
    }

    #[test]
    fn keys_decide_partitions() {
        let two = |a: &'static str, b: &'static str| [a, b];
        check("a INT", "", &two(r#"{"a": 1}"#, r#"{"a":"2"}"#), Ok(&[None, None]));
        check("a BIGINT", "a", &two(r#"{"a": 17}"#, r#"{"a": "-3"}"#), Ok(&[Some(b"17"), Some(b"-3")]));
        check("a TEXT", "a", &two(r#"{"a": "x\"y"}"#, r#"{"a": null}"#), Ok(&[Some(b"x\"y"), None]));
        check("a BYTEA", "a", &[r#"{"a": "ff00"}"#], Ok(&[Some(&[0xff, 0])]));
        check("a DECIMAL(9,2)", "a", &[r#"{"a": 1.5}"#], Ok(&[Some(b"1.50")]));
        check("a DATE", "a", &[r#"{"a": "2026-01-03"}"#], Ok(&[Some(b"2026-01-03")]));
        check("a BOOLEAN", "a", &[r#"{"a": true}"#], Ok(&[Some(b"true")]));
    }

    #[test]
    fn the_first_record_that_cannot_be_used_is_named() {
        check("a INT CHECK (a > 0)", "", &[r#"{"a": 1}"#, r#"{"a": 0}"#, r#"{"a": 1.5}"#], Err(1));
        check("a INT", "a", &[r#"{"a": 1} {"a": 2}"#], Err(0));
        check("a INT NOT NULL", "a", &["{}"], Err(0));
    }
}

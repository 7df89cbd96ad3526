//! Application transactions of a table at one version, all of them in one look at its log: Delta's own way goes through
//! the log once for each.

use std::collections::BTreeMap;

use datafusion::arrow::{
    array::{Array, AsArray},
    datatypes::Int64Type,
};
use deltalake_core::{
    DeltaTableError,
    kernel::{Action, EagerSnapshot, Version},
    logstore::{LogStore, get_actions},
};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectStoreExt, path::Path};
use parquet::arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder};

/// So many entries of a log are read at once.
const AT_ONCE: usize = 8;

/// By `appId`, the newest versions at a snapshot. `None` where its checkpoint is of a kind that others write.
pub(super) async fn all(
    log_store: &dyn LogStore,
    at: &EagerSnapshot,
) -> Result<Option<BTreeMap<String, i64>>, DeltaTableError> {
    // The entries that the snapshot is made of are those after its checkpoint.
    let is_entry = |version: &Version| at.version_timestamp(*version).is_some();
    let after = (0..=at.version()).rev().take_while(is_entry).last().unwrap_or(at.version() + 1);
    let mut txns = BTreeMap::new();
    if let Some(checkpoint) = after.checked_sub(1) {
        match read_checkpoint(log_store, checkpoint).await? {
            Some(read) => txns = read,
            None => return Ok(None),
        }
    }
    let mut entries = stream::iter(after..=at.version())
        .map(|version| async move { Ok::<_, DeltaTableError>((version, log_store.read_commit_entry(version).await?)) })
        .buffered(AT_ONCE);
    while let Some((version, entry)) = entries.try_next().await? {
        let entry = entry.ok_or(DeltaTableError::InvalidVersion(version))?;
        for action in get_actions(version, &entry)? {
            if let Action::Txn(txn) = action {
                txns.insert(txn.app_id, txn.version);
            }
        }
    }
    Ok(Some(txns))
}

async fn read_checkpoint(
    log_store: &dyn LogStore,
    version: Version,
) -> Result<Option<BTreeMap<String, i64>>, DeltaTableError> {
    let path = Path::from(format!("_delta_log/{version:020}.checkpoint.parquet"));
    let read = async { log_store.object_store(None).get(&path).await?.bytes().await };
    let file = match read.await {
        Ok(file) => file,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
    let columns = ProjectionMask::columns(builder.parquet_schema(), ["txn.appId", "txn.version"]);
    let mut txns = BTreeMap::new();
    for batch in builder.with_projection(columns).build()? {
        let batch = batch?;
        let read = |batch: &datafusion::arrow::array::RecordBatch| {
            let txn = batch.column_by_name("txn")?.as_struct_opt()?;
            let app_ids = txn.column_by_name("appId")?.as_string_opt::<i32>()?;
            let versions = txn.column_by_name("version")?.as_primitive_opt::<Int64Type>()?;
            let set = (0..txn.len()).filter(|&row| txn.is_valid(row));
            Some(set.map(|row| (app_ids.value(row).to_owned(), versions.value(row))).collect::<Vec<_>>())
        };
        match read(&batch) {
            Some(read) => txns.extend(read),
            None => return Ok(None),
        }
    }
    Ok(Some(txns))
}

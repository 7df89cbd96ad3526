//! Application transactions of a table at one version, all of them in one look at its log: Delta's own way goes through
//! the log once for each.

use std::collections::BTreeMap;

use datafusion::arrow::{
    array::{Array, AsArray},
    datatypes::Int64Type,
};
use deltalake::{
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

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use datafusion::arrow::datatypes::{DataType, Field, Schema};
    use futures::stream::BoxStream;
    use object_store::{
        CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
        PutOptions, PutPayload, PutResult, Result, memory::InMemory,
    };

    use super::Path;
    use crate::{
        master::{Version, position_id, rows_id},
        storage::Storage,
    };

    /// A store that counts what is read of it.
    #[derive(Debug, Default)]
    struct Counting {
        inner: InMemory,
        reads: AtomicUsize,
    }

    impl std::fmt::Display for Counting {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "Counting")
        }
    }

    #[async_trait::async_trait]
    impl ObjectStore for Counting {
        async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
            self.inner.put_opts(path, payload, options).await
        }

        async fn put_multipart_opts(
            &self,
            path: &Path,
            options: PutMultipartOptions,
        ) -> Result<Box<dyn MultipartUpload>> {
            self.inner.put_multipart_opts(path, options).await
        }

        async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            self.inner.get_opts(path, options).await
        }

        fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
            self.inner.delete_stream(paths)
        }

        fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            self.inner.list(prefix)
        }

        async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            self.inner.list_with_delimiter(prefix).await
        }

        async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
            self.inner.copy_opts(from, to, options).await
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_version_of_many_partitions_costs_one_look_at_the_log() {
        let store = Arc::new(Counting::default());
        let storage = Storage::with_store("memory:///lamina/".parse().unwrap(), store.clone()).unwrap();
        let table = storage.table("master/sales").unwrap();
        table.ensure(&Schema::new(vec![Field::new("a", DataType::Int32, true)])).await.unwrap();
        let mut at = table.load(None).await.unwrap();
        for i in 1..=45_i64 {
            // Most partitions are moved by old commits only.
            let moved = (0..100).filter(|partition| i == 1 || i64::from(*partition) % 45 == i);
            let mut txns: std::collections::BTreeMap<_, _> =
                moved.map(|partition| (position_id("sales", partition), i * 10)).collect();
            txns.insert(rows_id("sales"), i);
            at = table.commit(&at, &[], Vec::new(), &txns, 0).await.unwrap();
        }
        for version in [7, 20, 33, 40, 45] {
            let at = table.load(Some(version)).await.unwrap();
            store.reads.store(0, Ordering::Relaxed);
            let found = Version::of(&table, &at, "sales", 100).await.unwrap();
            let reads = store.reads.load(Ordering::Relaxed);
            assert!(reads <= 25, "version {version}: {reads} reads");
            for partition in 0..100 {
                let last = i64::from(partition) % 45;
                let moved = last > 1 && last <= i64::try_from(version).unwrap();
                let expected = if moved { last * 10 } else { 10 };
                assert_eq!(found.frontier.get(partition), expected, "version {version}, partition {partition}");
            }
            assert_eq!(found.rows, i64::try_from(version).unwrap());
        }
    }
}

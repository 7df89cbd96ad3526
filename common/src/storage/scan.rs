//! Reading a table's files through DataFusion's own Parquet source.
//!
//! Delta's table provider costs 1.5 ms of planning and loses the dynamic top-N filter, so the file list comes from the
//! Delta snapshot and everything else from DataFusion.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::SchemaRef,
    common::{Statistics, stats::Precision},
    datasource::{
        listing::PartitionedFile,
        physical_plan::{
            FileGroup, FileScanConfigBuilder, ParquetFileReaderFactory, ParquetSource,
            parquet::CachedParquetFileReaderFactory,
        },
        source::DataSourceExec,
    },
    error::Result,
    execution::runtime_env::RuntimeEnv,
    physical_plan::{ExecutionPlan, PhysicalExpr},
};
use object_store::{ObjectMeta, path::Path};

use super::{Storage, indexed::Indexed, table::DataFile};

/// What to read of a table.
#[derive(Debug)]
pub struct Scan<'a> {
    /// The table's path under the store's root.
    pub table: &'a str,
    /// Its columns as the files have them.
    pub schema: SchemaRef,
    /// The files.
    pub files: &'a [DataFile],
    /// The columns wanted, by index; all when `None`.
    pub projection: Option<Vec<usize>>,
    /// A filter over `schema`: row groups and pages that cannot match are skipped. Of the others every row comes.
    pub predicate: Option<Arc<dyn PhysicalExpr>>,
    /// At most this many rows are wanted.
    pub limit: Option<usize>,
    /// Into how many partitions to split the files.
    pub partitions: usize,
}

impl<'a> Scan<'a> {
    /// All rows and columns of some files, in their order.
    pub fn whole(table: &'a str, schema: SchemaRef, files: &'a [DataFile]) -> Self {
        Self { table, schema, files, projection: None, predicate: None, limit: None, partitions: 1 }
    }

    /// The physical plan.
    pub fn plan(self, runtime: &RuntimeEnv) -> Result<Arc<dyn ExecutionPlan>> {
        let store = runtime.object_store(Storage::datafusion_url())?;
        let metadata = runtime.cache_manager.get_file_metadata_cache();
        // Only who skips pages needs their index.
        let readers: Arc<dyn ParquetFileReaderFactory> = match &self.predicate {
            Some(_) => Arc::new(Indexed::new(store, metadata)),
            None => Arc::new(CachedParquetFileReaderFactory::new(store, metadata)),
        };
        let mut source = ParquetSource::new(self.schema.clone())
            .with_parquet_file_reader_factory(readers)
            .with_metadata_size_hint(256 << 10)
            .with_enable_page_index(true)
            .with_pushdown_filters(false);
        if let Some(predicate) = self.predicate {
            source = source.with_predicate(predicate);
        }
        let config = FileScanConfigBuilder::new(Storage::datafusion_url(), Arc::new(source))
            .with_file_groups(groups(self.table, self.files, self.partitions.max(1)))
            .with_statistics(statistics(&self.schema, self.files))
            .with_projection_indices(self.projection)?
            .with_limit(self.limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

/// Only row counts are told: they are exact, and nothing else about the files is needed for planning.
fn statistics(schema: &SchemaRef, files: &[DataFile]) -> Statistics {
    let rows: i64 = files.iter().map(|file| file.rows).sum();
    let mut statistics = Statistics::new_unknown(schema);
    statistics.num_rows = Precision::Inexact(usize::try_from(rows).unwrap_or(0));
    statistics
}

fn groups(table: &str, files: &[DataFile], partitions: usize) -> Vec<FileGroup> {
    if files.is_empty() {
        // One partition without rows: there are operators that do not run over none.
        return vec![FileGroup::default()];
    }
    let files: Vec<PartitionedFile> = files.iter().map(|file| partitioned_file(table, file)).collect();
    FileGroup::new(files).split_files(partitions)
}

fn partitioned_file(table: &str, file: &DataFile) -> PartitionedFile {
    let meta = ObjectMeta {
        location: Path::from(format!("{table}/{}", file.path)),
        // Data files never change, so a constant keeps their cached metadata valid for good.
        last_modified: chrono::DateTime::UNIX_EPOCH,
        size: u64::try_from(file.size).unwrap_or(0),
        e_tag: None,
        version: None,
    };
    PartitionedFile::new_from_meta(meta)
}

#[cfg(test)]
mod tests {
    use datafusion::{
        arrow::{
            array::{ArrayRef, Float64Array, Int64Array, RecordBatch},
            datatypes::{DataType, Field, Schema},
        },
        common::ScalarValue,
        datasource::physical_plan::parquet::metadata::CachedParquetMetaData,
        execution::{TaskContext, memory_pool::UnboundedMemoryPool},
        logical_expr::Operator,
        physical_expr::expressions::{BinaryExpr, col, lit},
        physical_plan::{
            ExecutionPlanProperties, coalesce_partitions::CoalescePartitionsExec, collect, filter::FilterExec,
        },
    };
    use object_store::memory::InMemory;

    use super::*;
    use crate::storage::parquet::{File, Layout};

    #[tokio::test]
    async fn a_table_without_files_has_no_rows() {
        let storage = Storage::with_store("memory:///lamina/".parse().unwrap(), Arc::new(InMemory::new())).unwrap();
        let runtime = storage.runtime(Arc::new(UnboundedMemoryPool::default())).unwrap();
        let scan = Scan {
            table: "master/sales",
            schema: Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)])),
            files: &[],
            projection: Some(vec![0]),
            predicate: None,
            limit: None,
            partitions: 4,
        };
        let plan = scan.plan(&runtime).unwrap();
        assert_eq!(plan.output_partitioning().partition_count(), 1);
        let context = Arc::new(TaskContext::default().with_runtime(runtime));
        let rows = collect(Arc::new(CoalescePartitionsExec::new(plan)), context).await.unwrap();
        assert_eq!(rows.iter().map(|rows| rows.num_rows()).sum::<usize>(), 0);
    }

    #[tokio::test]
    async fn the_page_index_is_read_once() {
        let storage = Storage::with_store("memory:///lamina/".parse().unwrap(), Arc::new(InMemory::new())).unwrap();
        let runtime = storage.runtime(Arc::new(UnboundedMemoryPool::default())).unwrap();
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..10_000));
        let rows = RecordBatch::try_from_iter([("id", ids)]).unwrap();
        let mut file = File::new(&rows.schema(), Layout::View).unwrap();
        file.write(&rows).unwrap();
        let (bytes, file) = file.finish("part-1.parquet".to_owned()).unwrap();
        storage.table("views/v").unwrap().put(&file.path, bytes).await.unwrap();
        let predicate: Arc<dyn PhysicalExpr> =
            Arc::new(BinaryExpr::new(col("id", &rows.schema()).unwrap(), Operator::Eq, lit(7_000_i64)));
        for _ in 0..2 {
            let whole = Scan::whole("views/v", rows.schema(), std::slice::from_ref(&file));
            let scan = Scan { predicate: Some(predicate.clone()), ..whole };
            let context = Arc::new(TaskContext::default().with_runtime(runtime.clone()));
            let found = collect(scan.plan(&runtime).unwrap(), context).await.unwrap();
            let pages: usize = found.iter().map(RecordBatch::num_rows).sum();
            assert!((1..10_000).contains(&pages), "{pages} rows of the pages that may hold it");
            let kept = runtime.cache_manager.get_file_metadata_cache().get(&Path::from("views/v/part-1.parquet"));
            let kept = kept.unwrap().file_metadata;
            let kept = kept.as_any().downcast_ref::<CachedParquetMetaData>().unwrap();
            assert!(kept.parquet_metadata().column_index().is_some());
        }
    }

    #[tokio::test]
    async fn a_page_with_nan_is_never_skipped() {
        let storage = Storage::with_store("memory:///lamina/".parse().unwrap(), Arc::new(InMemory::new())).unwrap();
        let runtime = storage.runtime(Arc::new(UnboundedMemoryPool::default())).unwrap();
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..10_000));
        let shares = (0..10_000_i32).map(|i| if i == 7_000 { f64::NAN } else { f64::from(i) / 10_000.0 });
        let shares: ArrayRef = Arc::new(Float64Array::from_iter_values(shares));
        let rows = RecordBatch::try_from_iter([("id", ids), ("share", shares)]).unwrap();
        let schema = rows.schema();
        let compare = |column, operator, value: ScalarValue| -> Arc<dyn PhysicalExpr> {
            Arc::new(BinaryExpr::new(col(column, &schema).unwrap(), operator, lit(value)))
        };
        for layout in [Layout::View, Layout::Master] {
            let mut file = File::new(&schema, layout).unwrap();
            file.write(&rows).unwrap();
            let (bytes, file) = file.finish(format!("part-{layout:?}.parquet")).unwrap();
            storage.table("views/v").unwrap().put(&file.path, bytes).await.unwrap();
            let by_id = compare("id", Operator::Eq, 7_000_i64.into());
            let is_nan = compare("share", Operator::Eq, f64::NAN.into());
            // NaN is greater than any number.
            let is_large = compare("share", Operator::Gt, 1.0.into());
            for predicate in [by_id, is_nan, is_large] {
                let whole = Scan::whole("views/v", schema.clone(), std::slice::from_ref(&file));
                let scan = Scan { predicate: Some(predicate.clone()), ..whole };
                let context = Arc::new(TaskContext::default().with_runtime(runtime.clone()));
                let plan = Arc::new(FilterExec::try_new(predicate, scan.plan(&runtime).unwrap()).unwrap());
                let found = collect(plan, context).await.unwrap();
                assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
            }
        }
    }
}

//! Parquet readers that have the page index with the metadata.
//!
//! DataFusion asks for the metadata without it first, keeps that, and then reads and decodes the index of the whole file
//! again for every query. What is kept with the index is given out with it, and that costs a lookup nothing.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use datafusion::{
    datasource::{
        listing::PartitionedFile,
        physical_plan::{
            ParquetFileReaderFactory,
            parquet::{CachedParquetFileReaderFactory, metadata::DFParquetMetadata},
        },
    },
    error::Result,
    execution::cache::cache_manager::FileMetadataCache,
    physical_plan::metrics::ExecutionPlanMetricsSet,
};
use futures::{FutureExt, future::BoxFuture};
use object_store::ObjectStore;
use parquet::{
    arrow::{arrow_reader::ArrowReaderOptions, async_reader::AsyncFileReader},
    errors,
    file::metadata::{PageIndexPolicy, ParquetMetaData},
};

/// Makes readers of files in a store whose metadata and page indexes are kept in a cache.
#[derive(Debug)]
pub(super) struct Indexed {
    store: Arc<dyn ObjectStore>,
    kept: Arc<FileMetadataCache>,
    readers: CachedParquetFileReaderFactory,
}

impl Indexed {
    pub(super) fn new(store: Arc<dyn ObjectStore>, kept: Arc<FileMetadataCache>) -> Self {
        let readers = CachedParquetFileReaderFactory::new(store.clone(), kept.clone());
        Self { store, kept, readers }
    }
}

impl ParquetFileReaderFactory for Indexed {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let reader = self.readers.create_reader(partition, file.clone(), hint, metrics)?;
        Ok(Box::new(Reader { reader, file, hint, store: self.store.clone(), kept: self.kept.clone() }))
    }
}

struct Reader {
    reader: Box<dyn AsyncFileReader + Send>,
    file: PartitionedFile,
    hint: Option<usize>,
    store: Arc<dyn ObjectStore>,
    kept: Arc<FileMetadataCache>,
}

impl AsyncFileReader for Reader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, errors::Result<Bytes>> {
        self.reader.get_bytes(range)
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, errors::Result<Vec<Bytes>>> {
        self.reader.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, errors::Result<Arc<ParquetMetaData>>> {
        async move {
            DFParquetMetadata::new(self.store.as_ref(), &self.file.object_meta)
                .with_file_metadata_cache(Some(self.kept.clone()))
                .with_metadata_size_hint(self.hint)
                .with_page_index_policy(Some(PageIndexPolicy::Optional))
                .fetch_metadata()
                .await
                .map_err(|error| errors::ParquetError::External(Box::new(error)))
        }
        .boxed()
    }
}

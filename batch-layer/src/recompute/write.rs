//! One partition of a batch view into its files.

use std::{
    sync::{Arc, OnceLock},
    time::Instant,
};

use common::{
    catalog::View,
    fold::to_stored,
    storage::{
        parquet::{File, Layout},
        table::DataFile,
    },
    view::ViewTable,
};
use datafusion::{arrow::array::RecordBatch, error::DataFusionError, physical_plan::SendableRecordBatchStream};
use futures::StreamExt;

use super::Error;

/// A file of a batch view holds at most about so many groups.
const FILE_ROWS: i64 = 2 << 20;

/// Writes one partition of a batch view.
pub(super) struct Writer {
    pub(super) view: Arc<View>,
    pub(super) table: ViewTable,
    /// When the first file of all partitions was begun to be stored.
    pub(super) first_put: Arc<OnceLock<Instant>>,
}

impl Writer {
    /// Writes all of it, in the order in which it comes. No commit names the files yet.
    pub(super) async fn run(self, mut states: SendableRecordBatchStream) -> Result<Vec<DataFile>, Error> {
        let mut files = Vec::new();
        let mut open: Option<File> = None;
        while let Some(batch) = states.next().await {
            let batch = batch?;
            if batch.num_rows() == 0 {
                continue;
            }
            let rows = self.rows(&batch)?;
            let mut file = match open.take() {
                Some(file) => file,
                None => File::new(self.table.schema(), Layout::View)?,
            };
            file.write(&rows)?;
            if file.rows() >= FILE_ROWS {
                files.push(self.put(file).await?);
            } else {
                open = Some(file);
            }
        }
        if let Some(file) = open {
            files.push(self.put(file).await?);
        }
        Ok(files)
    }

    /// Finished columns, and the states beside them.
    fn rows(&self, states: &RecordBatch) -> Result<RecordBatch, DataFusionError> {
        let fold = &self.view.fold;
        let states = RecordBatch::try_new(fold.state().clone(), states.columns().to_vec())?;
        let finished = fold.complete(&states)?;
        let stored = to_stored(&states, fold.stored_state())?;
        let columns = finished.columns().iter().chain(stored.columns().iter().skip(fold.keys().len()));
        Ok(RecordBatch::try_new(self.table.schema().clone(), columns.cloned().collect())?)
    }

    async fn put(&self, file: File) -> Result<DataFile, Error> {
        let (bytes, file) = file.finish(format!("part-{}.parquet", uuid::Uuid::now_v7()))?;
        self.first_put.get_or_init(Instant::now);
        self.table.table().put(&file.path, bytes).await?;
        Ok(file)
    }
}

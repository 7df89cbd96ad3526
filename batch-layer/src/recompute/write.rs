//! A batch view into its files: each holds a range of the group keys, so that a lookup reads one of them.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, Ordering},
    },
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
use datafusion::{
    arrow::array::RecordBatch, common::cast::as_boolean_array, error::DataFusionError,
    physical_plan::SendableRecordBatchStream,
};
use futures::StreamExt;
use tokio::{sync::mpsc, task::JoinSet};

use super::Error;

/// So many batches may wait to be encoded into a file.
const QUEUE: usize = 4;

/// Writes a batch view.
#[derive(Clone)]
pub(super) struct Writer {
    pub(super) view: Arc<View>,
    pub(super) table: ViewTable,
    /// When the first file was begun to be stored.
    pub(super) first_put: Arc<OnceLock<Instant>>,
    /// A file holds so many groups, at most.
    pub(super) file_rows: usize,
    /// So many files are encoded side by side, at most.
    pub(super) parallelism: usize,
    /// Of how many groups something could not be computed.
    pub(super) failed_groups: Arc<AtomicI64>,
}

impl Writer {
    /// Writes all of it, in the order in which it comes. No commit names the files yet.
    pub(super) async fn run(self, mut states: SendableRecordBatchStream) -> Result<Vec<DataFile>, Error> {
        let (mut files, mut writing) = (Vec::new(), JoinSet::new());
        let mut open: Option<(mpsc::Sender<RecordBatch>, usize)> = None;
        while let Some(batch) = states.next().await {
            let mut rest = batch?;
            while rest.num_rows() > 0 {
                let (file, room) = match open.take() {
                    Some(open) => open,
                    None => {
                        while writing.len() >= self.parallelism.max(1) {
                            files.extend(writing.join_next().await.transpose()?.transpose()?);
                        }
                        let (file, rows) = mpsc::channel(QUEUE);
                        writing.spawn(self.clone().file(rows));
                        (file, self.file_rows.max(1))
                    }
                };
                let rows = rest.slice(0, room.min(rest.num_rows()));
                let (written, left) = (rows.num_rows(), room - rows.num_rows());
                // A file that takes no more has failed, and says why when it is waited for.
                if file.send(rows).await.is_err() {
                    break;
                }
                rest = rest.slice(written, rest.num_rows() - written);
                open = (left > 0).then_some((file, left));
            }
        }
        drop(open);
        while let Some(file) = writing.join_next().await {
            files.push(file??);
        }
        Ok(files)
    }

    /// Encodes and stores one file.
    async fn file(self, mut states: mpsc::Receiver<RecordBatch>) -> Result<DataFile, Error> {
        let mut file = File::new(self.table.schema(), Layout::View)?;
        while let Some(batch) = states.recv().await {
            file.write(&self.rows(&batch)?)?;
            // Encoding is work for the processor: others get their turn in between.
            tokio::task::yield_now().await;
        }
        let (bytes, file) = file.finish(format!("part-{}.parquet", uuid::Uuid::now_v7()))?;
        self.first_put.get_or_init(Instant::now);
        self.table.table().put(&file.path, bytes).await?;
        Ok(file)
    }

    /// Finished columns, and the states beside them.
    fn rows(&self, states: &RecordBatch) -> Result<RecordBatch, DataFusionError> {
        let fold = &self.view.fold;
        let states = RecordBatch::try_new(fold.state().clone(), states.columns().to_vec())?;
        let finished = fold.complete(&states)?;
        let failed = as_boolean_array(finished.column(fold.failed()))?.true_count();
        self.failed_groups.fetch_add(i64::try_from(failed).unwrap_or(i64::MAX), Ordering::Relaxed);
        let stored = to_stored(&states, fold.stored_state())?;
        let columns = finished.columns().iter().chain(stored.columns().iter().skip(fold.keys().len()));
        Ok(RecordBatch::try_new(self.table.schema().clone(), columns.cloned().collect())?)
    }
}

//! From the log's records to pieces.

use std::sync::Arc;

use common::{
    catalog::{Dataset, View},
    fold::Failed,
    log::Chunk,
    position::{Offset, Partition},
    values::Decoder,
};
use datafusion::{
    arrow::{
        array::{AsArray, RecordBatch},
        compute::concat_batches,
        datatypes::Int64Type,
    },
    error::Result,
    execution::TaskContext,
};

/// Rows of one partition that are not archived yet, kept so that a piece can still be split where a master commit ends.
#[derive(Clone, Debug)]
pub(crate) struct Tail {
    pub(crate) from: Offset,
    pub(crate) to: Offset,
    pub(crate) rows: RecordBatch,
}

impl Tail {
    /// How much memory it takes, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.rows.get_array_memory_size()
    }

    /// The rows below `at` and the rest.
    pub(crate) fn split(&self, at: Offset) -> (Self, Self) {
        let offsets = self.rows.column(self.rows.num_columns() - 2).as_primitive::<Int64Type>();
        let below = offsets.values().partition_point(|&offset| offset < at);
        let rest = self.rows.num_rows() - below;
        (
            Self { from: self.from, to: at, rows: self.rows.slice(0, below) },
            Self { from: at, to: self.to, rows: self.rows.slice(below, rest) },
        )
    }

    /// This and the next one together.
    pub(crate) fn join(&self, next: &Self) -> Result<Self> {
        let rows = concat_batches(&self.rows.schema(), [&self.rows, &next.rows])?;
        Ok(Self { from: self.from, to: next.to, rows })
    }
}

/// A chunk, decoded and folded into every view. A view that cannot be computed over it says why.
#[derive(Debug)]
pub(crate) struct Folded {
    pub(crate) partition: Partition,
    pub(crate) tail: Tail,
    pub(crate) states: Vec<Result<(RecordBatch, Failed), String>>,
    pub(crate) dead: usize,
    pub(crate) last_ms: Option<i64>,
}

/// Decodes a chunk and folds it into `views`.
pub(crate) async fn fold_chunk(
    dataset: Arc<Dataset>,
    views: Vec<Arc<View>>,
    chunk: Chunk,
    context: Arc<TaskContext>,
) -> Folded {
    let decoded = Decoder::new(dataset).decode(&chunk);
    let mut states = Vec::with_capacity(views.len());
    for view in &views {
        states.push(fold_rows(view, &decoded.rows, &context).await);
    }
    Folded {
        partition: chunk.partition,
        tail: Tail { from: chunk.from, to: chunk.next, rows: decoded.rows },
        states,
        dead: decoded.dead.len(),
        last_ms: chunk.timestamps_ms.last().copied(),
    }
}

/// Folds rows of the dataset into one view: states, and the events that are not in them.
pub(crate) async fn fold_rows(
    view: &View,
    rows: &RecordBatch,
    context: &Arc<TaskContext>,
) -> Result<(RecordBatch, Failed), String> {
    if rows.num_rows() == 0 {
        return Ok((RecordBatch::new_empty(view.fold.state().clone()), Failed::default()));
    }
    let folded = async {
        let input = rows.project(view.fold.projection())?;
        view.fold.partial(vec![input], context).await
    };
    folded.await.map_err(|error: datafusion::error::DataFusionError| error.strip_backtrace())
}

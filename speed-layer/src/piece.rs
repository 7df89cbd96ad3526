//! A piece: one view's states over one range of one partition's offsets.

use std::sync::Arc;

use async_trait::async_trait;
use common::{
    fold::Failed,
    position::Offset,
    speed::{Error, KeyFilter, keep, parts::PartStates},
};
use datafusion::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    error::Result,
};

/// The states of `[from, to)`. Offsets in between that hold no event do not matter.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) from: Offset,
    pub(crate) to: Offset,
    pub(crate) states: RecordBatch,
    /// The events of the range whose rows are not in the states because they cannot be computed.
    pub(crate) failed: Failed,
    /// 0 as it came from the log, 1 once it has been merged up to a master commit.
    pub(crate) level: u8,
}

impl Piece {
    /// How much memory it takes, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.states.get_array_memory_size() + self.failed.bytes()
    }
}

/// The pieces of one view up to the head, of the partitions asked for.
#[derive(Debug)]
pub(crate) struct Pieces {
    pub(crate) schema: SchemaRef,
    /// From each cut of a request on; `None` where the states cannot be separated.
    pub(crate) by_cut: Vec<Option<Vec<Arc<Piece>>>>,
}

#[async_trait]
impl PartStates for Pieces {
    async fn read(&self, cut_index: usize, filter: Option<&KeyFilter>) -> Result<Vec<RecordBatch>, Error> {
        let Some(Some(pieces)) = self.by_cut.get(cut_index) else {
            return Err(Error::Internal("the states were asked for from a cut that is not possible".into()));
        };
        let all = pieces.iter().map(|piece| &piece.states).filter(|states| states.num_rows() > 0);
        let Some(filter) = filter else { return Ok(all.cloned().collect()) };
        let failed = |error: datafusion::error::DataFusionError| Error::Internal(Box::new(error));
        let predicate = filter.predicate(&self.schema).map_err(failed)?;
        let kept: Result<Vec<RecordBatch>> = all.map(|states| keep(states, predicate.as_ref())).collect();
        Ok(kept.map_err(failed)?.into_iter().filter(|states| states.num_rows() > 0).collect())
    }
}

//! Values: events in, rows of the master dataset, answers out.
//!
//! Whether an event is dead is a pure function of its bytes and the dataset's definition: every layer decodes for
//! itself, and all agree.

use std::sync::Arc;

use datafusion::arrow::record_batch::RecordBatch;

use crate::{
    catalog::Dataset,
    log::Chunk,
    position::{Offset, Partition},
};

/// Decodes the events of one dataset.
#[derive(Debug)]
pub struct Decoder {
    dataset: Arc<Dataset>,
}

/// A chunk of the log, decoded.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The usable events, in offset order, in the dataset's `schema`.
    pub rows: RecordBatch,
    /// The others, in offset order.
    pub dead: Vec<DeadLetter>,
}

/// An event that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where it is.
    pub partition: Partition,
    /// Where it is.
    pub offset: Offset,
    /// The log's own time, milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Why it cannot be used.
    pub reason: String,
    /// Its bytes; `None` for a tombstone.
    pub raw: Option<Vec<u8>>,
}

impl Decoder {
    /// A decoder of `dataset`'s events.
    pub fn new(dataset: Arc<Dataset>) -> Self {
        Self { dataset }
    }

    /// Decodes a chunk. A record that cannot be used costs that record and no other.
    pub fn decode(&mut self, chunk: &Chunk) -> Decoded {
        let _ = (&self.dataset, chunk);
        todo!()
    }
}

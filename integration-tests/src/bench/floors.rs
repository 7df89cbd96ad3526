//! The floors: each step alone, in a loop on one core, as fast as its library does it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use common::{
    catalog::Catalog,
    log::Chunk,
    storage::parquet::{File, Layout},
    values::Decoder,
};
use datafusion::{arrow::array::RecordBatch, execution::TaskContext};

use super::report::{line, rate};
use crate::workload::Sales;

const CHUNK: usize = 32_768;

/// What the floors came to, for all events.
#[derive(Clone, Copy, Debug, Default)]
pub struct Floors {
    /// Reading the events' bytes from the log.
    pub consume: Duration,
    /// JSON to columns.
    pub decode: Duration,
    /// Partial states of the three views.
    pub fold: Duration,
    /// Columns to Parquet.
    pub write: Duration,
}

impl Floors {
    /// What one process that runs both layers adds up to: each consumes and decodes for itself.
    pub fn sum(&self) -> Duration {
        2 * self.consume + 2 * self.decode + self.fold + self.write
    }
}

/// The workload as chunks of the log.
pub fn chunks(events: u64) -> Vec<Chunk> {
    let mut sales = Sales::new(20_261_124, events, 1_000_000);
    let mut chunks = Vec::new();
    let (mut buffer, mut left) = (Vec::new(), events);
    while left > 0 {
        let mut chunk = Chunk::new(0, 0);
        for offset in 0..left.min(CHUNK as u64) {
            buffer.clear();
            sales.write(&mut buffer);
            chunk.push(i64::try_from(offset).unwrap_or(0), 0, Some(&buffer));
        }
        left -= chunk.len() as u64;
        chunks.push(chunk);
    }
    chunks
}

/// Measures decoding, folding and writing; `consume` is left to be filled in.
pub async fn measure(catalog: &Catalog, events: u64) -> Result<Floors> {
    let Some(dataset) = catalog.datasets.get("sales") else { anyhow::bail!("no dataset `sales`") };
    let chunks = chunks(events);
    let bytes: usize = chunks.iter().map(|chunk| chunk.bytes.len()).sum();
    let mut floors = Floors::default();
    let began = Instant::now();
    let mut decoder = Decoder::new(dataset.clone());
    let rows: Vec<RecordBatch> = chunks.iter().map(|chunk| decoder.decode(chunk).rows).collect();
    floors.decode = began.elapsed();
    let decoded: usize = rows.iter().map(RecordBatch::num_rows).sum();
    anyhow::ensure!(decoded as u64 == events, "only {decoded} of {events} events could be decoded");
    line("decode JSON, one core", &rate(events, floors.decode), "");
    line("  bytes an event", &format!("{}", bytes as u64 / events), "");
    drop(chunks);

    let context = Arc::new(TaskContext::default());
    for view in catalog.views.values() {
        let inputs: Result<Vec<RecordBatch>, _> =
            rows.iter().map(|rows| rows.project(view.fold.projection())).collect();
        let inputs = inputs?;
        let began = Instant::now();
        for input in inputs {
            view.fold.partial(vec![input], &context).await?;
        }
        let time = began.elapsed();
        floors.fold += time;
        line(&format!("fold view {}, one core", view.name), &rate(events, time), "");
    }

    let began = Instant::now();
    for rows in rows.chunks(16) {
        let mut file = File::new(&dataset.schema, Layout::Master)?;
        for rows in rows {
            file.write(rows)?;
        }
        file.finish("x".to_owned())?;
    }
    floors.write = began.elapsed();
    line("write Parquet, one core", &rate(events, floors.write), "");
    Ok(floors)
}

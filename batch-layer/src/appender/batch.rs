//! A batch: what one commit will archive.

use std::{collections::BTreeMap, time::Instant};

use common::{
    log::Chunk,
    master::fingerprint,
    position::{Frontier, Offset, Partition},
    values::{DeadLetter, Decoded},
};
use datafusion::arrow::record_batch::RecordBatch;

use super::Error;
use crate::Settings;

/// Events from one frontier to another.
#[derive(Debug)]
pub(super) struct Batch {
    /// Where it ends: past trailing gaps too.
    pub(super) end: Frontier,
    /// Usable events by partition, in offset order.
    pub(super) rows: BTreeMap<Partition, Vec<RecordBatch>>,
    /// The others.
    pub(super) dead: Vec<DeadLetter>,
    /// By partition, the last record and its fingerprint.
    pub(super) last: BTreeMap<Partition, (Offset, i64)>,
    records: usize,
    bytes: usize,
    began: Option<Instant>,
}

impl Batch {
    /// An empty batch from `start` on.
    pub(super) fn new(start: Frontier) -> Self {
        Self {
            end: start,
            rows: BTreeMap::new(),
            dead: Vec::new(),
            last: BTreeMap::new(),
            records: 0,
            bytes: 0,
            began: None,
        }
    }

    /// Adds what follows. A chunk that does not follow is refused: a log that gives records twice, or leaves some out,
    /// must not reach the master dataset.
    pub(super) fn push(&mut self, (chunk, decoded): (Chunk, Decoded)) -> Result<(), Error> {
        let at = self.end.get(chunk.partition);
        if chunk.from != at || chunk.next < at {
            let Chunk { partition, from, next, .. } = chunk;
            return Err(Error::OutOfOrder { partition, from, next, at });
        }
        if chunk.next == at {
            return Ok(());
        }
        // A gap is archived like a record: where the log forgets what is below it, a frontier left behind there would
        // look like lost events.
        self.began.get_or_insert_with(Instant::now);
        self.end.set(chunk.partition, chunk.next);
        if chunk.is_empty() {
            return Ok(());
        }
        self.records += chunk.len();
        self.bytes += chunk.bytes.len();
        let i = chunk.len() - 1;
        let value = (!chunk.tombstones[i]).then(|| chunk.value(i));
        let last = (chunk.offsets[i], fingerprint(chunk.offsets[i], chunk.timestamps_ms[i], value));
        self.last.insert(chunk.partition, last);
        if decoded.rows.num_rows() > 0 {
            self.rows.entry(chunk.partition).or_default().push(decoded.rows);
        }
        self.dead.extend(decoded.dead);
        Ok(())
    }

    /// Whether it ends where it starts.
    pub(super) fn is_empty(&self) -> bool {
        self.began.is_none()
    }

    /// Whether it should be committed.
    pub(super) fn is_due(&self, settings: &Settings) -> bool {
        let old = self.began.is_some_and(|began| began.elapsed() >= settings.flush_age);
        old || self.records >= settings.flush_rows || self.bytes >= settings.flush_bytes
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::Schema;

    use super::*;

    fn chunk(from: Offset, offsets: &[Offset], next: Offset) -> (Chunk, Decoded) {
        let mut chunk = Chunk::new(0, from);
        offsets.iter().for_each(|&offset| chunk.push(offset, 0, Some(b"{}")));
        chunk.next = next;
        (chunk, Decoded { rows: RecordBatch::new_empty(Schema::empty().into()), dead: Vec::new() })
    }

    #[test]
    fn a_batch_takes_what_follows_and_nothing_else() {
        let cases = [
            ("records", chunk(5, &[5, 6], 7), Ok((7, Some(6), false))),
            ("records, then a gap", chunk(5, &[5], 9), Ok((9, Some(5), false))),
            ("a gap alone", chunk(5, &[], 6), Ok((6, None, false))),
            ("nothing", chunk(5, &[], 5), Ok((5, None, true))),
            ("records that were given before", chunk(3, &[3, 4], 5), Err(())),
            ("records after some that were left out", chunk(6, &[6], 7), Err(())),
            ("a step back", chunk(5, &[], 4), Err(())),
        ];
        for (what, given, expected) in cases {
            let mut batch = Batch::new([(0, 5)].into_iter().collect());
            let taken = batch.push(given).map_err(|_| ());
            let stands = taken.map(|()| (batch.end.get(0), batch.last.get(&0).map(|last| last.0), batch.is_empty()));
            assert_eq!(stands, expected, "{what}");
        }
    }
}

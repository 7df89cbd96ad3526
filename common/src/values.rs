//! Values: events in, rows of the master dataset, answers out.
//!
//! Whether an event is dead is a pure function of its bytes and the dataset's definition: every layer decodes for
//! itself, and all agree. An event's JSON is read once for where its fields are, and each field's own text then makes
//! its value, so what is refused is refused by what was written, never by what some number type made of it.

use std::sync::Arc;

use datafusion::arrow::{
    array::{ArrayRef, BooleanArray, Int32Array, Int64Array, TimestampMicrosecondArray},
    compute::filter_record_batch,
    error::ArrowError,
    record_batch::RecordBatch,
};

use self::{
    column::Column,
    fields::{Fields, Unreadable},
};
use crate::{
    catalog::Dataset,
    log::Chunk,
    position::{Offset, Partition},
};

mod check;
mod column;
mod fields;
mod named;
mod number;
pub mod output;
pub mod parameter;
mod sql_type;
mod time;

pub(crate) use named::named_values;
pub use sql_type::sql_type_name;

#[cfg(test)]
mod tests;

/// Decodes the events of one dataset.
#[derive(Debug)]
pub struct Decoder {
    dataset: Arc<Dataset>,
    fields: Fields,
    columns: Vec<Column>,
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
        let fields = Fields::new(dataset.columns.fields().iter().map(|field| field.name().clone()));
        let columns = dataset.columns.fields().iter().filter_map(Column::new).collect::<Vec<_>>();
        assert_eq!(columns.len(), dataset.columns.fields().len(), "the catalog has only types that events can have");
        Self { dataset, fields, columns }
    }

    /// Decodes a chunk, of less than 2 GiB. A record that cannot be used costs that record and no other.
    pub fn decode(&mut self, chunk: &Chunk) -> Decoded {
        self.columns.iter_mut().for_each(|column| column.reserve(chunk.len()));
        let mut live = Vec::with_capacity(chunk.len());
        let mut dead = Vec::new();
        for record in 0..chunk.len() {
            match self.append(chunk, record) {
                Ok(()) => live.push(record),
                Err(reason) => {
                    self.columns.iter_mut().for_each(|column| column.truncate(live.len()));
                    dead.push(dead_letter(chunk, record, reason));
                }
            }
        }
        // Every column has one value of its own type for each live record, and a null only where it may have one.
        let rows = self.finish(chunk, &mut live, &mut dead);
        let rows = rows.unwrap_or_else(|error| unreachable!("decoded columns fit their dataset: {error}"));
        Decoded { rows, dead }
    }

    /// Adds one record as a row, or says why it is dead; then the columns may be left with half a row.
    fn append(&mut self, chunk: &Chunk, record: usize) -> Result<(), String> {
        if chunk.tombstones[record] {
            return Err("the record is a tombstone: it has no value".to_owned());
        }
        let value = chunk.value(record);
        let text = std::str::from_utf8(value).map_err(|error| {
            let at = error.valid_up_to();
            framed(value).unwrap_or_else(|| format!("byte {at} of the message, `0x{:02x}`, is not UTF-8", value[at]))
        })?;
        let read = self.fields.read(text);
        read.map_err(|unreadable| framed(value).unwrap_or_else(|| self.unreadable(&unreadable, text)))?;
        for (i, column) in self.columns.iter_mut().enumerate() {
            let appended = column.append(self.fields.value(i, text));
            appended.map_err(|wrong| format!("field `{}` {}", wrong.path, wrong.reason))?;
        }
        Ok(())
    }

    fn unreadable(&self, unreadable: &Unreadable, text: &str) -> String {
        match unreadable {
            Unreadable::NotAnObject if text.trim().is_empty() => "the message is empty, not a JSON object".to_owned(),
            Unreadable::NotAnObject => format!("the message `{}` is not a JSON object", column::shortened(text.trim())),
            Unreadable::Broken(error) => format!("the message is not JSON: {error}"),
            Unreadable::Trailing(error) => format!("the message goes on after its JSON object: {error}"),
            Unreadable::Twice(field) => format!("field `{}` is there twice", self.fields.name(*field)),
        }
    }

    /// The rows with their positions, without those that fail a check.
    fn finish(
        &mut self,
        chunk: &Chunk,
        live: &mut Vec<usize>,
        dead: &mut Vec<DeadLetter>,
    ) -> Result<RecordBatch, ArrowError> {
        let columns = self.columns.iter_mut().map(Column::finish).collect::<Result<Vec<_>, _>>()?;
        let events = RecordBatch::try_new(self.dataset.columns.clone(), columns)?;
        let failures = check::failures(&self.dataset.checks, &events);
        let events = if failures.is_empty() { events } else { bury(failures, chunk, &events, live, dead)? };
        let positions = positions(chunk, live);
        RecordBatch::try_new(self.dataset.schema.clone(), events.columns().iter().cloned().chain(positions).collect())
    }
}

/// What is said of a message with the five bytes before it that serializers for a schema registry write.
fn framed(value: &[u8]) -> Option<String> {
    let Some([0, schema @ ..]) = value.first_chunk::<5>() else { return None };
    let schema = u32::from_be_bytes(*schema);
    Some(format!(
        "the message begins with five bytes of Confluent's wire format (schema {schema}): write plain JSON, with a \
         serializer that asks no schema registry"
    ))
}

/// Moves rows that fail a check from the live to the dead. Gives the events that remain.
fn bury(
    failures: Vec<(usize, String)>,
    chunk: &Chunk,
    events: &RecordBatch,
    live: &mut Vec<usize>,
    dead: &mut Vec<DeadLetter>,
) -> Result<RecordBatch, ArrowError> {
    let mut passes = vec![true; live.len()];
    for (row, reason) in failures {
        passes[row] = false;
        dead.push(dead_letter(chunk, live[row], reason));
    }
    dead.sort_by_key(|letter| letter.offset);
    let mut pass = passes.iter();
    live.retain(|_| pass.next().copied().unwrap_or(false));
    filter_record_batch(events, &BooleanArray::from(passes))
}

/// `_partition`, `_offset` and `_timestamp` of the live records.
fn positions(chunk: &Chunk, live: &[usize]) -> [ArrayRef; 3] {
    let offsets = live.iter().map(|&record| chunk.offsets[record]);
    let times_us = live.iter().map(|&record| chunk.timestamps_ms[record].saturating_mul(1000));
    [
        Arc::new(Int32Array::from_value(chunk.partition, live.len())),
        Arc::new(Int64Array::from_iter_values(offsets)),
        Arc::new(TimestampMicrosecondArray::from_iter_values(times_us)),
    ]
}

fn dead_letter(chunk: &Chunk, record: usize, reason: String) -> DeadLetter {
    DeadLetter {
        partition: chunk.partition,
        offset: chunk.offsets[record],
        timestamp_ms: chunk.timestamps_ms[record],
        reason,
        raw: (!chunk.tombstones[record]).then(|| chunk.value(record).to_vec()),
    }
}

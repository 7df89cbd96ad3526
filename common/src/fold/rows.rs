//! The row stage of the fold: everything that is computed of one event alone, before events meet in a group.
//!
//! `WHERE`, group keys, `FILTER`s, arguments and sort keys become plain columns; what aggregates them afterwards computes
//! nothing of a row that could fail. An event whose row cannot be computed is a failed event of the view: it is left out,
//! and said.
//!
//! Whole batches are computed at once. Only where that fails, a batch is halved until the rows are found that fail alone:
//! the verdict on a row is the one that it gets in a batch of its own, so that no batching can change it.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions},
        compute::{concat_batches, filter_record_batch, prep_null_mask_filter},
        datatypes::{Int32Type, Int64Type, SchemaRef, TimestampMicrosecondType},
    },
    common::cast::as_boolean_array,
    error::{DataFusionError, Result},
    physical_plan::PhysicalExpr,
};

use super::failed::{Failed, FailedEvent};
use crate::values::named_values;

mod exec;

pub(super) use exec::RowsExec;

/// What a view computes of one row.
#[derive(Debug)]
pub(super) struct Rows {
    /// `WHERE`, part by part: each is only computed for the rows that pass those before it.
    pub(super) conditions: Vec<Computed>,
    /// The columns of `output`.
    pub(super) columns: Vec<Computed>,
    pub(super) output: SchemaRef,
    /// So many of the first columns of the input are computed with.
    pub(super) width: usize,
    /// Where `_partition`, `_offset` and `_timestamp` are in the input; `None` where nothing can fail.
    pub(super) position: Option<[usize; 3]>,
}

/// An expression over the input's columns.
#[derive(Debug)]
pub(super) struct Computed {
    pub(super) expr: Arc<dyn PhysicalExpr>,
    /// The same as people read it.
    pub(super) sql: String,
    /// Which of the columns has to be true for a row, or it is not computed.
    pub(super) only_where: Option<usize>,
}

/// Why a row that fails is an error after all: nobody could say which one it is.
#[derive(Debug, thiserror::Error)]
#[error("an event cannot be computed, and positions were not read")]
struct Unplaced;

/// Whether an event could not be computed whose position was not read.
pub fn is_unplaced(error: &DataFusionError) -> bool {
    matches!(error.find_root(), DataFusionError::External(source) if source.is::<Unplaced>())
}

/// What could not be computed.
struct Failure<'a> {
    of: &'a Computed,
    error: DataFusionError,
}

impl Rows {
    /// The columns of all rows that pass and can be computed. The others that pass are added to `failed`.
    pub(super) fn compute(&self, rows: &RecordBatch, failed: &mut Failed) -> Result<RecordBatch> {
        let mut pieces = Vec::new();
        self.pieces(rows, failed, &mut pieces)?;
        match pieces.len() {
            1 => Ok(pieces.remove(0)),
            _ => Ok(concat_batches(&self.output, &pieces)?),
        }
    }

    fn pieces(&self, rows: &RecordBatch, failed: &mut Failed, pieces: &mut Vec<RecordBatch>) -> Result<()> {
        let failure = match self.attempt(rows) {
            Ok(done) => {
                pieces.push(done);
                return Ok(());
            }
            Err(failure) => failure,
        };
        let Some(position) = self.position.filter(|_| is_of_values(&failure.error)) else {
            return Err(failure.error);
        };
        if position.iter().any(|&column| column >= rows.num_columns()) {
            return Err(DataFusionError::External(Box::new(Unplaced)));
        }
        if rows.num_rows() == 1 {
            failed.add(failure.event(rows, position));
            return Ok(());
        }
        let half = rows.num_rows() / 2;
        self.pieces(&rows.slice(0, half), failed, pieces)?;
        self.pieces(&rows.slice(half, rows.num_rows() - half), failed, pieces)
    }

    fn attempt(&self, rows: &RecordBatch) -> Result<RecordBatch, Failure<'_>> {
        // Positions come last. Where they are only there to be told they need not be filtered.
        let width: Vec<usize> = (0..self.width).collect();
        let projected = rows.project(&width);
        let mut rows = projected.map_err(|error| Failure { of: &self.columns[0], error: error.into() })?;
        for condition in &self.conditions {
            rows = condition.pass(rows)?;
        }
        let count = rows.num_rows();
        if count == 0 {
            return Ok(RecordBatch::new_empty(self.output.clone()));
        }
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.columns.len());
        for column in &self.columns {
            let only_where = column.only_where.and_then(|place| columns.get(place));
            columns.push(column.compute(&rows, only_where)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let computed = RecordBatch::try_new_with_options(self.output.clone(), columns, &options);
        computed.map_err(|error| Failure { of: &self.columns[0], error: error.into() })
    }
}

impl Computed {
    /// The rows for which it is true.
    fn pass(&self, rows: RecordBatch) -> Result<RecordBatch, Failure<'_>> {
        if rows.num_rows() == 0 {
            return Ok(rows);
        }
        self.caught(|| {
            let passes = self.expr.evaluate(&rows)?.into_array(rows.num_rows())?;
            let passes = as_boolean_array(&passes)?;
            match passes.true_count() == rows.num_rows() {
                true => Ok(rows.clone()),
                false => Ok(filter_record_batch(&rows, passes)?),
            }
        })
    }

    fn compute(&self, rows: &RecordBatch, only_where: Option<&ArrayRef>) -> Result<ArrayRef, Failure<'_>> {
        self.caught(|| {
            let Some(only_where) = only_where else { return self.expr.evaluate(rows)?.into_array(rows.num_rows()) };
            let only_where = as_boolean_array(only_where)?;
            let wanted = match only_where.null_count() {
                0 => only_where.clone(),
                _ => prep_null_mask_filter(only_where),
            };
            self.expr.evaluate_selection(rows, &wanted)?.into_array(rows.num_rows())
        })
    }

    fn caught<T>(&self, compute: impl FnOnce() -> Result<T>) -> Result<T, Failure<'_>> {
        let outcome = catch_unwind(AssertUnwindSafe(compute)).unwrap_or_else(|panic| Err(panicked(panic.as_ref())));
        outcome.map_err(|error| Failure { of: self, error })
    }
}

impl Failure<'_> {
    /// The only row's event.
    fn event(&self, rows: &RecordBatch, [partition, offset, timestamp]: [usize; 3]) -> FailedEvent {
        let (sql, error) = (&self.of.sql, self.error.strip_backtrace());
        let values = named_values(&self.of.expr, rows, 0);
        FailedEvent {
            timestamp_us: rows.column(timestamp).as_primitive::<TimestampMicrosecondType>().value(0),
            partition: rows.column(partition).as_primitive::<Int32Type>().value(0),
            offset: rows.column(offset).as_primitive::<Int64Type>().value(0),
            reason: format!("`{sql}` cannot be computed ({error}){values}"),
        }
    }
}

/// Whether an error is one of the values that were computed with. An expression does no I/O and sees nothing else, so
/// only what it lacks to work with is not.
pub fn is_of_values(error: &DataFusionError) -> bool {
    use DataFusionError as E;
    !matches!(error.find_root(), E::ResourcesExhausted(_) | E::IoError(_) | E::ObjectStore(_))
}

/// A panic as an error.
pub fn panicked(panic: &(dyn Any + Send)) -> DataFusionError {
    let message = panic.downcast_ref::<&str>().map(|message| (*message).to_owned());
    let message = message.or_else(|| panic.downcast_ref::<String>().cloned());
    DataFusionError::Execution(format!("it panicked: {}", message.as_deref().unwrap_or("without a word")))
}

#[cfg(test)]
mod tests;

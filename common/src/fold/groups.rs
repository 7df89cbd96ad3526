//! From a group's states to its answer row.
//!
//! No group takes another's row away: where an aggregate or an output expression has no value for a group (a sum leaves
//! its type, a division by zero), that group's column is NULL, and the hidden column [`FAILED`](super::FAILED) says so.

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, BooleanArray, RecordBatch, new_null_array},
        buffer::BooleanBuffer,
        compute::{concat, nullif},
        datatypes::DataType,
    },
    error::Result,
    logical_expr::{EmitTo, GroupsAccumulator},
    physical_expr::{GroupsAccumulatorAdapter, utils::collect_columns},
    physical_plan::udaf::AggregateFunctionExpr,
};

use super::{
    Fold,
    rows::{is_of_values, panicked},
    run::batch,
    stored::convert_column,
};

/// A column, and the rows that have no value in it because computing it failed.
type Column = (ArrayRef, BTreeSet<usize>);

impl Fold {
    /// States, one a group → the groups' answer rows, row by row beside them. No hashing: each row is its own group.
    pub fn complete(&self, states: &RecordBatch) -> Result<RecordBatch> {
        let rows = states.num_rows();
        if rows == 0 {
            return Ok(RecordBatch::new_empty(self.finished.clone()));
        }
        let mut columns: Vec<ArrayRef> = states.columns()[..self.keys.len()].to_vec();
        let mut failed = vec![BTreeSet::new(); columns.len()];
        let mut at = self.keys.len();
        for (aggregate, field) in self.aggregates.iter().zip(&self.result.fields()[at..]) {
            let width = aggregate.state_fields()?.len();
            let states = &states.columns()[at..at + width];
            let (column, failures) =
                or_null(rows, field.data_type(), |from, count| evaluate(aggregate, states, from, count))?;
            columns.push(column);
            failed.push(failures);
            at += width;
        }
        self.outputs(&batch(&self.result, columns, rows)?, &failed)
    }

    /// Group keys and aggregates → finished columns. `failed` has, for some of the former, the rows without a value.
    pub(super) fn outputs(&self, results: &RecordBatch, failed: &[BTreeSet<usize>]) -> Result<RecordBatch> {
        let rows = results.num_rows();
        let (mut columns, mut all_failed) = (Vec::with_capacity(self.outputs.len()), BTreeSet::new());
        for (output, field) in self.outputs.iter().zip(self.finished.fields()) {
            let (mut column, mut failures) = or_null(rows, field.data_type(), |from, count| {
                let column = output.evaluate(&results.slice(from, count))?.into_array(count)?;
                convert_column(&column, field.data_type())
            })?;
            let over = collect_columns(output);
            failures.extend(over.iter().filter_map(|column| failed.get(column.index())).flatten());
            if !failures.is_empty() {
                column = nullif(&column, &mask(rows, &failures))?;
                all_failed.append(&mut failures);
            }
            columns.push(column);
        }
        columns[self.failed] = Arc::new(mask(rows, &all_failed));
        batch(&self.finished, columns, rows)
    }
}

fn mask(rows: usize, failed: &BTreeSet<usize>) -> BooleanArray {
    if failed.is_empty() {
        return BooleanArray::new(BooleanBuffer::new_unset(rows), None);
    }
    (0..rows).map(|row| Some(failed.contains(&row))).collect()
}

/// An aggregate's value of some groups, each of one state.
fn evaluate(
    aggregate: &Arc<AggregateFunctionExpr>,
    states: &[ArrayRef],
    from: usize,
    count: usize,
) -> Result<ArrayRef> {
    let states: Vec<ArrayRef> = states.iter().map(|column| column.slice(from, count)).collect();
    let groups: Vec<usize> = (0..count).collect();
    let mut accumulator = accumulator(aggregate)?;
    accumulator.merge_batch(&states, &groups, count)?;
    accumulator.evaluate(EmitTo::All)
}

fn accumulator(aggregate: &Arc<AggregateFunctionExpr>) -> Result<Box<dyn GroupsAccumulator>> {
    if aggregate.groups_accumulator_supported() {
        return aggregate.create_groups_accumulator();
    }
    let aggregate = aggregate.clone();
    Ok(Box::new(GroupsAccumulatorAdapter::new(move || aggregate.create_accumulator())))
}

/// What `compute` gives of `rows` rows, from one on and so many. Where it fails it is asked for halves, until the rows
/// that fail alone are found: those are null.
fn or_null(rows: usize, data_type: &DataType, compute: impl Fn(usize, usize) -> Result<ArrayRef>) -> Result<Column> {
    let (mut pieces, mut failed) = (Vec::new(), BTreeSet::new());
    // What is next is last.
    let mut left = vec![(0, rows)];
    while let Some((from, count)) = left.pop() {
        let outcome = catch_unwind(AssertUnwindSafe(|| compute(from, count)));
        match outcome.unwrap_or_else(|panic| Err(panicked(panic.as_ref()))) {
            Ok(piece) => pieces.push(piece),
            Err(error) if !is_of_values(&error) || count == 0 => return Err(error),
            Err(_) if count == 1 => {
                failed.insert(from);
                pieces.push(new_null_array(data_type, 1));
            }
            Err(_) => left.extend([(from + count / 2, count - count / 2), (from, count / 2)]),
        }
    }
    if pieces.len() == 1 {
        return Ok((pieces.remove(0), failed));
    }
    let pieces: Vec<&dyn Array> = pieces.iter().map(AsRef::as_ref).collect();
    Ok((concat(&pieces)?, failed))
}

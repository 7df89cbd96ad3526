//! `CHECK`s over whole batches, with the verdict that each row alone would get.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, AsArray, BooleanArray},
        record_batch::RecordBatch,
    },
    common::DataFusionError,
    logical_expr::ColumnarValue,
    physical_plan::PhysicalExpr,
};

use super::named_values;
use crate::catalog::Check;

/// The rows that fail a check, in order, each with the first check that it fails.
pub(super) fn failures(checks: &[Check], rows: &RecordBatch) -> Vec<(usize, String)> {
    let mut failures = std::collections::BTreeMap::new();
    for check in checks {
        let mut failed = Vec::new();
        evaluate(&check.expression, rows, 0, &mut failed);
        for (row, error) in failed {
            failures.entry(row).or_insert_with(|| reason(check, rows, row, error));
        }
    }
    failures.into_iter().collect()
}

/// Adds the rows where `expression` is false, or where it has no value because computing it fails.
///
/// A batch that fails is halved until the rows that fail are found: one bad row must not condemn its neighbours, whose
/// verdict must not depend on who was in their batch.
fn evaluate(
    expression: &Arc<dyn PhysicalExpr>,
    rows: &RecordBatch,
    first: usize,
    failed: &mut Vec<(usize, Option<DataFusionError>)>,
) {
    match passes(expression, rows) {
        Ok(None) => {}
        Ok(Some(passes)) => {
            let is_false = |&row: &usize| passes.is_valid(row) && !passes.value(row);
            failed.extend((0..rows.num_rows()).filter(is_false).map(|row| (first + row, None)));
        }
        Err(error) if rows.num_rows() == 1 => failed.push((first, Some(error))),
        Err(_) => {
            let half = rows.num_rows() / 2;
            evaluate(expression, &rows.slice(0, half), first, failed);
            evaluate(expression, &rows.slice(half, rows.num_rows() - half), first + half, failed);
        }
    }
}

/// Which rows pass; `None` when all do.
fn passes(expression: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> Result<Option<BooleanArray>, DataFusionError> {
    if rows.num_rows() == 0 {
        return Ok(None);
    }
    let array = match expression.evaluate(rows)? {
        ColumnarValue::Array(array) => array,
        scalar @ ColumnarValue::Scalar(_) => scalar.into_array(rows.num_rows())?,
    };
    let passes = array
        .as_boolean_opt()
        .ok_or_else(|| DataFusionError::Internal(format!("a CHECK gave {}, not a boolean", array.data_type())))?;
    Ok((passes.false_count() > 0).then(|| passes.clone()))
}

fn reason(check: &Check, rows: &RecordBatch, row: usize, error: Option<DataFusionError>) -> String {
    let verdict = match error {
        Some(error) => format!("cannot be computed ({})", error.strip_backtrace()),
        None => "is false".to_owned(),
    };
    format!("`CHECK ({})` {verdict}{}", check.sql, named_values(&check.expression, rows, row))
}

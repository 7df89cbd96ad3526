//! Values with the names of their columns, for people who look for what went wrong.

use std::sync::Arc;

use datafusion::{
    arrow::record_batch::RecordBatch, physical_expr::utils::collect_columns, physical_plan::PhysicalExpr,
};

use super::output;

/// What an expression was computed with in one row: ` with `a` = `1`, `b` = `0``; nothing where it reads no column.
pub(crate) fn named_values(expression: &Arc<dyn PhysicalExpr>, rows: &RecordBatch, row: usize) -> String {
    let mut columns: Vec<usize> = collect_columns(expression).iter().map(|column| column.index()).collect();
    columns.sort_unstable();
    let mut text = String::new();
    for (i, column) in columns.into_iter().enumerate() {
        let mut value = Vec::new();
        if output::write_value(rows.column(column), row, &mut value).is_ok() {
            let lead = if i == 0 { " with" } else { "," };
            let name = rows.schema_ref().field(column).name().clone();
            text.push_str(&format!("{lead} `{name}` = `{}`", String::from_utf8_lossy(&value)));
        }
    }
    text
}

//! Cells of answers, by value: what an engine wrote, however it wrote it.

use anyhow::{Context, Result, ensure};
use common::values::output;
use datafusion::arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::DataType,
};
use serde_json::Value;

/// One value of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    /// NULL.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer or decimal, without zeros that say nothing.
    Exact(String),
    /// A floating-point number.
    Float(f64),
    /// Text, bytes, times.
    Text(String),
    /// An array.
    List(Vec<Cell>),
}

/// The rows of an answer.
pub(super) type Rows = Vec<Vec<Cell>>;

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Exact(digits) => f.write_str(digits),
            Self::Float(value) => write!(f, "{value:?}"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::List(cells) => {
                f.write_str("[")?;
                for cell in cells {
                    write!(f, "{cell} ")?;
                }
                f.write_str("]")
            }
        }
    }
}

/// Rows as a person reads them, not all of them if they are many.
pub(super) fn show(rows: &Rows) -> String {
    let line = |row: &Vec<Cell>| format!("  {}", row.iter().map(Cell::to_string).collect::<Vec<_>>().join(", "));
    let mut lines: Vec<String> = rows.iter().take(20).map(line).collect();
    lines.sort();
    if rows.len() > 20 {
        lines.push(format!("  … {} rows", rows.len()));
    }
    if lines.is_empty() { "  no rows".to_owned() } else { lines.join("\n") }
}

/// The digits of a number, so that equal numbers are equal texts.
fn exact(text: &str) -> Cell {
    let digits = text.trim_start_matches('+');
    let digits = match digits.contains('.') {
        true => digits.trim_end_matches('0').trim_end_matches('.'),
        false => digits,
    };
    Cell::Exact(if digits == "-0" { "0".to_owned() } else { digits.to_owned() })
}

fn float(text: &str) -> Result<Cell> {
    Ok(Cell::Float(text.parse().with_context(|| format!("`{text}` is no number"))?))
}

/// An answer of Lamina's, as a client reads its JSON.
pub(super) fn rows(batches: &[RecordBatch]) -> Result<Rows> {
    let mut rows = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let cells: Result<Vec<Cell>> = batch.columns().iter().map(|column| cell(column, row)).collect();
            rows.push(cells?);
        }
    }
    Ok(rows)
}

fn cell(column: &ArrayRef, row: usize) -> Result<Cell> {
    let mut text = Vec::new();
    output::write_value(column, row, &mut text)?;
    let text = String::from_utf8(text)?;
    if text == "null" {
        return Ok(Cell::Null);
    }
    Ok(match column.data_type() {
        DataType::Boolean => Cell::Bool(text == "true"),
        // As wide as the others say it, so that the same number is the same.
        DataType::Float32 => {
            let value: f32 = text.trim_matches('"').parse().with_context(|| format!("`{text}` is no number"))?;
            Cell::Float(f64::from(value))
        }
        DataType::Float64 => float(text.trim_matches('"'))?,
        kind if kind.is_integer() || kind.is_decimal() => exact(&text),
        DataType::List(_) => list(&serde_json::from_str(&text)?),
        // Years after 9999 have a sign here, as ISO 8601 asks for.
        DataType::Date32 | DataType::Timestamp(..) => {
            let text = serde_json::from_str(&text).unwrap_or(text);
            Cell::Text(text.trim_start_matches('+').to_owned())
        }
        _ => Cell::Text(serde_json::from_str(&text).unwrap_or(text)),
    })
}

fn list(value: &Value) -> Cell {
    match value {
        Value::Null => Cell::Null,
        Value::Bool(value) => Cell::Bool(*value),
        Value::Number(number) => exact(&number.to_string()),
        Value::Array(items) => Cell::List(items.iter().map(list).collect()),
        other => Cell::Text(other.as_str().map_or_else(|| other.to_string(), str::to_owned)),
    }
}

/// A reference's value: numbers are tagged, `n` with all their digits and `f` for floating point.
pub(super) fn tagged(value: &Value) -> Result<Cell> {
    Ok(match value {
        Value::Object(tags) => {
            let (tag, text) = tags.iter().next().context("a value has a tag")?;
            let text = text.as_str().context("a number is a text")?;
            if tag == "f" { float(text)? } else { exact(text) }
        }
        Value::Array(items) => Cell::List(items.iter().map(tagged).collect::<Result<_>>()?),
        other => {
            ensure!(!other.is_number(), "`{other}` has no tag");
            list(other)
        }
    })
}

/// Whether two answers are the same. `kinds` says how close each column has to be.
pub(super) fn same(left: &Rows, right: &Rows, kinds: &[char], ordered: bool) -> bool {
    if left.len() != right.len() {
        return false;
    }
    let sorted = |rows: &Rows| {
        let mut keyed: Vec<(String, Vec<Cell>)> = rows.iter().map(|row| (key(row, kinds), row.clone())).collect();
        if !ordered {
            keyed.sort_by(|a, b| a.0.cmp(&b.0));
        }
        keyed.into_iter().map(|(_, row)| row).collect::<Vec<_>>()
    };
    let pairs = sorted(left).into_iter().zip(sorted(right));
    pairs.into_iter().all(|(left, right)| {
        left.len() == right.len()
            && left
                .iter()
                .zip(&right)
                .enumerate()
                .all(|(at, (a, b))| close(a, b, kinds.get(at).copied().unwrap_or('t')))
    })
}

/// What rows are put beside each other by: exact columns first, the others only to some digits.
fn key(row: &[Cell], kinds: &[char]) -> String {
    let (mut key, mut rest) = (String::new(), String::new());
    for (at, cell) in row.iter().enumerate() {
        match (kinds.get(at), value(cell)) {
            (Some('a' | 'h' | 'g'), Some(number)) => rest.push_str(&format!("{number:.6e},")),
            (_, Some(number)) if matches!(cell, Cell::Float(_)) => key.push_str(&format!("{:?},", number + 0.0)),
            _ => key.push_str(&format!("{cell},")),
        }
    }
    key + &rest
}

fn value(cell: &Cell) -> Option<f64> {
    match cell {
        Cell::Float(value) => Some(*value),
        Cell::Exact(digits) => digits.parse().ok(),
        _ => None,
    }
}

fn close(left: &Cell, right: &Cell, kind: char) -> bool {
    if left == right {
        return true;
    }
    if kind == 'g' {
        return (left == &Cell::Null) == (right == &Cell::Null);
    }
    if let (Cell::List(left), Cell::List(right)) = (left, right) {
        return left.len() == right.len() && left.iter().zip(right).all(|(a, b)| close(a, b, 't'));
    }
    let (Some(a), Some(b)) = (value(left), value(right)) else { return false };
    let both_float = matches!((left, right), (Cell::Float(_), Cell::Float(_)));
    match kind {
        'h' => (a - b).abs() <= 1.0 + 0.05 * a.max(b),
        'a' => (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-6 * (1.0 + a.abs().max(b.abs())),
        // One ulp or two: functions of the C library are not the same everywhere.
        _ if both_float => (a.is_nan() && b.is_nan()) || (a - b).abs() <= 4.0 * f64::EPSILON * a.abs().max(b.abs()),
        // The same number once as a decimal and once in floating point.
        _ => matches!((left, right), (Cell::Float(_), _) | (_, Cell::Float(_))) && a.to_bits() == b.to_bits(),
    }
}

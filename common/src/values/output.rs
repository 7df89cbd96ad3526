//! Answers as text: JSON objects and CSV records, from the same cells.
//!
//! Numbers have all their digits, decimals keep their scale, NaN and infinities are strings, bytes are hex, times are
//! ISO 8601 in UTC, and nulls are written. Types that no event can have, but an answer can, are written in their
//! nearest likeness.

use datafusion::arrow::{array::ArrayRef, error::ArrowError, record_batch::RecordBatch};

mod cell;
mod number;
#[cfg(test)]
mod tests;

use cell::Cell;

/// How numbers stand in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Numbers {
    /// As numbers with all their digits. Who reads them into doubles, as JavaScript does, loses those past the fifteenth.
    #[default]
    Digits,
    /// Decimals, and integers of more than 15 digits, as strings: what is still a number is one in a double too.
    Text,
}

impl Numbers {
    /// Whether an integer is a string.
    fn quotes(self, integer: i128) -> bool {
        self == Self::Text && integer.unsigned_abs() >= 10_u128.pow(15)
    }
}

/// Writes each row as one JSON object, with `separator` between two of them: `b","` for the elements of an array,
/// `b"\n"` for NDJSON. Nothing is written before the first and after the last, so between batches it is the caller's.
///
/// Appends to `out`; a failure leaves it with part of a row.
pub fn write_rows(batch: &RecordBatch, out: &mut Vec<u8>, separator: &[u8]) -> Result<(), ArrowError> {
    write_rows_with(batch, out, separator, Numbers::Digits)
}

/// Writes rows as [`write_rows`] does, with numbers as they are wanted.
pub fn write_rows_with(
    batch: &RecordBatch,
    out: &mut Vec<u8>,
    separator: &[u8],
    numbers: Numbers,
) -> Result<(), ArrowError> {
    let cells = cells(batch)?;
    let mut names = Vec::with_capacity(cells.len());
    for (i, field) in batch.schema_ref().fields().iter().enumerate() {
        let mut name = vec![if i == 0 { b'{' } else { b',' }];
        write_string(field.name(), &mut name)?;
        name.push(b':');
        names.push(name);
    }
    for row in 0..batch.num_rows() {
        if row > 0 {
            out.extend_from_slice(separator);
        }
        if names.is_empty() {
            out.push(b'{');
        }
        for (name, cell) in names.iter().zip(&cells) {
            out.extend_from_slice(name);
            cell.json(row, numbers, out)?;
        }
        out.push(b'}');
    }
    Ok(())
}

/// Writes the rows as CSV (RFC 4180), first the column names if `header` says so. The values are those of the JSON,
/// without its quotes; null is an empty field, and an empty string is a quoted one.
pub fn write_csv(batch: &RecordBatch, header: bool, out: &mut Vec<u8>) -> Result<(), ArrowError> {
    let cells = cells(batch)?;
    if header {
        for (i, field) in batch.schema_ref().fields().iter().enumerate() {
            separate(i, out);
            write_csv_field(field.name().as_bytes(), out);
        }
        out.extend_from_slice(b"\r\n");
    }
    let mut text = Vec::new();
    for row in 0..batch.num_rows() {
        for (i, cell) in cells.iter().enumerate() {
            separate(i, out);
            if cell.is_null(row) {
                continue;
            }
            text.clear();
            cell.text(row, Numbers::Digits, &mut text)?;
            write_csv_field(&text, out);
        }
        out.extend_from_slice(b"\r\n");
    }
    Ok(())
}

/// Writes one value as JSON.
pub fn write_value(array: &ArrayRef, row: usize, out: &mut Vec<u8>) -> Result<(), ArrowError> {
    Cell::new(array)?.json(row, Numbers::Digits, out)
}

fn cells(batch: &RecordBatch) -> Result<Vec<Cell>, ArrowError> {
    batch.columns().iter().map(Cell::new).collect()
}

fn separate(column: usize, out: &mut Vec<u8>) {
    if column > 0 {
        out.push(b',');
    }
}

fn write_csv_field(text: &[u8], out: &mut Vec<u8>) {
    let plain = !text.is_empty() && !text.iter().any(|b| matches!(b, b',' | b'"' | b'\r' | b'\n'));
    if plain {
        out.extend_from_slice(text);
        return;
    }
    out.push(b'"');
    for &byte in text {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// Writes a JSON string.
fn write_string(text: &str, out: &mut Vec<u8>) -> Result<(), ArrowError> {
    serde_json::to_writer(out, text).map_err(|error| ArrowError::JsonError(error.to_string()))
}

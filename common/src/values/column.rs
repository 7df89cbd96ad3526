//! Columns under construction, which can give back their last rows.
//!
//! Arrow's own builders only grow; an event that turns out dead in its fifth field must be undone in the first four.

use std::sync::Arc;

use datafusion::arrow::{
    array::{
        ArrayRef, BinaryArray, BooleanArray, BooleanBufferBuilder, Decimal128Array, ListArray, NullBufferBuilder,
        PrimitiveArray, StringArray, StructArray,
    },
    buffer::{NullBuffer, OffsetBuffer},
    datatypes::{
        ArrowPrimitiveType, DataType, Date32Type, FieldRef, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
        TimestampMicrosecondType,
    },
    error::ArrowError,
};

use super::{
    fields::{self, Fields, Unreadable},
    number, sql_type_name, time,
};
use crate::{
    fault::visible,
    sql::{canonical_f32, canonical_f64},
};

/// A column and the values that it has so far.
#[derive(Debug)]
pub(super) struct Column {
    field: FieldRef,
    valid: NullBufferBuilder,
    values: Values,
}

/// Values of one type; where a row is null there is a placeholder.
#[derive(Debug)]
enum Values {
    Boolean(BooleanBufferBuilder),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Decimal(Vec<i128>, u8, i8),
    Text(Bytes),
    Binary(Bytes),
    Date(Vec<i32>),
    Timestamp(Vec<i64>),
    List(Vec<i32>, Box<Column>),
    Struct(Box<Fields>, Vec<Column>),
}

/// Values of different lengths, one after the other.
#[derive(Debug, Default)]
struct Bytes {
    ends: Vec<i32>,
    bytes: Vec<u8>,
}

impl Bytes {
    fn end(&mut self) {
        // A chunk's text is shorter than `i32::MAX`, and no value is longer than its text.
        self.ends.push(i32::try_from(self.bytes.len()).unwrap_or(i32::MAX));
    }

    fn truncate(&mut self, rows: usize) {
        self.ends.truncate(rows);
        self.bytes.truncate(last(&self.ends));
    }
}

/// A value that a column does not take.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// The field, with its place inside: `tags[2].name`.
    pub(super) path: String,
    /// What is wrong, to follow the field's name.
    pub(super) reason: String,
}

impl Column {
    /// An empty column; `None` if events cannot have its type.
    pub(super) fn new(field: &FieldRef) -> Option<Self> {
        let values = match field.data_type() {
            DataType::Boolean => Values::Boolean(BooleanBufferBuilder::new(0)),
            DataType::Int16 => Values::Int16(Vec::new()),
            DataType::Int32 => Values::Int32(Vec::new()),
            DataType::Int64 => Values::Int64(Vec::new()),
            DataType::Float32 => Values::Float32(Vec::new()),
            DataType::Float64 => Values::Float64(Vec::new()),
            DataType::Decimal128(precision, scale) => Values::Decimal(Vec::new(), *precision, *scale),
            DataType::Utf8 => Values::Text(Bytes::default()),
            DataType::Binary => Values::Binary(Bytes::default()),
            DataType::Date32 => Values::Date(Vec::new()),
            DataType::Timestamp(..) => Values::Timestamp(Vec::new()),
            DataType::List(element) => Values::List(Vec::new(), Box::new(Self::new(element)?)),
            DataType::Struct(fields) => Values::Struct(
                Box::new(Fields::new(fields.iter().map(|field| field.name().clone()))),
                fields.iter().map(Self::new).collect::<Option<_>>()?,
            ),
            _ => return None,
        };
        Some(Self { field: field.clone(), valid: NullBufferBuilder::new(0), values })
    }

    /// Makes room for so many rows more.
    pub(super) fn reserve(&mut self, rows: usize) {
        match &mut self.values {
            Values::Boolean(values) => values.reserve(rows),
            Values::Int16(values) => values.reserve(rows),
            Values::Int32(values) | Values::Date(values) | Values::List(values, _) => values.reserve(rows),
            Values::Int64(values) | Values::Timestamp(values) => values.reserve(rows),
            Values::Float32(values) => values.reserve(rows),
            Values::Float64(values) => values.reserve(rows),
            Values::Decimal(values, ..) => values.reserve(rows),
            Values::Text(values) | Values::Binary(values) => values.ends.reserve(rows),
            Values::Struct(_, columns) => columns.iter_mut().for_each(|column| column.reserve(rows)),
        }
    }

    /// Adds the value that a JSON text holds; `None` is a member that is not there. On failure the column may be left
    /// with half a row: truncate it.
    pub(super) fn append(&mut self, text: Option<&str>) -> Result<(), Wrong> {
        let Some(text) = text.filter(|&text| text != "null") else {
            if !self.field.is_nullable() {
                let what = if text.is_none() { "is missing" } else { "is null" };
                return Err(self.wrong(format!("{what}, and is NOT NULL")));
            }
            self.append_null();
            return Ok(());
        };
        match self.append_value(text) {
            Ok(()) => {
                self.valid.append_non_null();
                Ok(())
            }
            Err(Refused::Here(why)) => {
                let type_name = sql_type_name(self.field.data_type());
                Err(self.wrong(format!("must be {type_name}: `{}` {why}", shortened(text))))
            }
            Err(Refused::Inside(wrong)) => {
                Err(Wrong { path: format!("{}{}", self.field.name(), wrong.path), reason: wrong.reason })
            }
        }
    }

    fn append_value(&mut self, text: &str) -> Result<(), Refused> {
        match &mut self.values {
            Values::Boolean(values) => match text {
                "true" => values.append(true),
                "false" => values.append(false),
                _ => return Err(Refused::Here("is neither true nor false")),
            },
            Values::Int16(values) => values.push(number::integer(&number_text(text)?)?),
            Values::Int32(values) => values.push(number::integer(&number_text(text)?)?),
            Values::Int64(values) => values.push(number::integer(&number_text(text)?)?),
            Values::Float32(values) => values.push(match special(text) {
                Some(number) => number,
                None => canonical_f32(number::float(&number_text(text)?)?),
            }),
            Values::Float64(values) => values.push(match special(text) {
                Some(number) => number.into(),
                None => canonical_f64(number::float(&number_text(text)?)?),
            }),
            Values::Decimal(values, precision, scale) => {
                values.push(number::decimal(&number_text(text)?, *precision, *scale)?);
            }
            Values::Text(values) => {
                values.bytes.extend_from_slice(string(text)?.as_bytes());
                values.end();
            }
            Values::Binary(values) => {
                append_hex(&string(text)?, &mut values.bytes)?;
                values.end();
            }
            Values::Date(values) => values.push(time::date(&string(text)?)?),
            Values::Timestamp(_) if text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
                return Err(Refused::Here(
                    "is a number, not a time such as \"2026-01-03T17:05:00Z\": declare the column BIGINT, and make a time \
                     of it in the view",
                ));
            }
            Values::Timestamp(values) => values.push(time::timestamp(&string(text)?)?),
            Values::List(ends, column) => append_list(text, ends, column)?,
            Values::Struct(fields, columns) => append_struct(text, fields, columns)?,
        }
        Ok(())
    }

    fn append_null(&mut self) {
        self.valid.append_null();
        match &mut self.values {
            Values::Boolean(values) => values.append(false),
            Values::Int16(values) => values.push(0),
            Values::Int32(values) | Values::Date(values) => values.push(0),
            Values::Int64(values) | Values::Timestamp(values) => values.push(0),
            Values::Float32(values) => values.push(0.0),
            Values::Float64(values) => values.push(0.0),
            Values::Decimal(values, ..) => values.push(0),
            Values::Text(values) | Values::Binary(values) => values.end(),
            Values::List(ends, _) => ends.push(ends.last().copied().unwrap_or(0)),
            Values::Struct(_, columns) => columns.iter_mut().for_each(Self::append_null),
        }
    }

    /// Takes back every row after the first `rows`, whole or half.
    pub(super) fn truncate(&mut self, rows: usize) {
        self.valid.truncate(rows);
        match &mut self.values {
            Values::Boolean(values) => values.truncate(rows),
            Values::Int16(values) => values.truncate(rows),
            Values::Int32(values) | Values::Date(values) => values.truncate(rows),
            Values::Int64(values) | Values::Timestamp(values) => values.truncate(rows),
            Values::Float32(values) => values.truncate(rows),
            Values::Float64(values) => values.truncate(rows),
            Values::Decimal(values, ..) => values.truncate(rows),
            Values::Text(values) | Values::Binary(values) => values.truncate(rows),
            Values::List(ends, column) => {
                ends.truncate(rows);
                column.truncate(last(ends));
            }
            Values::Struct(_, columns) => columns.iter_mut().for_each(|column| column.truncate(rows)),
        }
    }

    /// The rows as an Arrow array; the column is empty again.
    pub(super) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let valid = self.valid.finish();
        Ok(match &mut self.values {
            Values::Boolean(values) => Arc::new(BooleanArray::new(values.finish(), valid)),
            Values::Int16(values) => primitive::<Int16Type>(values, valid)?,
            Values::Int32(values) => primitive::<Int32Type>(values, valid)?,
            Values::Int64(values) => primitive::<Int64Type>(values, valid)?,
            Values::Float32(values) => primitive::<Float32Type>(values, valid)?,
            Values::Float64(values) => primitive::<Float64Type>(values, valid)?,
            Values::Date(values) => primitive::<Date32Type>(values, valid)?,
            Values::Timestamp(values) => {
                let array = PrimitiveArray::<TimestampMicrosecondType>::try_new(std::mem::take(values).into(), valid)?;
                Arc::new(array.with_data_type(self.field.data_type().clone()))
            }
            Values::Decimal(values, precision, scale) => {
                let array = Decimal128Array::try_new(std::mem::take(values).into(), valid)?;
                Arc::new(array.with_precision_and_scale(*precision, *scale)?)
            }
            Values::Text(values) => {
                let Bytes { ends, bytes } = std::mem::take(values);
                Arc::new(StringArray::try_new(offsets(ends), bytes.into(), valid)?)
            }
            Values::Binary(values) => {
                let Bytes { ends, bytes } = std::mem::take(values);
                Arc::new(BinaryArray::try_new(offsets(ends), bytes.into(), valid)?)
            }
            Values::List(ends, column) => {
                let ends = std::mem::take(ends);
                Arc::new(ListArray::try_new(column.field.clone(), offsets(ends), column.finish()?, valid)?)
            }
            Values::Struct(_, columns) => {
                let fields = columns.iter().map(|column| column.field.clone()).collect();
                let arrays = columns.iter_mut().map(Self::finish).collect::<Result<_, _>>()?;
                Arc::new(StructArray::try_new(fields, arrays, valid)?)
            }
        })
    }

    fn wrong(&self, reason: String) -> Wrong {
        Wrong { path: self.field.name().clone(), reason }
    }
}

/// Why a text is not this column's value, or some part's inside of it.
enum Refused {
    Here(number::Why),
    Inside(Wrong),
}

impl From<number::Why> for Refused {
    fn from(why: number::Why) -> Self {
        Self::Here(why)
    }
}

fn append_list(text: &str, ends: &mut Vec<i32>, column: &mut Column) -> Result<(), Refused> {
    if !text.starts_with('[') {
        return Err(Refused::Here("is not an array"));
    }
    let mut length = last(ends);
    fields::elements(text, |index, element| {
        length += 1;
        column.append(Some(element)).map_err(|wrong| {
            // The element's own path begins with the name that Arrow gives to elements.
            let inner = wrong.path.strip_prefix(column.field.name().as_str()).unwrap_or_default();
            Wrong { path: format!("[{index}]{inner}"), reason: wrong.reason }
        })
    })
    .map_err(|wrong| wrong.map_or(Refused::Here("is not an array"), Refused::Inside))?;
    ends.push(i32::try_from(length).unwrap_or(i32::MAX));
    Ok(())
}

fn append_struct(text: &str, fields: &mut Fields, columns: &mut [Column]) -> Result<(), Refused> {
    match fields.read(text) {
        Ok(()) => {}
        Err(Unreadable::Twice(field)) => {
            let path = format!(".{}", fields.name(field));
            return Err(Refused::Inside(Wrong { path, reason: "is there twice".to_owned() }));
        }
        Err(_) => return Err(Refused::Here("is not an object")),
    }
    for (i, column) in columns.iter_mut().enumerate() {
        let appended = column.append(fields.value(i, text));
        appended.map_err(|wrong| Refused::Inside(Wrong { path: format!(".{}", wrong.path), ..wrong }))?;
    }
    Ok(())
}

fn append_hex(text: &str, bytes: &mut Vec<u8>) -> Result<(), number::Why> {
    let start = bytes.len();
    bytes.resize(start + text.len() / 2, 0);
    hex::decode_to_slice(text, &mut bytes[start..]).map_err(|_| "is not hex digits, two for each byte")
}

fn primitive<T: ArrowPrimitiveType>(
    values: &mut Vec<T::Native>,
    valid: Option<NullBuffer>,
) -> Result<ArrayRef, ArrowError> {
    Ok(Arc::new(PrimitiveArray::<T>::try_new(std::mem::take(values).into(), valid)?))
}

fn offsets(ends: Vec<i32>) -> OffsetBuffer<i32> {
    let mut offsets = Vec::with_capacity(ends.len() + 1);
    offsets.push(0);
    offsets.extend(ends);
    OffsetBuffer::new(offsets.into())
}

fn last(ends: &[i32]) -> usize {
    ends.last().and_then(|&end| usize::try_from(end).ok()).unwrap_or(0)
}

/// The three numbers that JSON has no digits for.
fn special(text: &str) -> Option<f32> {
    match text {
        "\"NaN\"" => Some(f32::NAN),
        "\"Infinity\"" => Some(f32::INFINITY),
        "\"-Infinity\"" => Some(f32::NEG_INFINITY),
        _ => None,
    }
}

/// The digits of a JSON number, or of a string that holds one.
fn number_text(text: &str) -> Result<std::borrow::Cow<'_, str>, number::Why> {
    match text.as_bytes().first() {
        Some(b'"') => fields::string(text).ok_or("is not a number"),
        _ => Ok(text.into()),
    }
}

fn string(text: &str) -> Result<std::borrow::Cow<'_, str>, number::Why> {
    if !text.starts_with('"') {
        return Err("is not a string");
    }
    fields::string(text).ok_or("has an escape that is no character")
}

/// A value for a message, cut where it would be too long to read, with what nobody sees written by its number.
pub(super) fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", visible(&text[..end])),
        None => visible(text).into_owned(),
    }
}

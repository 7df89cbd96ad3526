//! The edge between DataFusion's types and those that a Delta table has.
//!
//! States can be unsigned, nanoseconds, views of text: each maps to a stored type that gives back exactly what went in,
//! or an error where it would not.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, RecordBatch, RecordBatchOptions},
        compute::{CastOptions, cast_with_options},
        datatypes::{DataType, Field, Fields, SchemaRef, TimeUnit},
    },
    error::Result,
};

/// The type in which a Delta table keeps values of `data_type`; `None` where it cannot.
pub(super) fn stored_type(data_type: &DataType) -> Option<DataType> {
    use DataType as T;
    Some(match data_type {
        T::Boolean | T::Int16 | T::Int32 | T::Int64 | T::Float32 | T::Float64 | T::Date32 => data_type.clone(),
        T::Decimal128(_, _) | T::Utf8 | T::Binary => data_type.clone(),
        T::Int8 | T::UInt8 => T::Int16,
        T::UInt16 => T::Int32,
        T::UInt32 | T::UInt64 => T::Int64,
        T::Utf8View | T::LargeUtf8 => T::Utf8,
        T::BinaryView | T::LargeBinary | T::FixedSizeBinary(_) => T::Binary,
        // A zone says how a time is shown, and the fold knows that: Delta knows one zone.
        T::Timestamp(TimeUnit::Microsecond, zone) => {
            T::Timestamp(TimeUnit::Microsecond, zone.as_ref().map(|_| "UTC".into()))
        }
        // Another unit would lose digits or range as microseconds: its count of units is kept.
        T::Timestamp(_, _) | T::Time64(_) | T::Duration(_) | T::Date64 => T::Int64,
        T::Time32(_) => T::Int32,
        T::List(item) | T::LargeList(item) | T::FixedSizeList(item, _) => {
            T::List(Arc::new(Field::new("element", stored_type(item.data_type())?, true)))
        }
        T::Struct(fields) => T::Struct(stored_fields(fields)?),
        T::Dictionary(_, values) => stored_type(values)?,
        _ => return None,
    })
}

fn stored_fields(fields: &Fields) -> Option<Fields> {
    fields.iter().map(|field| Some(Arc::new(Field::new(field.name(), stored_type(field.data_type())?, true)))).collect()
}

/// The columns of a batch in the types of `schema`, by position. A value that does not fit is an error.
fn convert(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns: Result<Vec<ArrayRef>> = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| convert_column(column, field.data_type()))
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns?, &options)?)
}

pub(super) fn convert_column(column: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    if column.data_type() == to {
        return Ok(column.clone());
    }
    let exact = CastOptions { safe: false, ..CastOptions::default() };
    Ok(cast_with_options(column, to, &exact)?)
}

/// State rows as a batch view stores them: `schema` is the fold's `stored_state`.
pub fn to_stored(states: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    convert(states, schema)
}

/// Stored state rows as DataFusion takes them: `schema` is the fold's `state`.
pub fn from_stored(stored: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    convert(stored, schema)
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::TimestampMicrosecondArray;

    use super::*;

    #[test]
    fn times_of_every_zone_are_stored_as_delta_has_them() {
        for zone in [None, Some("UTC"), Some("Europe/Berlin"), Some("+02:00")] {
            let times = TimestampMicrosecondArray::from(vec![Some(1_767_434_400_000_000), None, Some(-1)]);
            let times: ArrayRef = Arc::new(times.with_timezone_opt(zone));
            let stored = stored_type(times.data_type()).unwrap();
            assert_eq!(stored, DataType::Timestamp(TimeUnit::Microsecond, zone.map(|_| "UTC".into())));
            let there = convert_column(&times, &stored).unwrap();
            assert_eq!(&convert_column(&there, times.data_type()).unwrap(), &times, "{zone:?}");
        }
    }
}

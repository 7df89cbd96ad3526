//! One column's values as text, one at a time.

use datafusion::arrow::{
    array::{
        Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Decimal128Array, Float32Array, Float64Array, ListArray,
        PrimitiveArray, StringArray, StringViewArray, StructArray,
    },
    compute::cast,
    datatypes::{
        ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int8Type,
        Int16Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
        TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
    error::ArrowError,
};

use super::{Numbers, number, write_string};
use crate::values::time;

/// A column, ready to be written: its type is looked at once, not once a row.
pub(super) enum Cell {
    Null,
    Boolean(BooleanArray),
    Int8(PrimitiveArray<Int8Type>),
    Int16(PrimitiveArray<Int16Type>),
    Int32(PrimitiveArray<Int32Type>),
    Int64(PrimitiveArray<Int64Type>),
    UInt8(PrimitiveArray<UInt8Type>),
    UInt16(PrimitiveArray<UInt16Type>),
    UInt32(PrimitiveArray<UInt32Type>),
    UInt64(PrimitiveArray<UInt64Type>),
    Float32(Float32Array),
    Float64(Float64Array),
    Decimal(Decimal128Array, u32),
    /// Numbers that have been made text already.
    Number(StringArray),
    Text(StringArray),
    TextView(StringViewArray),
    Binary(BinaryArray),
    Date(PrimitiveArray<Date32Type>),
    Timestamp {
        values: PrimitiveArray<Int64Type>,
        per_second: i64,
        utc: bool,
    },
    List(ListArray, Box<Cell>),
    Struct {
        array: StructArray,
        /// Each member's name, with what stands before and after it.
        names: Vec<Vec<u8>>,
        members: Vec<Cell>,
    },
}

impl Cell {
    /// Looks at a column's type. Types that hold what another one holds are cast to it.
    pub(super) fn new(array: &ArrayRef) -> Result<Self, ArrowError> {
        let cast_to = |data_type: &DataType| Self::new(&cast(array, data_type)?);
        Ok(match array.data_type() {
            DataType::Null => Self::Null,
            DataType::Boolean => Self::Boolean(array.as_boolean().clone()),
            DataType::Int8 => Self::Int8(array.as_primitive().clone()),
            DataType::Int16 => Self::Int16(array.as_primitive().clone()),
            DataType::Int32 => Self::Int32(array.as_primitive().clone()),
            DataType::Int64 => Self::Int64(array.as_primitive().clone()),
            DataType::UInt8 => Self::UInt8(array.as_primitive().clone()),
            DataType::UInt16 => Self::UInt16(array.as_primitive().clone()),
            DataType::UInt32 => Self::UInt32(array.as_primitive().clone()),
            DataType::UInt64 => Self::UInt64(array.as_primitive().clone()),
            DataType::Float16 => return cast_to(&DataType::Float32),
            DataType::Float32 => Self::Float32(array.as_primitive::<Float32Type>().clone()),
            DataType::Float64 => Self::Float64(array.as_primitive::<Float64Type>().clone()),
            DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
                return cast_to(&DataType::Decimal128(*precision, *scale));
            }
            DataType::Decimal128(_, scale) => match u32::try_from(*scale) {
                Ok(scale) => Self::Decimal(array.as_primitive::<Decimal128Type>().clone(), scale),
                Err(_) => Self::Number(numbers::<Decimal128Type>(array, |array, row| array.value_as_string(row))),
            },
            DataType::Decimal256(..) => {
                Self::Number(numbers::<Decimal256Type>(array, |array, row| array.value_as_string(row)))
            }
            DataType::Utf8 => Self::Text(array.as_string().clone()),
            DataType::Utf8View => Self::TextView(array.as_string_view().clone()),
            DataType::Binary => Self::Binary(array.as_binary().clone()),
            DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                return cast_to(&DataType::Binary);
            }
            DataType::Date32 => Self::Date(array.as_primitive().clone()),
            DataType::Date64 => return cast_to(&DataType::Date32),
            DataType::Timestamp(unit, zone) => Self::timestamp(array, *unit, zone.is_some()),
            DataType::List(_) => {
                let lists = array.as_list::<i32>().clone();
                let elements = Self::new(lists.values())?;
                Self::List(lists, Box::new(elements))
            }
            DataType::LargeList(element)
            | DataType::ListView(element)
            | DataType::LargeListView(element)
            | DataType::FixedSizeList(element, _) => return cast_to(&DataType::List(element.clone())),
            DataType::Struct(_) => return Self::structs(array.as_struct()),
            DataType::Map(entries, _) => {
                let map = array.as_map();
                let list = ListArray::try_new(
                    entries.clone(),
                    map.offsets().clone(),
                    std::sync::Arc::new(map.entries().clone()),
                    map.nulls().cloned(),
                )?;
                return Self::new(&(std::sync::Arc::new(list) as ArrayRef));
            }
            DataType::Dictionary(_, values) => return cast_to(values),
            DataType::RunEndEncoded(_, values) => return cast_to(values.data_type()),
            // Times of day, intervals, durations: Arrow's own text.
            _ => return cast_to(&DataType::Utf8),
        })
    }

    fn timestamp(array: &ArrayRef, unit: TimeUnit, utc: bool) -> Self {
        let (values, per_second) = match unit {
            TimeUnit::Second => (array.as_primitive::<TimestampSecondType>().reinterpret_cast(), 1),
            TimeUnit::Millisecond => (array.as_primitive::<TimestampMillisecondType>().reinterpret_cast(), 1_000),
            TimeUnit::Microsecond => (array.as_primitive::<TimestampMicrosecondType>().reinterpret_cast(), 1_000_000),
            TimeUnit::Nanosecond => (array.as_primitive::<TimestampNanosecondType>().reinterpret_cast(), 1_000_000_000),
        };
        Self::Timestamp { values, per_second, utc }
    }

    fn structs(array: &StructArray) -> Result<Self, ArrowError> {
        let mut names = Vec::new();
        for (i, field) in array.fields().iter().enumerate() {
            let mut name = vec![if i == 0 { b'{' } else { b',' }];
            write_string(field.name(), &mut name)?;
            name.push(b':');
            names.push(name);
        }
        let members = array.columns().iter().map(Self::new).collect::<Result<_, _>>()?;
        Ok(Self::Struct { array: array.clone(), names, members })
    }

    pub(super) fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Null => true,
            Self::Boolean(array) => array.is_null(row),
            Self::Int8(array) => array.is_null(row),
            Self::Int16(array) => array.is_null(row),
            Self::Int32(array) => array.is_null(row),
            Self::Int64(array) => array.is_null(row),
            Self::UInt8(array) => array.is_null(row),
            Self::UInt16(array) => array.is_null(row),
            Self::UInt32(array) => array.is_null(row),
            Self::UInt64(array) => array.is_null(row),
            Self::Float32(array) => array.is_null(row),
            Self::Float64(array) => array.is_null(row),
            Self::Decimal(array, _) => array.is_null(row),
            Self::Number(array) | Self::Text(array) => array.is_null(row),
            Self::TextView(array) => array.is_null(row),
            Self::Binary(array) => array.is_null(row),
            Self::Date(array) => array.is_null(row),
            Self::Timestamp { values, .. } => values.is_null(row),
            Self::List(array, _) => array.is_null(row),
            Self::Struct { array, .. } => array.is_null(row),
        }
    }

    /// Writes a value as JSON.
    pub(super) fn json(&self, row: usize, numbers: Numbers, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        if self.is_null(row) {
            out.extend_from_slice(b"null");
            return Ok(());
        }
        match self {
            Self::Int64(array) if numbers.quotes(array.value(row).into()) => self.quoted(row, out),
            Self::UInt64(array) if numbers.quotes(array.value(row).into()) => self.quoted(row, out),
            Self::Decimal(..) | Self::Number(_) if numbers == Numbers::Text => self.quoted(row, out),
            Self::Text(array) => write_string(array.value(row), out),
            Self::TextView(array) => write_string(array.value(row), out),
            Self::Float32(array) => number::write_float(array.value(row), true, out),
            Self::Float64(array) => number::write_float(array.value(row), true, out),
            Self::Binary(_) | Self::Date(_) | Self::Timestamp { .. } => self.quoted(row, out),
            _ => self.text(row, numbers, out),
        }
    }

    /// Writes a value that is not null, and needs no escapes, as a JSON string.
    fn quoted(&self, row: usize, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        out.push(b'"');
        self.text(row, Numbers::Digits, out)?;
        out.push(b'"');
        Ok(())
    }

    /// Writes a value that is not null, without JSON's quotes around it; `numbers` is for those within it.
    pub(super) fn text(&self, row: usize, numbers: Numbers, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        match self {
            Self::Null => {}
            Self::Boolean(array) => out.extend_from_slice(if array.value(row) { b"true" } else { b"false" }),
            Self::Int8(array) => number::write_integer(array.value(row).into(), out),
            Self::Int16(array) => number::write_integer(array.value(row).into(), out),
            Self::Int32(array) => number::write_integer(array.value(row).into(), out),
            Self::Int64(array) => number::write_integer(array.value(row).into(), out),
            Self::UInt8(array) => number::write_integer(array.value(row).into(), out),
            Self::UInt16(array) => number::write_integer(array.value(row).into(), out),
            Self::UInt32(array) => number::write_integer(array.value(row).into(), out),
            Self::UInt64(array) => number::write_integer(array.value(row).into(), out),
            Self::Float32(array) => number::write_float(array.value(row), false, out)?,
            Self::Float64(array) => number::write_float(array.value(row), false, out)?,
            Self::Decimal(array, scale) => number::write_decimal(array.value(row), *scale, out),
            Self::Number(array) | Self::Text(array) => out.extend_from_slice(array.value(row).as_bytes()),
            Self::TextView(array) => out.extend_from_slice(array.value(row).as_bytes()),
            Self::Binary(array) => write_hex(array.value(row), out),
            Self::Date(array) => return calendar(time::write_date(array.value(row).into(), out), array.value(row)),
            Self::Timestamp { values, per_second, utc } => {
                calendar(time::write_timestamp(values.value(row), *per_second, out), values.value(row))?;
                out.extend_from_slice(if *utc { b"Z" } else { b"" });
            }
            Self::List(array, elements) => {
                out.push(b'[');
                let offsets = array.value_offsets();
                let (start, end) = (as_index(offsets[row]), as_index(offsets[row + 1]));
                for element in start..end {
                    if element > start {
                        out.push(b',');
                    }
                    elements.json(element, numbers, out)?;
                }
                out.push(b']');
            }
            Self::Struct { names, members, .. } => {
                for (name, member) in names.iter().zip(members) {
                    out.extend_from_slice(name);
                    member.json(row, numbers, out)?;
                }
                out.extend_from_slice(if names.is_empty() { b"{}" } else { b"}" });
            }
        }
        Ok(())
    }
}

fn numbers<T: ArrowPrimitiveType>(array: &ArrayRef, text: impl Fn(&PrimitiveArray<T>, usize) -> String) -> StringArray {
    let array = array.as_primitive::<T>();
    (0..array.len()).map(|row| array.is_valid(row).then(|| text(array, row))).collect()
}

fn write_hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

/// Offsets are never negative.
fn as_index(offset: i32) -> usize {
    usize::try_from(offset).unwrap_or(0)
}

fn calendar(written: bool, value: impl std::fmt::Display) -> Result<(), ArrowError> {
    if written {
        return Ok(());
    }
    Err(ArrowError::CastError(format!("could not write the time `{value}`: it is beyond the calendar")))
}

//! How large the results of functions become, by their arguments.

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, OffsetSizeTrait},
        compute::cast,
        datatypes::{DataType, Int64Type, IntervalMonthDayNanoType, IntervalUnit, TimeUnit},
    },
    error::Result,
};

/// What a result's size comes from. None is below the size itself, and none so far above it that anybody minds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Growth {
    /// All arguments behind each other.
    Sum,
    /// The others behind each other, the first one between them.
    Joined,
    /// So many times the first argument.
    Times(u8),
    /// The first argument, filled up to as many letters as the second says.
    Padded,
    /// The first argument, as often as the second says.
    Repeated,
    /// The first with the third in place of the second, wherever that is.
    Replaced,
    /// The first with what a regular expression finds replaced, perhaps by parts of it.
    ReplacedByPattern,
    /// Parts of the first argument, as many as a regular expression has.
    Captured,
    /// The first argument with the second in it.
    Overlaid,
    /// A time, by a format.
    Formatted,
    /// The elements of a list as text, the others between them.
    ListAsText,
    /// A list with elements replaced by the third argument.
    ElementsReplaced,
    /// As many numbers as a list has elements.
    NumberEach,
    /// A list of as many elements as the second argument says, the third in place of what is missing.
    Resized,
    /// Lists beside each other, as long as the longest.
    Zipped,
    /// From the first argument to the second, by the third.
    Series { with_end: bool },
    /// What the type says: it is looked at when the call is planned.
    Typed,
}

/// One row's arguments. Constants are columns of one row.
pub(super) struct Row<'a> {
    pub(super) columns: &'a [(ArrayRef, bool)],
    pub(super) row: usize,
}

impl Growth {
    /// Of a function; `None` where the result is about as large as the arguments at most, whatever these are.
    pub(super) fn of(function: &str) -> Option<Self> {
        Some(match function {
            "array_append" | "array_concat" | "array_prepend" | "array_union" | "concat" | "make_array" | "map" => {
                Self::Sum
            }
            "concat_ws" => Self::Joined,
            "encode" => Self::Times(2),
            "translate" => Self::Times(4),
            "string_to_array" => Self::Times(8),
            "lpad" | "rpad" => Self::Padded,
            "array_repeat" | "repeat" => Self::Repeated,
            "replace" => Self::Replaced,
            "regexp_replace" => Self::ReplacedByPattern,
            "regexp_match" => Self::Captured,
            "overlay" => Self::Overlaid,
            "to_char" => Self::Formatted,
            "array_to_string" => Self::ListAsText,
            "array_replace" | "array_replace_n" | "array_replace_all" => Self::ElementsReplaced,
            "array_positions" => Self::NumberEach,
            "array_resize" => Self::Resized,
            "arrays_zip" => Self::Zipped,
            "generate_series" => Self::Series { with_end: true },
            "range" => Self::Series { with_end: false },
            "arrow_cast" | "arrow_try_cast" => Self::Typed,
            _ => return None,
        })
    }

    /// How many bytes the result has for one row.
    pub(super) fn bytes(self, row: &Row<'_>) -> Result<u64> {
        let all = || (0..row.columns.len()).map(|argument| row.size(argument)).fold(0, u64::saturating_add);
        let times = |bytes: u64, count: u64| bytes.saturating_mul(count);
        Ok(match self {
            Self::Sum => all(),
            Self::Joined => all().saturating_add(times(row.size(0), row.columns.len() as u64)),
            Self::Times(n) => times(row.size(0), u64::from(n)),
            Self::Padded => {
                let widest = if row.text(2).is_none_or(str::is_ascii) { 1 } else { 4 };
                // The function makes room for as many letters as it is told, also where the text is NULL.
                row.size(0).saturating_add(times(widest, row.count(1)?))
            }
            Self::Repeated => times(row.size(0), row.count(1)?),
            Self::Replaced => {
                let (Some(text), Some(from), Some(to)) = (row.text(0), row.text(1), row.text(2)) else { return Ok(0) };
                let length = text.len() as u64;
                let grown = |count: u64| length.saturating_add(times(to.len() as u64, count));
                let most = grown(length / (from.len() as u64).max(1) + 1);
                match most <= super::VALUE_BYTES || from.is_empty() {
                    true => most,
                    false => grown(text.matches(from).count() as u64),
                }
            }
            Self::ReplacedByPattern => {
                let (text, with) = (row.size(0), row.size(2));
                let parts = row.text(2).map_or(0, |with| with.matches(['\\', '$']).count() as u64);
                let is_all = row.text(3).is_some_and(|flags| flags.contains('g'));
                let matches = if is_all { text.saturating_add(1) } else { 1 };
                text.saturating_add(times(with, matches)).saturating_add(times(text, parts))
            }
            Self::Captured => {
                let parts = row.text(1).map_or(0, |pattern| pattern.matches('(').count() as u64);
                times(row.size(0).saturating_add(8), parts.saturating_add(1))
            }
            Self::Overlaid => times(row.size(0), 2).saturating_add(row.size(1)),
            Self::Formatted => times(row.size(1), 16).saturating_add(64),
            Self::ListAsText => {
                let between = row.text(1).map_or(0, str::len).saturating_add(row.text(2).map_or(0, str::len));
                row.size(0).saturating_add(times(32 + between as u64, row.leaves(0)))
            }
            Self::ElementsReplaced => row.size(0).saturating_add(times(row.size(2), row.leaves(0))),
            Self::NumberEach => times(8, row.leaves(0)),
            Self::Resized => row.size(0).saturating_add(times(row.size(2).max(row.element(0)).max(8), row.count(1)?)),
            Self::Zipped => {
                let lists = 0..row.columns.len();
                let longest = lists.clone().map(|list| row.length(list)).max().unwrap_or_default();
                let wide = lists.map(|list| row.element(list).max(8)).fold(0, u64::saturating_add);
                all().saturating_add(times(wide, longest))
            }
            Self::Series { with_end } => times(8, row.series(with_end)?),
            Self::Typed => 0,
        })
    }
}

/// What all arguments of all rows come to, or somewhat more, without a look at each; `None` where only that would tell.
pub(super) fn at_most(columns: &[(ArrayRef, bool)], rows: usize) -> Option<u64> {
    columns.iter().try_fold(0, |total: u64, (column, constant)| {
        let texts = match column.data_type() {
            DataType::Utf8 => between(column.as_string::<i32>().value_offsets()),
            DataType::LargeUtf8 => between(column.as_string::<i64>().value_offsets()),
            DataType::Binary => between(column.as_binary::<i32>().value_offsets()),
            DataType::LargeBinary => between(column.as_binary::<i64>().value_offsets()),
            other if other.is_primitive() => 0,
            _ => return None,
        };
        let bytes = (column.len() as u64).saturating_mul(fixed(column.data_type())).saturating_add(texts);
        Some(total.saturating_add(if *constant { bytes.saturating_mul(rows as u64) } else { bytes }))
    })
}

/// How many bytes texts have together.
fn between<O: OffsetSizeTrait>(offsets: &[O]) -> u64 {
    let ends = offsets.first().zip(offsets.last());
    ends.map_or(0, |(first, last)| (last.as_usize() - first.as_usize()) as u64)
}

impl Row<'_> {
    fn at(&self, argument: usize) -> Option<(&ArrayRef, usize)> {
        let (column, constant) = self.columns.get(argument)?;
        let row = if *constant { 0 } else { self.row };
        column.is_valid(row).then_some((column, row))
    }

    fn size(&self, argument: usize) -> u64 {
        self.at(argument).map_or(8, |(column, row)| size(column, row))
    }

    fn text(&self, argument: usize) -> Option<&str> {
        let (column, row) = self.at(argument)?;
        Some(match column.data_type() {
            DataType::Utf8 => column.as_string::<i32>().value(row),
            DataType::LargeUtf8 => column.as_string::<i64>().value(row),
            DataType::Utf8View => column.as_string_view().value(row),
            _ => return None,
        })
    }

    fn number(&self, argument: usize) -> Result<Option<i64>> {
        let Some((column, row)) = self.at(argument) else { return Ok(None) };
        Ok(match column.data_type() {
            DataType::Int64 => Some(column.as_primitive::<Int64Type>().value(row)),
            DataType::Null => None,
            _ => {
                let number = cast(&column.slice(row, 1), &DataType::Int64)?;
                number.is_valid(0).then(|| number.as_primitive::<Int64Type>().value(0))
            }
        })
    }

    /// A number that is not below nothing.
    fn count(&self, argument: usize) -> Result<u64> {
        Ok(self.number(argument)?.and_then(|count| u64::try_from(count).ok()).unwrap_or_default())
    }

    fn list(&self, argument: usize) -> Option<ArrayRef> {
        self.at(argument).and_then(|(column, row)| elements(column, row))
    }

    fn length(&self, argument: usize) -> u64 {
        self.list(argument).map_or(0, |list| list.len() as u64)
    }

    /// How many elements a list has, those of lists in it each for itself.
    fn leaves(&self, argument: usize) -> u64 {
        self.list(argument).map_or(0, |list| leaves(&list))
    }

    /// How wide a list's elements are where all have one size.
    fn element(&self, argument: usize) -> u64 {
        match self.columns.get(argument).map(|(column, _)| column.data_type()) {
            Some(DataType::List(element) | DataType::LargeList(element)) => {
                element.data_type().primitive_width().map_or_else(|| super::width(element.data_type()), |w| w as u64)
            }
            _ => 0,
        }
    }

    /// How many values there are from the first argument to the second, by the third.
    fn series(&self, with_end: bool) -> Result<u64> {
        let of_time = match self.columns.first().map(|(column, _)| column.data_type()) {
            Some(DataType::Date32 | DataType::Date64) => Some(DataType::Date32),
            Some(DataType::Timestamp(_, zone)) => Some(DataType::Timestamp(TimeUnit::Nanosecond, zone.clone())),
            _ => None,
        };
        let Some(of_time) = of_time else {
            let (start, stop, step) = match self.columns.len() {
                0 | 1 => (Some(0), self.number(0)?, Some(1)),
                2 => (self.number(0)?, self.number(1)?, Some(1)),
                _ => (self.number(0)?, self.number(1)?, self.number(2)?),
            };
            let (Some(start), Some(stop), Some(step)) = (start, stop, step) else { return Ok(0) };
            return Ok(steps(start.into(), stop.into(), step.into()).saturating_add(u64::from(with_end)));
        };
        let time = |argument: usize| -> Result<Option<i128>> {
            let Some((column, row)) = self.at(argument) else { return Ok(None) };
            let number = cast(&cast(&column.slice(row, 1), &of_time)?, &DataType::Int64)?;
            Ok(number.is_valid(0).then(|| i128::from(number.as_primitive::<Int64Type>().value(0))))
        };
        let (Some(start), Some(stop), Some((interval, row))) = (time(0)?, time(1)?, self.at(2)) else { return Ok(0) };
        let interval = cast(&interval.slice(row, 1), &DataType::Interval(IntervalUnit::MonthDayNano))?;
        let step = interval.as_primitive::<IntervalMonthDayNanoType>().value(0);
        let parts = [i128::from(step.months), i128::from(step.days), i128::from(step.nanoseconds)];
        if parts.iter().any(|part| *part > 0) && parts.iter().any(|part| *part < 0) {
            // A month and thirty days back lead nowhere, and so on for ever.
            return Ok(u64::MAX);
        }
        // No month is shorter.
        let days = parts[0] * 28 + parts[1];
        let step = if of_time == DataType::Date32 { days } else { days * 86_400_000_000_000 + parts[2] };
        Ok(steps(start, stop, step).saturating_add(2))
    }
}

/// How many steps lead from one number to another.
fn steps(start: i128, stop: i128, step: i128) -> u64 {
    let way = stop - start;
    // A step of nothing is an error of the function's own.
    if step == 0 || (way > 0) != (step > 0) {
        return 0;
    }
    u64::try_from(way / step).unwrap_or(u64::MAX).saturating_add(1)
}

fn elements(column: &ArrayRef, row: usize) -> Option<ArrayRef> {
    Some(match column.data_type() {
        DataType::List(_) => column.as_list::<i32>().value(row),
        DataType::LargeList(_) => column.as_list::<i64>().value(row),
        DataType::FixedSizeList(..) => column.as_fixed_size_list().value(row),
        DataType::Map(..) => {
            let entries: ArrayRef = std::sync::Arc::new(column.as_map().value(row));
            entries
        }
        _ => return None,
    })
}

fn leaves(list: &ArrayRef) -> u64 {
    match list.data_type().is_list() {
        true => (0..list.len()).filter_map(|row| elements(list, row)).map(|list| leaves(&list).max(1)).sum(),
        false => list.len() as u64,
    }
}

/// How many bytes a value has. Small ones count as much as a number: casts make such of them.
fn size(column: &ArrayRef, row: usize) -> u64 {
    if column.is_null(row) {
        return 8;
    }
    match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(row).len() as u64,
        DataType::LargeUtf8 => column.as_string::<i64>().value(row).len() as u64,
        DataType::Utf8View => column.as_string_view().value(row).len() as u64,
        DataType::Binary => column.as_binary::<i32>().value(row).len() as u64,
        DataType::LargeBinary => column.as_binary::<i64>().value(row).len() as u64,
        DataType::BinaryView => column.as_binary_view().value(row).len() as u64,
        DataType::Struct(_) => {
            column.as_struct().columns().iter().map(|member| size(member, row)).fold(8, u64::saturating_add)
        }
        _ => match elements(column, row) {
            Some(elements) => sizes(&elements).saturating_add(8),
            None => fixed(column.data_type()),
        },
    }
}

fn sizes(values: &ArrayRef) -> u64 {
    let count = values.len() as u64;
    if values.data_type().is_primitive() {
        return count.saturating_mul(fixed(values.data_type()));
    }
    (0..values.len()).map(|row| size(values, row)).fold(count.saturating_mul(8), u64::saturating_add)
}

fn fixed(data_type: &DataType) -> u64 {
    data_type.primitive_width().map_or_else(|| super::width(data_type), |width| width as u64).max(8)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{
        BinaryArray, Decimal128Array, Int16Array, LargeStringArray, StringArray, StringViewArray,
    };

    use super::*;

    #[test]
    fn what_all_rows_come_to_is_never_more_than_was_said() {
        let text: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some(""), Some("ü€"), Some("last")]));
        let columns: Vec<ArrayRef> = vec![
            text.slice(1, 3),
            text.slice(0, 0),
            Arc::new(LargeStringArray::from(vec![None, Some("long enough to count")])),
            Arc::new(BinaryArray::from(vec![Some(&b"\xff\x00"[..]), None])),
            Arc::new(Int16Array::from(vec![Some(7), None, Some(-1)])),
            Arc::new(Decimal128Array::from(vec![Some(7), None])),
            text,
        ];
        for column in columns {
            let rows = column.len();
            let columns = [(column, false)];
            let all: u64 = (0..rows).map(|row| Growth::Sum.bytes(&Row { columns: &columns, row }).unwrap()).sum();
            let most = at_most(&columns, rows).unwrap();
            assert!(all <= most, "{columns:?}: {all} of {most}");
        }
        let one: ArrayRef = Arc::new(StringArray::from(vec!["four"]));
        assert_eq!(at_most(&[(one.clone(), true), (one, false)], 3), Some(3 * 12 + 12));
        // Many of these may be the same bytes.
        let views: ArrayRef = Arc::new(StringViewArray::from(vec!["a"]));
        assert_eq!(at_most(&[(views, false)], 1), None);
    }
}

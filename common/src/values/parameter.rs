//! Values as text that somebody asks for: what an answer writes, read back. Nothing is rounded.

use datafusion::{
    arrow::datatypes::{DataType, TimeUnit},
    common::ScalarValue,
};

use super::{
    number::{self, Why},
    sql_type_name, time,
};

/// The value of type `data_type` that an answer writes as `text`, without quotes around it; or why there is none.
pub fn parse(text: &str, data_type: &DataType) -> Result<ScalarValue, String> {
    value(text, data_type).map_err(|why| format!("`{text}` {why}, and is to be {}", sql_type_name(data_type)))
}

fn value(text: &str, data_type: &DataType) -> Result<ScalarValue, Why> {
    Ok(match data_type {
        DataType::Boolean => match text {
            "true" => ScalarValue::Boolean(Some(true)),
            "false" => ScalarValue::Boolean(Some(false)),
            _ => return Err("is neither true nor false"),
        },
        DataType::Int16 => ScalarValue::Int16(Some(number::integer(text)?)),
        DataType::Int32 => ScalarValue::Int32(Some(number::integer(text)?)),
        DataType::Int64 => ScalarValue::Int64(Some(number::integer(text)?)),
        DataType::Float32 => ScalarValue::Float32(Some(match special(text) {
            Some(number) => number,
            None => number::float(text)?,
        })),
        DataType::Float64 => ScalarValue::Float64(Some(match special(text) {
            Some(number) => number.into(),
            None => number::float(text)?,
        })),
        DataType::Decimal128(precision, scale) => {
            let digits = number::decimal(without_zeros(text), *precision, *scale)?;
            ScalarValue::Decimal128(Some(digits), *precision, *scale)
        }
        DataType::Utf8 => ScalarValue::Utf8(Some(text.to_owned())),
        DataType::Binary => {
            let bytes = hex::decode(text).map_err(|_| "is not hex digits, two for each byte")?;
            ScalarValue::Binary(Some(bytes))
        }
        DataType::Date32 => ScalarValue::Date32(Some(time::date(text)?)),
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            ScalarValue::TimestampMicrosecond(Some(time::exact_timestamp(text)?), zone.clone())
        }
        _ => return Err("cannot be asked for by its whole value"),
    })
}

/// The three numbers that have no digits.
fn special(text: &str) -> Option<f32> {
    match text {
        "NaN" => Some(f32::NAN),
        "Infinity" => Some(f32::INFINITY),
        "-Infinity" => Some(f32::NEG_INFINITY),
        _ => None,
    }
}

/// A decimal without the zeros at its end that say nothing.
fn without_zeros(text: &str) -> &str {
    match text.contains('.') && !text.contains(['e', 'E']) {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::datatypes::Field;

    use super::*;

    #[test]
    fn what_an_answer_writes_is_read_back_and_nothing_is_rounded() {
        let check = |data_type: DataType, text: &str, expected: Result<ScalarValue, &str>| match (
            parse(text, &data_type),
            expected,
        ) {
            (Ok(value), Ok(expected)) => assert_eq!(value, expected, "{text}"),
            (Err(reason), Err(part)) => assert!(reason.contains(part), "{reason}"),
            (value, expected) => panic!("{text}: {value:?} instead of {expected:?}"),
        };
        let decimal = |digits| Ok(ScalarValue::Decimal128(Some(digits), 12, 2));
        for (text, expected) in [
            ("117.89", decimal(11_789)),
            ("117.890", decimal(11_789)),
            ("-117", decimal(-11_700)),
            ("100", decimal(10_000)),
            ("100.", decimal(10_000)),
            ("117.894", Err("`117.894` has more fractional digits than that, and is to be DECIMAL(12,2)")),
            ("12345678901", Err("is out of its range")),
            ("1e400", Err("is out of its range")),
            (".", Err("is not a number")),
        ] {
            check(DataType::Decimal128(12, 2), text, expected);
        }
        let time = |us| Ok(ScalarValue::TimestampMicrosecond(Some(us), None));
        for (text, expected) in [
            ("1970-01-01T00:00:47.500000", time(47_500_000)),
            ("1970-01-01 00:00:47.5000000", time(47_500_000)),
            ("1970-01-01T02:00:47.5+02:00", time(47_500_000)),
            ("1970-01-01T00:00:47.5000009", Err("is not a whole number of microseconds")),
            ("1970-01-01", Err("is not a time")),
        ] {
            check(DataType::Timestamp(TimeUnit::Microsecond, None), text, expected);
        }
        let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        check(
            zoned,
            "1970-01-01T00:00:01Z",
            Ok(ScalarValue::TimestampMicrosecond(Some(1_000_000), Some("UTC".into()))),
        );
        check(DataType::Binary, "fb74", Ok(ScalarValue::Binary(Some(vec![0xfb, 0x74]))));
        check(DataType::Binary, "", Ok(ScalarValue::Binary(Some(Vec::new()))));
        check(DataType::Binary, "fb7", Err("is not hex digits"));
        check(DataType::Int32, "-7", Ok(ScalarValue::Int32(Some(-7))));
        check(DataType::Int32, "1.5", Err("`1.5` has a fraction, and is to be INT"));
        check(DataType::Int16, "32768", Err("is out of its range"));
        check(DataType::Int32, "null", Err("is not a number"));
        check(DataType::Float64, "-0.0", Ok(ScalarValue::Float64(Some(-0.0))));
        check(DataType::Float64, "-Infinity", Ok(ScalarValue::Float64(Some(f64::NEG_INFINITY))));
        check(DataType::Float32, "1e39", Err("is out of its range"));
        check(DataType::Boolean, "TRUE", Err("is neither true nor false"));
        check(DataType::Utf8, "", Ok(ScalarValue::Utf8(Some(String::new()))));
        check(DataType::Date32, "1970-01-02", Ok(ScalarValue::Date32(Some(1))));
        let list = DataType::List(Arc::new(Field::new("element", DataType::Utf8, true)));
        check(list, "[]", Err("cannot be asked for by its whole value"));
    }
}

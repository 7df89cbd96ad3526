//! What answers look like, also in types that no event has.

use std::sync::Arc;

use datafusion::arrow::{array::*, buffer::OffsetBuffer, datatypes::*, error::ArrowError};

use super::*;

fn written(array: ArrayRef) -> Result<String, ArrowError> {
    let mut out = Vec::new();
    for row in 0..array.len() {
        if row > 0 {
            out.push(b' ');
        }
        write_value(&array, row, &mut out)?;
    }
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn types_that_answers_have() {
    let check = |array: ArrayRef, expected: &str, sql: &str| {
        assert_eq!(crate::values::sql_type_name(array.data_type()), sql);
        assert_eq!(written(array.clone()).unwrap(), expected, "{}", array.data_type());
    };
    check(Arc::new(NullArray::new(1)), "null", "NULL");
    check(Arc::new(Int8Array::from(vec![i8::MIN])), "-128", "TINYINT");
    check(Arc::new(UInt8Array::from(vec![255])), "255", "TINYINT UNSIGNED");
    check(
        Arc::new(UInt64Array::from(vec![Some(u64::MAX), None, Some(0)])),
        "18446744073709551615 null 0",
        "BIGINT UNSIGNED",
    );
    check(Arc::new(Float64Array::from(vec![0.1, 1e300, f64::NAN, -0.0])), "0.1 1e+300 \"NaN\" -0.0", "DOUBLE");
    check(Arc::new(Float32Array::from(vec![0.1, f32::NEG_INFINITY])), "0.1 \"-Infinity\"", "REAL");
    check(Arc::new(StringViewArray::from(vec![Some("a\"b"), None])), "\"a\\\"b\" null", "TEXT");
    check(Arc::new(LargeStringArray::from(vec!["é\u{1}"])), "\"é\\u0001\"", "TEXT");
    check(Arc::new(BinaryViewArray::from_iter_values([b"\x00\xff"])), "\"00ff\"", "BYTEA");
    check(Arc::new(FixedSizeBinaryArray::try_from_iter([[1_u8, 2]].iter()).unwrap()), "\"0102\"", "BYTEA");
    check(Arc::new(Date32Array::from(vec![0, -719_162])), "\"1970-01-01\" \"0001-01-01\"", "DATE");
    check(Arc::new(Date64Array::from(vec![86_400_000])), "\"1970-01-02\"", "DATE");
    check(
        Arc::new(TimestampNanosecondArray::from(vec![1_000_000_000, 1_500_000_000, 1])),
        "\"1970-01-01T00:00:01\" \"1970-01-01T00:00:01.500000\" \"1970-01-01T00:00:00.000000001\"",
        "TIMESTAMP",
    );
    check(
        Arc::new(TimestampMillisecondArray::from(vec![-1]).with_timezone("Europe/Berlin")),
        "\"1969-12-31T23:59:59.999000Z\"",
        "TIMESTAMPTZ",
    );
    check(Arc::new(TimestampSecondArray::from(vec![253_402_300_800])), "\"+10000-01-01T00:00:00\"", "TIMESTAMP");
    check(Arc::new(Time64MicrosecondArray::from(vec![61_000_001])), "\"00:01:01.000001\"", "TIME");
    check(
        Arc::new(IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNano::new(1, 2, 3_000_000_000)])),
        "\"1 mons 2 days 3.000000000 secs\"",
        "INTERVAL",
    );
    let decimals = Decimal128Array::from(vec![Some(-5), None, Some(12345)]);
    check(Arc::new(decimals.with_precision_and_scale(10, 3).unwrap()), "-0.005 null 12.345", "DECIMAL(10,3)");
    let negative_scale = Decimal128Array::from(vec![12]).with_precision_and_scale(5, -2).unwrap();
    check(Arc::new(negative_scale), "1200", "DECIMAL(5,-2)");
    let wide = Decimal256Array::from(vec![i256::from_i128(i128::MIN)]).with_precision_and_scale(50, 2).unwrap();
    check(Arc::new(wide), "-1701411834604692317316873037158841057.28", "DECIMAL(50,2)");
    let dictionary: DictionaryArray<Int8Type> = vec![Some("b"), None, Some("b")].into_iter().collect();
    check(Arc::new(dictionary), "\"b\" null \"b\"", "TEXT");
    let lists = LargeListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])]);
    check(Arc::new(lists), "[1,null] null []", "INT[]");
}

#[test]
fn parts_of_slices_are_their_own() {
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1)]), Some(vec![Some(2), Some(3)])]);
    assert_eq!(written(Arc::new(lists.slice(1, 1))).unwrap(), "[2,3]");
    let structs = StructArray::from(vec![(
        Arc::new(Field::new("a", DataType::Int32, true)),
        Arc::new(Int32Array::from(vec![1, 2])) as ArrayRef,
    )]);
    assert_eq!(written(Arc::new(structs.slice(1, 1))).unwrap(), "{\"a\":2}");
}

#[test]
fn maps_are_entries() {
    let mut builder = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
    builder.keys().append_value("k");
    builder.values().append_value(1);
    builder.append(true).unwrap();
    assert_eq!(written(Arc::new(builder.finish())).unwrap(), "[{\"keys\":\"k\",\"values\":1}]");
}

#[test]
fn what_is_beyond_the_calendar_is_an_error() {
    let error = written(Arc::new(Date32Array::from(vec![i32::MAX]))).unwrap_err();
    assert_eq!(error.to_string(), "Cast error: could not write the time `2147483647`: it is beyond the calendar");
    assert!(written(Arc::new(TimestampSecondArray::from(vec![i64::MIN]))).is_err());
}

fn batch() -> RecordBatch {
    let lists = ListArray::new(
        Arc::new(Field::new("element", DataType::Utf8, true)),
        OffsetBuffer::from_lengths([1, 0]),
        Arc::new(StringArray::from(vec!["x,\"y\""])),
        None,
    );
    RecordBatch::try_from_iter_with_nullable([
        ("a \"b\"", Arc::new(StringArray::from(vec![Some("x, y"), Some("")])) as ArrayRef, true),
        ("n", Arc::new(Float64Array::from(vec![None, Some(f64::NAN)])) as ArrayRef, true),
        ("l", Arc::new(lists) as ArrayRef, true),
    ])
    .unwrap()
}

#[test]
fn rows_as_json() {
    let check = |batch: &RecordBatch, separator: &[u8], expected: &str| {
        let mut out = b"[".to_vec();
        write_rows(batch, &mut out, separator).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    };
    let (first, second) = (r#"{"a \"b\"":"x, y","n":null,"l":["x,\"y\""]}"#, r#"{"a \"b\"":"","n":"NaN","l":[]}"#);
    check(&batch(), b",", &format!("[{first},{second}"));
    check(&batch(), b"\n", &format!("[{first}\n{second}"));
    check(&batch().slice(1, 1), b",", &format!("[{second}"));
    check(&batch().slice(0, 0), b",", "[");
    let options = RecordBatchOptions::new().with_row_count(Some(2));
    let nothing = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).unwrap();
    check(&nothing, b",", "[{},{}");
}

#[test]
fn numbers_as_text_survive_doubles() {
    let check = |array: ArrayRef, expected: &str| {
        let (batch, mut out) = (RecordBatch::try_from_iter([("n", array)]).unwrap(), Vec::new());
        write_rows_with(&batch, &mut out, b" ", Numbers::Text).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.replace("{\"n\":", "").replace('}', ""), expected);
    };
    let (most, over) = (999_999_999_999_999, 1_000_000_000_000_000);
    check(
        Arc::new(Int64Array::from(vec![most, -most, over, -over, 9_007_199_254_740_993, i64::MIN])),
        "999999999999999 -999999999999999 \"1000000000000000\" \"-1000000000000000\" \"9007199254740993\" \
         \"-9223372036854775808\"",
    );
    check(Arc::new(UInt64Array::from(vec![7, u64::MAX])), "7 \"18446744073709551615\"");
    check(Arc::new(Float64Array::from(vec![0.1 + 0.2, f64::NAN])), "0.30000000000000004 \"NaN\"");
    let decimals = Decimal128Array::from(vec![Some(2_382_040), None]).with_precision_and_scale(38, 2).unwrap();
    check(Arc::new(decimals), "\"23820.40\" null");
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), Some(i64::MAX)])]);
    check(Arc::new(lists), "[1,\"9223372036854775807\"]");
}

#[test]
fn rows_as_csv() {
    let mut out = Vec::new();
    write_csv(&batch(), true, &mut out).unwrap();
    let expected = "\"a \"\"b\"\"\",n,l\r\n\"x, y\",,\"[\"\"x,\\\"\"y\\\"\"\"\"]\"\r\n\"\",NaN,[]\r\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
    let mut out = Vec::new();
    write_csv(&batch().slice(0, 0), false, &mut out).unwrap();
    assert!(out.is_empty());
}

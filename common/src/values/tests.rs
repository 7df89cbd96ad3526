//! Every type in and out, and every way to be dead.

use datafusion::arrow::array::AsArray;

use super::*;
use crate::catalog::Catalog;

mod master;

fn decoder(sql: &str) -> Decoder {
    let catalog = Catalog::parse(&[("test.sql".to_owned(), sql.to_owned())]);
    let catalog = catalog.unwrap_or_else(|faults| panic!("{faults}\n{sql}"));
    Decoder::new(catalog.datasets.into_values().next().unwrap())
}

fn chunk(messages: &[&[u8]]) -> Chunk {
    let mut chunk = Chunk::new(3, 100);
    for (i, message) in messages.iter().enumerate() {
        chunk.push(100 + 10 * i as Offset, 1_700_000_000_000 + i as i64, Some(message));
    }
    chunk
}

fn json(batch: &RecordBatch) -> String {
    let mut out = Vec::new();
    output::write_rows(batch, &mut out, b"\n").unwrap();
    String::from_utf8(out).unwrap()
}

/// The row that a message becomes, as JSON, or why it is dead.
fn decode(decoder: &mut Decoder, message: &[u8]) -> Result<String, String> {
    let mut decoded = decoder.decode(&chunk(&[message]));
    assert_eq!(decoded.rows.num_rows() + decoded.dead.len(), 1);
    match decoded.dead.pop() {
        Some(letter) => {
            assert_eq!((letter.partition, letter.offset, letter.raw.as_deref()), (3, 100, Some(message)));
            Err(letter.reason)
        }
        None => {
            let events = decoded.rows.num_columns() - 3;
            Ok(json(&decoded.rows.project(&(0..events).collect::<Vec<_>>()).unwrap()))
        }
    }
}

/// One column's type, and what values become: the same text in the output, another one, or dead for a reason that
/// follows the field, the type and the value.
struct Type {
    sql: &'static str,
    same: &'static [&'static str],
    other: &'static [(&'static str, &'static str)],
    dead: &'static [(&'static str, &'static str)],
}

const NUMBER: &str = "is not a number";
const RANGE: &str = "is out of its range";
const FRACTION: &str = "has a fraction";
const EXPONENT: &str = "has an exponent";
const DIGITS: &str = "has more fractional digits than that";
const TIME: &str = "is not a time such as \"2026-01-03T17:05:00Z\"";
const DAY: &str = "is not a date such as \"2026-01-03\"";
const STRING: &str = "is not a string";
const EPOCH: &str = "is a number, not a time such as \"2026-01-03T17:05:00Z\": declare the column BIGINT, and make a time of it in the view";

const TYPES: &[Type] = &[
    Type {
        sql: "BOOLEAN",
        same: &["true", "false", "null"],
        other: &[],
        dead: &[
            ("1", "is neither true nor false"),
            ("\"true\"", "is neither true nor false"),
            ("[]", "is neither true nor false"),
        ],
    },
    Type {
        sql: "SMALLINT",
        same: &["-32768", "32767", "0", "null"],
        other: &[("\"12\"", "12")],
        dead: &[("32768", RANGE), ("-32769", RANGE), ("\"99999999999999999999999\"", RANGE), ("1.5", FRACTION)],
    },
    Type {
        sql: "INT",
        same: &["-2147483648", "2147483647"],
        other: &[("-0", "0"), ("\"-7\"", "-7"), ("\"+7\"", "7"), ("\"007\"", "7"), ("\"\\u0037\"", "7")],
        dead: &[
            ("2147483648", RANGE),
            ("1.0", FRACTION),
            ("1e3", EXPONENT),
            ("1E400", EXPONENT),
            ("1.5e1", FRACTION),
            ("\"1.0\"", FRACTION),
            ("\"1e3\"", EXPONENT),
            ("\"\"", NUMBER),
            ("\" 7\"", NUMBER),
            ("\"-\"", NUMBER),
            ("\"0x10\"", NUMBER),
            ("\"1_000\"", NUMBER),
            ("\"NaN\"", NUMBER),
            ("true", NUMBER),
            ("[1]", NUMBER),
            ("{}", NUMBER),
        ],
    },
    Type {
        sql: "BIGINT",
        same: &["-9223372036854775808", "9223372036854775807", "9007199254740993"],
        other: &[("\"9223372036854775807\"", "9223372036854775807")],
        dead: &[("9223372036854775808", RANGE), ("-9223372036854775809", RANGE), ("9007199254740993.0", FRACTION)],
    },
    Type {
        sql: "REAL",
        same: &["0.1", "-1.5", "3.4028235e+38", "\"NaN\"", "\"Infinity\"", "\"-Infinity\"", "1e-45"],
        other: &[("1", "1.0"), ("\"2.50\"", "2.5"), ("16777217", "16777216.0"), ("1e-60", "0.0"), ("-0.0", "0.0")],
        dead: &[
            ("3.5e38", RANGE),
            ("1e39", RANGE),
            ("\"inf\"", NUMBER),
            ("\"nan\"", NUMBER),
            ("\"+Infinity\"", NUMBER),
        ],
    },
    Type {
        sql: "DOUBLE",
        same: &["0.1", "5e-324", "1.7976931348623157e+308", "\"NaN\"", "\"Infinity\"", "\"-Infinity\"", "123456789.25"],
        other: &[("1", "1.0"), ("\"1e3\"", "1000.0"), ("0.30000000000000004", "0.30000000000000004")],
        dead: &[("1e309", RANGE), ("\"1e309\"", RANGE), ("\"x\"", NUMBER), ("\"\"", NUMBER), ("false", NUMBER)],
    },
    Type {
        sql: "DECIMAL(5,2)",
        same: &["0.00", "999.99", "-999.99", "0.01", "-0.05", "null"],
        other: &[
            ("7", "7.00"),
            ("7.5", "7.50"),
            ("\"7.50\"", "7.50"),
            ("\".5\"", "0.50"),
            ("\"5.\"", "5.00"),
            ("-0", "0.00"),
            ("1e2", "100.00"),
            ("1.5E+1", "15.00"),
            ("125e-2", "1.25"),
            ("1.2345e2", "123.45"),
            ("0e99999999999999999999", "0.00"),
            ("\"0000000000000000000000000000000000000000000000001.5\"", "1.50"),
        ],
        dead: &[
            ("1.234", DIGITS),
            ("1.230", DIGITS),
            ("0.000", DIGITS),
            ("1e-3", DIGITS),
            ("1e-99999999999999999999", DIGITS),
            ("1000", RANGE),
            ("1e3", RANGE),
            ("1e99999999999999999999", RANGE),
            ("-1000.00", RANGE),
            ("\"1e\"", NUMBER),
            ("\"1.2.3\"", NUMBER),
            ("\".\"", NUMBER),
            ("\"NaN\"", NUMBER),
            ("\"1,5\"", NUMBER),
            ("true", NUMBER),
        ],
    },
    Type {
        sql: "DECIMAL(38,0)",
        same: &[
            "99999999999999999999999999999999999999",
            "-99999999999999999999999999999999999999",
            "18446744073709551616",
        ],
        other: &[("1e37", "10000000000000000000000000000000000000")],
        dead: &[
            ("100000000000000000000000000000000000000", RANGE),
            ("1e38", RANGE),
            ("999999999999999999999999999999999999999999999999999999999999", RANGE),
        ],
    },
    Type {
        sql: "DECIMAL(38,38)",
        same: &["0.12345678901234567890123456789012345678", "-0.00000000000000000000000000000000000001"],
        other: &[("0", "0.00000000000000000000000000000000000000")],
        dead: &[("1", RANGE)],
    },
    Type {
        sql: "TEXT",
        same: &["\"\"", "\"größe\"", "\"a \\\"quoted\\\" line\\n\"", "\"null\"", "\"\\u0000\"", "\"🦀\"", "null"],
        other: &[("\"\\ud83e\\udd80\"", "\"🦀\""), ("\"\\u00e9\\/\"", "\"é/\"")],
        dead: &[
            ("1", STRING),
            ("true", STRING),
            ("[\"a\"]", STRING),
            ("\"\\ud83e\"", "has an escape that is no character"),
        ],
    },
    Type {
        sql: "BYTEA",
        same: &["\"\"", "\"00ff10\""],
        other: &[("\"00FF\"", "\"00ff\"")],
        dead: &[
            ("\"0\"", "is not hex digits, two for each byte"),
            ("\"0g\"", "is not hex digits, two for each byte"),
            ("\"\\\\x00\"", "is not hex digits, two for each byte"),
            ("255", STRING),
        ],
    },
    Type {
        sql: "DATE",
        same: &[
            "\"2026-01-03\"",
            "\"1970-01-01\"",
            "\"1969-12-31\"",
            "\"2024-02-29\"",
            "\"0001-01-01\"",
            "\"9999-12-31\"",
        ],
        other: &[],
        dead: &[
            ("\"2026-02-29\"", DAY),
            ("\"2026-13-01\"", DAY),
            ("\"2026-1-3\"", DAY),
            ("\"0000-01-01\"", DAY),
            ("\"2026-01-03T00:00:00Z\"", DAY),
            ("\"20260103\"", DAY),
            ("\"\"", DAY),
            ("\"2026-01-0é\"", DAY),
            ("20456", STRING),
        ],
    },
    Type {
        sql: "TIMESTAMP",
        same: &[
            "\"2026-01-03T00:00:00\"",
            "\"2026-01-03T17:05:00.000001\"",
            "\"1969-12-31T23:59:59.999999\"",
            "\"0001-01-01T00:00:00\"",
            "\"9999-12-31T23:59:59.999999\"",
        ],
        other: &[
            ("\"2026-01-03T00:00:00Z\"", "\"2026-01-03T00:00:00\""),
            ("\"2026-01-03t00:00:00z\"", "\"2026-01-03T00:00:00\""),
            ("\"2026-01-03 00:00:00\"", "\"2026-01-03T00:00:00\""),
            ("\"2026-01-03 00:00:00+00:00\"", "\"2026-01-03T00:00:00\""),
            ("\"2026-01-03T01:30:00+02:00\"", "\"2026-01-02T23:30:00\""),
            ("\"2026-01-03T01:30:00-05:30\"", "\"2026-01-03T07:00:00\""),
            ("\"2026-01-03T00:00:00.5Z\"", "\"2026-01-03T00:00:00.500000\""),
            ("\"2026-01-03T00:00:00.0000004\"", "\"2026-01-03T00:00:00\""),
            ("\"2026-01-03T00:00:00.0000005\"", "\"2026-01-03T00:00:00.000001\""),
            ("\"2026-12-31T23:59:59.9999999\"", "\"2027-01-01T00:00:00\""),
            ("\"2026-01-03T00:00:00.12345649999999999999999\"", "\"2026-01-03T00:00:00.123456\""),
            ("\"2016-12-31T23:59:60Z\"", "\"2017-01-01T00:00:00\""),
        ],
        dead: &[
            ("1767398400", EPOCH),
            ("\"1767398400\"", TIME),
            ("\"2026-01-03\"", TIME),
            ("\"2026-01-03T00:00\"", TIME),
            ("\"2026-01-03T24:00:00\"", TIME),
            ("\"2026-01-03T00:60:00\"", TIME),
            ("\"2026-01-03T00:00:61\"", TIME),
            ("\"2026-01-03T00:00:00.\"", TIME),
            ("\"2026-01-03T00:00:00.1.2\"", TIME),
            ("\"2026-01-03T00:00:00+02\"", TIME),
            ("\"2026-01-03T00:00:00+24:00\"", TIME),
            ("\"2026-01-03T00:00:00 UTC\"", TIME),
            ("\"2026-02-30T00:00:00Z\"", TIME),
            ("\"2026-01-03X00:00:00Z\"", TIME),
            ("\"9999-12-31T23:59:59.9999999\"", "is not between the years 1 and 9999"),
            ("\"0001-01-01T00:00:00+01:00\"", "is not between the years 1 and 9999"),
        ],
    },
    Type {
        sql: "TIMESTAMPTZ",
        same: &["\"2026-01-03T00:00:00Z\"", "\"2026-01-03T00:00:00.000001Z\"", "null"],
        other: &[
            ("\"2026-01-03T01:30:00+02:00\"", "\"2026-01-02T23:30:00Z\""),
            ("\"2026-01-03 00:00:00\"", "\"2026-01-03T00:00:00Z\""),
        ],
        dead: &[("0", EPOCH), ("\"\"", TIME)],
    },
    Type {
        sql: "INT[]",
        same: &["[]", "[1,null,3]", "null"],
        other: &[("[ \"1\" , 2 ]", "[1,2]")],
        dead: &[("1", "is not an array"), ("{}", "is not an array"), ("\"[1]\"", "is not an array")],
    },
    Type {
        sql: "STRUCT<a INT, \"B\" TEXT[]>",
        same: &["{\"a\":1,\"B\":[\"x\",null]}", "{\"a\":null,\"B\":null}", "null"],
        other: &[("{}", "{\"a\":null,\"B\":null}"), ("{\"b\":1,\"B\":[]}", "{\"a\":null,\"B\":[]}")],
        dead: &[("[]", "is not an object"), ("1", "is not an object")],
    },
];

#[test]
fn every_type_in_and_out() {
    for Type { sql, same, other, dead } in TYPES {
        let mut decoder = decoder(&format!("CREATE TABLE t (c {sql})"));
        let name = sql_type_name(decoder.dataset.columns.field(0).data_type());
        let mut check = |value: &str, expected: Result<String, String>| {
            let message = format!("{{\"c\": {value}}}");
            assert_eq!(decode(&mut decoder, message.as_bytes()), expected, "{sql}: {value}");
        };
        for value in *same {
            check(value, Ok(format!("{{\"c\":{value}}}")));
        }
        for (value, expected) in *other {
            check(value, Ok(format!("{{\"c\":{expected}}}")));
        }
        for (value, why) in *dead {
            let shown = column::shortened(value);
            check(value, Err(format!("field `c` must be {name}: `{shown}` {why}")));
        }
    }
}

#[test]
fn a_message_is_one_object() {
    let mut decoder = decoder("CREATE TABLE t (a INT NOT NULL, b TEXT, \"C\" INT)");
    let mut check = |message: &str, expected: Result<&str, &str>| {
        let expected = expected.map(str::to_owned).map_err(str::to_owned);
        assert_eq!(decode(&mut decoder, message.as_bytes()), expected, "{message}");
    };
    check(r#"{"a":1,"b":"x","C":2}"#, Ok(r#"{"a":1,"b":"x","C":2}"#));
    check("\t{ \"C\" : 2 ,\r\n \"a\":1 } \n", Ok(r#"{"a":1,"b":null,"C":2}"#));
    check(r#"{"x":{"a":[1,2,{"a":3}]},"a":1,"y":1e999}"#, Ok(r#"{"a":1,"b":null,"C":null}"#));
    check(r#"{"\u0061":1,"A":2,"c":3}"#, Ok(r#"{"a":1,"b":null,"C":null}"#));
    check(r#"{"b":"x"}"#, Err("field `a` is missing, and is NOT NULL"));
    check(r#"{"a":null}"#, Err("field `a` is null, and is NOT NULL"));
    check(r#"{"a":1,"a":1}"#, Err("field `a` is there twice"));
    check(r#"{"a":1,"b":null,"b":"x"}"#, Err("field `b` is there twice"));
    check(r#"{"a":1,"x":1,"x":2}"#, Ok(r#"{"a":1,"b":null,"C":null}"#));
    check("", Err("the message is empty, not a JSON object"));
    check(" \n", Err("the message is empty, not a JSON object"));
    check("null", Err("the message `null` is not a JSON object"));
    check("[{\"a\":1}]", Err("the message `[{\"a\":1}]` is not a JSON object"));
    check("7", Err("the message `7` is not a JSON object"));
    check(r#"{"a":1"#, Err("the message is not JSON: EOF while parsing an object at line 1 column 6"));
    check(r#"{"a":1,}"#, Err("the message is not JSON: trailing comma at line 1 column 8"));
    check(r#"{"a":01}"#, Err("the message is not JSON: invalid number at line 1 column 7"));
    check(r#"{"a":NaN}"#, Err("the message is not JSON: expected value at line 1 column 6"));
    check(r#"{"a":1,"x":[}"#, Err("the message is not JSON: expected value at line 1 column 13"));
    check(
        r#"{"a":1} {"a":2}"#,
        Err("the message goes on after its JSON object: trailing characters at line 1 column 9"),
    );
    check(r#"{"a":1}}"#, Err("the message goes on after its JSON object: trailing characters at line 1 column 8"));
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(100));
    let shown = format!("field `a` must be INT: `\"{}…` is not a number", "x".repeat(59));
    check(&long, Err(&shown));
}

#[test]
fn a_message_is_utf8() {
    let mut decoder = decoder("CREATE TABLE t (a TEXT)");
    let mut check = |message: &[u8], expected: &str| {
        assert_eq!(decode(&mut decoder, message), Err(expected.to_owned()));
    };
    check(b"{\"a\":\"\xff\"}", "byte 6 of the message, `0xff`, is not UTF-8");
    check(b"{\"x\":\"\xc3\"}", "byte 6 of the message, `0xc3`, is not UTF-8");
    check(b"{\"a\":1}\xe2\x82", "byte 7 of the message, `0xe2`, is not UTF-8");
    check("\u{feff}{\"a\":\"x\"}".as_bytes(), "the message `\\u{feff}{\"a\":\"x\"}` is not a JSON object");
    check(b"\0{}", "the message `\\u{0}{}` is not a JSON object");
    let framed = "the message begins with five bytes of Confluent's wire format (schema 258): write plain JSON, with a \
                  serializer that asks no schema registry";
    check(b"\0\0\0\x01\x02{\"a\":\"x\"}", framed);
    check(b"\0\0\0\x01\x02\xff\x02", framed);
}

#[test]
fn a_tombstone_is_dead() {
    let mut chunk = Chunk::new(0, 7);
    chunk.push(7, 5, None);
    let decoded = decoder("CREATE TABLE t (a TEXT)").decode(&chunk);
    let reason = "the record is a tombstone: it has no value".to_owned();
    assert_eq!(decoded.dead, [DeadLetter { partition: 0, offset: 7, timestamp_ms: 5, reason, raw: None }]);
}

#[test]
fn what_is_wrong_inside_has_a_path() {
    let mut decoder = decoder("CREATE TABLE t (c STRUCT<tags TEXT[], at STRUCT<x INT, y DOUBLE[]>[]>)");
    let mut check = |value: &str, expected: &str| {
        let message = format!("{{\"c\": {value}}}");
        assert_eq!(decode(&mut decoder, message.as_bytes()), Err(expected.to_owned()), "{value}");
    };
    check(r#"{"tags":["a",1]}"#, "field `c.tags[1]` must be TEXT: `1` is not a string");
    check(r#"{"at":[{},{"y":[1,2,"z"]}]}"#, "field `c.at[1].y[2]` must be DOUBLE: `\"z\"` is not a number");
    check(r#"{"at":[{"x":1,"x":1}]}"#, "field `c.at[0].x` is there twice");
    check(r#"{"at":[1]}"#, "field `c.at[0]` must be STRUCT<x INT, y DOUBLE[]>: `1` is not an object");
}

#[test]
fn a_dead_event_costs_no_other() {
    let sql = "CREATE TABLE t (a INT, b TEXT, c INT[], d STRUCT<x BOOLEAN, y DECIMAL(9,3)>, e INT NOT NULL)";
    let good = |i: usize| {
        let elements: Vec<String> = (0..i % 4).map(|element| element.to_string()).collect();
        let list = if i.is_multiple_of(7) { "null".to_owned() } else { format!("[{}]", elements.join(",")) };
        format!(
            "{{\"a\":{i},\"b\":\"{}\",\"c\":{list},\"d\":{{\"x\":{},\"y\":{i}.500}},\"e\":{i}}}",
            "b".repeat(i % 5),
            i.is_multiple_of(2)
        )
    };
    let bad = [
        r#"{"a":1,"b":"x","c":[1,2],"d":{"x":true,"y":1},"e":null}"#,
        r#"{"a":1,"b":"x","c":[1,2],"d":{"x":true,"y":1.2345},"e":1}"#,
        r#"{"a":1,"b":"x","c":[1,2,"three"]}"#,
        r#"{"a":1,"b":2}"#,
        "half",
    ];
    let messages: Vec<String> =
        (0..200).map(|i| if i % 3 == 1 { bad[i / 3 % bad.len()].to_owned() } else { good(i) }).collect();
    let bytes: Vec<&[u8]> = messages.iter().map(String::as_bytes).collect();
    let mut decoder = decoder(sql);
    for _ in 0..2 {
        let decoded = decoder.decode(&chunk(&bytes));
        let live: Vec<usize> = (0..200).filter(|i| i % 3 != 1).collect();
        let expected: Vec<String> = live.iter().map(|&i| good(i)).collect();
        assert_eq!(json(&decoded.rows.project(&[0, 1, 2, 3, 4]).unwrap()), expected.join("\n"));
        let offsets: Vec<Offset> = decoded.dead.iter().map(|letter| letter.offset).collect();
        assert_eq!(offsets, (0..200).filter(|i| i % 3 == 1).map(|i| 100 + 10 * i).collect::<Vec<Offset>>());
        let of_rows: Vec<Offset> = live.iter().map(|&i| 100 + 10 * i as Offset).collect();
        assert_eq!(
            decoded.rows.column(6).as_primitive::<datafusion::arrow::datatypes::Int64Type>().values(),
            of_rows.as_slice()
        );
    }
}

#[test]
fn rows_have_their_positions() {
    let decoded = decoder("CREATE TABLE t (a INT)").decode(&chunk(&[b"{\"a\":1}", b"{}"]));
    assert_eq!(
        json(&decoded.rows),
        "{\"a\":1,\"_partition\":3,\"_offset\":100,\"_timestamp\":\"2023-11-14T22:13:20\"}\n\
         {\"a\":null,\"_partition\":3,\"_offset\":110,\"_timestamp\":\"2023-11-14T22:13:20.001000\"}"
    );
    let empty = decoder("CREATE TABLE t (a INT)").decode(&Chunk::new(0, 0));
    assert_eq!((empty.rows.num_rows(), empty.rows.num_columns(), empty.dead.len()), (0, 4, 0));
}

#[test]
fn checks() {
    let sql = "CREATE TABLE t (q INT CHECK (q > 0), a DECIMAL(9,2), b TEXT, \
               CHECK (a < 500.5 AND b <> 'x'), CHECK (b = 'zero' OR 10 / (q - 5) < 10))";
    let mut decoder = decoder(sql);
    let mut check = |messages: &[&str], expected: &[(Offset, &str)]| {
        let bytes: Vec<&[u8]> = messages.iter().map(|message| message.as_bytes()).collect();
        let decoded = decoder.decode(&chunk(&bytes));
        let dead: Vec<(Offset, &str)> =
            decoded.dead.iter().map(|letter| ((letter.offset - 100) / 10, letter.reason.as_str())).collect();
        assert_eq!(dead, expected, "{messages:?}");
        assert_eq!(decoded.rows.num_rows(), messages.len() - expected.len());
    };
    let zero = "`CHECK (q > 0)` is false with `q` = `0`";
    let large = "`CHECK (a < 500.5 AND b <> 'x')` is false with `a` = `500.50`, `b` = `\"y\"`";
    let divided = "`CHECK (b = 'zero' OR 10 / (q - 5) < 10)` cannot be computed (Arrow error: Divide by zero error) \
                   with `q` = `5`, `b` = `null`";
    check(&[r#"{"q":1}"#, "{}", r#"{"q":2,"a":500.49,"b":"y"}"#], &[]);
    check(&[r#"{"q":0}"#], &[(0, zero)]);
    check(
        &[r#"{"q":1}"#, r#"{"q":0}"#, "[", r#"{"q":1,"a":500.50,"b":"y"}"#],
        &[(1, zero), (2, "the message `[` is not a JSON object"), (3, large)],
    );
    // Alone, `b = 'zero'` saves an event from the division; so it does in company.
    check(&[r#"{"q":5,"b":"zero"}"#], &[]);
    check(
        &[r#"{"q":1}"#, r#"{"q":5,"b":"zero"}"#, r#"{"q":5}"#, r#"{"q":9}"#, r#"{"q":5}"#],
        &[(2, divided), (4, divided)],
    );
}

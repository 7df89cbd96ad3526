//! The records of a body, each as it was sent.

use std::fmt;

use axum::body::Bytes;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::part;
use crate::http::problem::{Kind, Problem};

/// The records of a body: an object, an array of objects, or one object a line. What is no JSON is told here only where
/// it leaves open where records end; else it is for the decoder to say.
pub(super) fn split(body: &Bytes, of_lines: bool) -> Result<Vec<Bytes>, Problem> {
    // What some editors put at the start of a file, and nobody sees.
    let bom = if body.starts_with("\u{feff}".as_bytes()) { '\u{feff}'.len_utf8() } else { 0 };
    let body = &body.slice(bom..);
    let text = body.trim_ascii();
    if text.is_empty() {
        let hint = "send a JSON object, an array of objects, or one object a line";
        return Err(Problem::bad_request("there is no event in the body").hint(hint));
    }
    if of_lines {
        return Ok(lines(body));
    }
    if text.first() == Some(&b'[') {
        return array(body);
    }
    match serde_json::from_slice::<&RawValue>(body) {
        Ok(record) => Ok(vec![part(body, record.get().as_bytes())]),
        // One value is there, and more: a line each.
        Err(_) if first_line_is_json(text) => Ok(lines(body)),
        Err(error) => Err(not_json(&error, 0)),
    }
}

fn first_line_is_json(text: &[u8]) -> bool {
    let first = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    serde_json::from_slice::<&RawValue>(first).is_ok()
}

fn lines(body: &Bytes) -> Vec<Bytes> {
    let lines = body.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    lines.filter(|line| !line.is_empty()).map(|line| part(body, line)).collect()
}

fn array(body: &Bytes) -> Result<Vec<Bytes>, Problem> {
    let mut records = Elements { body, records: Vec::new() };
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = json.deserialize_seq(&mut records).and_then(|()| json.end());
    match read {
        Ok(()) => Ok(records.records),
        Err(error) => Err(not_json(&error, records.records.len())),
    }
}

/// Collects an array's elements, and keeps those before an error: their number tells which one is wrong.
struct Elements<'a> {
    body: &'a Bytes,
    records: Vec<Bytes>,
}

impl<'de> Visitor<'de> for &mut Elements<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while let Some(element) = elements.next_element::<&'de RawValue>()? {
            self.records.push(part(self.body, element.get().as_bytes()));
        }
        Ok(())
    }
}

fn not_json(error: &serde_json::Error, record: usize) -> Problem {
    Problem::new(Kind::BadEvents, format!("the body is not JSON: {error}"))
        .hint("nothing was written; send a JSON object, an array of objects, or one object a line")
        .member("record", record)
        .member("line", error.line())
        .member("column", error.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, of_lines: bool, expected: Result<&[&str], (u16, Option<usize>)>) {
        let split = split(&Bytes::copy_from_slice(body.as_bytes()), of_lines);
        let split = split.map_err(|problem| {
            let record = problem.body().get("record").and_then(|record| usize::try_from(record.as_u64()?).ok());
            (problem.status().as_u16(), record)
        });
        let split =
            split.map(|records| records.iter().map(|r| String::from_utf8_lossy(r).into_owned()).collect::<Vec<_>>());
        let expected = expected.map(|records| records.iter().map(|&record| record.to_owned()).collect());
        assert_eq!(split, expected, "{body}");
    }

    #[test]
    fn records_are_as_they_were_sent() {
        check(r#"  {"a": 1.50 } "#, false, Ok(&[r#"{"a": 1.50 }"#]));
        check("{\"a\":\n1}", false, Ok(&["{\"a\":\n1}"]));
        check("[ {\"a\": 1} ,\n{\"a\" : 2}]\n", false, Ok(&["{\"a\": 1}", "{\"a\" : 2}"]));
        check("[]", false, Ok(&[]));
        check("\u{feff}{\"a\": 1}", false, Ok(&["{\"a\": 1}"]));
        check("\u{feff}{\"a\": 1}\n{}", true, Ok(&["{\"a\": 1}", "{}"]));
        check("\u{feff}[{}]", false, Ok(&["{}"]));
        check("\u{feff}", false, Err((400, None)));
        check("{\"a\": 1}\r\n\n{\"a\": 2}\n", false, Ok(&["{\"a\": 1}", "{\"a\": 2}"]));
        check("{\"a\": 1}\n{\"a\"", false, Ok(&["{\"a\": 1}", "{\"a\""]));
        check("{\"a\"\n[1]\n", true, Ok(&["{\"a\"", "[1]"]));
        check("", false, Err((400, None)));
        check(" \n", true, Err((400, None)));
        check("{\"a\"", false, Err((422, Some(0))));
        check("[{\"a\": 1}, {\"a\"]", false, Err((422, Some(1))));
        check("[{\"a\": 1}] []", false, Err((422, Some(1))));
        check("[{\"a\": 1},", false, Err((422, Some(1))));
    }
}

//! What a sample of events would come to: which would be dead, which fields match no column, which columns nothing fills.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    io::{BufRead, BufReader},
    path::Path,
    sync::Arc,
};

use anyhow::{Context, Result};
use common::{catalog::Dataset, fault::visible, log::Chunk, values::Decoder};
use datafusion::arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{DataType, Fields},
};
use serde_json::value::RawValue;

/// So many lines of a sample are decoded together.
const LINES: usize = 10_000;

/// So many different fields or reasons are told apart: names and reasons may hold values, and those have no end.
const KINDS_MAX: usize = 200;

/// What a sample of events came to.
#[derive(Debug, Default)]
pub struct Sample {
    /// Usable events.
    pub usable: usize,
    /// The others, by what their reasons have in common.
    pub dead: BTreeMap<String, Dead>,
    /// Fields that match no column, by their path, and in how many events they are.
    pub unmatched: BTreeMap<String, Unmatched>,
    /// Columns, and members of columns, that were NULL in every usable event.
    pub empty: BTreeSet<String>,
}

/// Events that would be dead for one reason.
#[derive(Debug, PartialEq, Eq)]
pub struct Dead {
    /// How many there are.
    pub count: usize,
    /// The first one's line.
    pub line: usize,
    /// The first one's reason.
    pub reason: String,
}

/// A field that matches no column.
#[derive(Debug, PartialEq, Eq)]
pub struct Unmatched {
    /// In how many events it is.
    pub count: usize,
    /// A column that only its letters' case tells from it.
    pub column: Option<String>,
}

/// Decodes a file of one event a line as the layers would.
pub fn sample(dataset: &Arc<Dataset>, file: &Path) -> Result<Sample> {
    let lines =
        BufReader::new(std::fs::File::open(file).with_context(|| format!("could not read `{}`", file.display()))?);
    let mut decoder = Decoder::new(dataset.clone());
    let (mut sample, mut chunk, mut filled) = (Sample::default(), Chunk::new(0, 0), BTreeSet::new());
    for (number, line) in (1..).zip(lines.split(b'\n')) {
        let line = line?;
        let line = if number == 1 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line) } else { &line };
        if line.trim_ascii().is_empty() {
            continue;
        }
        if let Ok(event) = std::str::from_utf8(line) {
            sample.match_fields("", event, dataset.columns.fields());
        }
        chunk.push(number, 0, Some(line));
        if chunk.len() == LINES {
            sample.take(&mut decoder, &mut chunk, &mut filled);
        }
    }
    sample.take(&mut decoder, &mut chunk, &mut filled);
    if sample.usable > 0 {
        sample.empty = paths("", dataset.columns.fields()).into_iter().filter(|path| !filled.contains(path)).collect();
        // Where all of a struct is NULL its members need not be said.
        let empty = sample.empty.clone();
        let within = |path: &String| path.rmatch_indices('.').any(|(end, _)| empty.contains(&path[..end]));
        sample.empty.retain(|path| !within(path));
    }
    Ok(sample)
}

impl Sample {
    fn take(&mut self, decoder: &mut Decoder, chunk: &mut Chunk, filled: &mut BTreeSet<String>) {
        let decoded = decoder.decode(chunk);
        self.usable += decoded.rows.num_rows();
        for (field, column) in decoded.rows.schema_ref().fields().iter().zip(decoded.rows.columns()) {
            note_filled(field.name(), column, filled);
        }
        for letter in decoded.dead {
            let line = usize::try_from(letter.offset).unwrap_or(0);
            let (kind, full) = (in_common(&letter.reason), self.dead.len() >= KINDS_MAX);
            let kind = if full && !self.dead.contains_key(&kind) { "other reasons".to_owned() } else { kind };
            self.dead.entry(kind).or_insert(Dead { count: 0, line, reason: letter.reason }).count += 1;
        }
        *chunk = Chunk::new(0, chunk.next);
    }

    /// Notes the members of an object that match none of the `columns`, and goes into those that match a struct.
    fn match_fields(&mut self, path: &str, text: &str, columns: &Fields) {
        let Ok(members) = serde_json::from_str::<BTreeMap<String, &RawValue>>(text) else { return };
        for (name, value) in members {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            match columns.iter().find(|column| *column.name() == name) {
                Some(column) => self.match_inside(&path, value.get(), column.data_type()),
                None if self.unmatched.len() < KINDS_MAX || self.unmatched.contains_key(&path) => {
                    let like = columns.iter().find(|column| column.name().eq_ignore_ascii_case(&name));
                    let column = like.map(|column| column.name().clone());
                    self.unmatched.entry(path).or_insert(Unmatched { count: 0, column }).count += 1;
                }
                None => {}
            }
        }
    }

    fn match_inside(&mut self, path: &str, text: &str, data_type: &DataType) {
        match data_type {
            DataType::Struct(members) => self.match_fields(path, text, members),
            DataType::List(element) if matches!(element.data_type(), DataType::Struct(_) | DataType::List(_)) => {
                for value in serde_json::from_str::<Vec<&RawValue>>(text).unwrap_or_default() {
                    self.match_inside(&format!("{path}[]"), value.get(), element.data_type());
                }
            }
            _ => {}
        }
    }
}

/// Every column that may be NULL, and every such member of one, by its path.
fn paths(within: &str, columns: &Fields) -> Vec<String> {
    let mut found = Vec::new();
    for column in columns {
        let path = if within.is_empty() { column.name().clone() } else { format!("{within}.{}", column.name()) };
        if let DataType::Struct(members) = column.data_type() {
            found.extend(paths(&path, members));
        }
        if column.is_nullable() {
            found.push(path);
        }
    }
    found
}

fn note_filled(path: &str, column: &ArrayRef, filled: &mut BTreeSet<String>) {
    if column.null_count() == column.len() {
        return;
    }
    if let Some(members) = column.as_struct_opt() {
        for (field, member) in members.fields().iter().zip(members.columns()) {
            note_filled(&format!("{path}.{}", field.name()), member, filled);
        }
    }
    if !filled.contains(path) {
        filled.insert(path.to_owned());
    }
}

/// A reason without what it says of one event alone: values, and places in the message or in arrays.
fn in_common(reason: &str) -> String {
    let without_digits = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
    let is_of_message = reason.starts_with("the message") || reason.starts_with("byte");
    let mut common = String::new();
    for (index, part) in reason.split('`').enumerate() {
        common.push_str(&match index {
            // What stands in backticks first is a field, or a check.
            1 if reason.starts_with("field") => {
                let inside = part.split('[').map(|part| part.trim_start_matches(|c: char| c.is_ascii_digit()));
                inside.collect::<Vec<_>>().join("[")
            }
            1 if !is_of_message => part.to_owned(),
            index if index % 2 == 1 => "…".to_owned(),
            _ if is_of_message => without_digits(part),
            _ => part.to_owned(),
        });
    }
    common
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} events can be used", self.usable)?;
        for Dead { count, line, reason } in self.dead.values() {
            write!(f, "\n{count} would be dead, the first in line {line}: {}", visible(reason))?;
        }
        for (path, Unmatched { count, column }) in &self.unmatched {
            write!(f, "\nfield `{}` matches no column (in {count} events)", visible(path))?;
            let name = path.rsplit(['.', ']']).next().unwrap_or(path);
            if let Some(column) = column {
                write!(
                    f,
                    ": write `\"{name}\"` for `{column}` in the catalog, as names without quotes are in lower case"
                )?;
            }
        }
        for path in &self.empty {
            write!(f, "\ncolumn `{path}` is NULL in every event")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use common::catalog::Catalog;

    use super::*;

    fn check(columns: &str, events: &[&str], expected: &[&str]) {
        let sql = format!("CREATE TABLE t ({columns});");
        let catalog = Catalog::parse(&[("t.sql".to_owned(), sql)]).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), events.join("\n")).unwrap();
        let sample = sample(&catalog.datasets["t"], file.path()).unwrap();
        assert_eq!(sample.to_string().lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn fields_that_match_nothing_are_named_at_every_depth() {
        check(
            r#""orderId" BIGINT, ctx STRUCT<userAgent TEXT, ip TEXT>, lines STRUCT<sku TEXT>[]"#,
            &[r#"{"orderId":1,"ctx":{"userAgent":"x","ip":"y"},"lines":[{"SKU":"a"},{"n":1e999}],"z":"\ud800"}"#],
            &[
                "1 events can be used",
                "field `ctx.userAgent` matches no column (in 1 events): write `\"userAgent\"` for `useragent` in the \
                 catalog, as names without quotes are in lower case",
                "field `lines[].SKU` matches no column (in 1 events): write `\"SKU\"` for `sku` in the catalog, as names \
                 without quotes are in lower case",
                "field `lines[].n` matches no column (in 1 events)",
                "field `z` matches no column (in 1 events)",
                "column `ctx.useragent` is NULL in every event",
            ],
        );
        check(
            "a INT, b STRUCT<c INT>",
            &[r#"{"a":1}"#, r#"{"a":null}"#],
            &["2 events can be used", "column `b` is NULL in every event"],
        );
    }

    #[test]
    fn reasons_are_told_once() {
        check(
            "id BIGINT NOT NULL, at TIMESTAMP, tags INT[], n INT CHECK (n > 0)",
            &[
                "\u{feff}{\"id\":1,\"at\":\"2026-01-01T00:00:00Z\",\"tags\":[],\"n\":1}",
                r#"{"id":"a"}"#,
                r#"{"id":"b7"}"#,
                r#"{"id":1,"tags":[1,"x"]}"#,
                r#"{"id":1,"tags":["y"]}"#,
                r#"{"id":1,"n":0}"#,
                r#"{"id":2,"n":-1}"#,
                r#"{"id":"#,
                r#"{"id":1,"at":"#,
            ],
            &[
                "1 events can be used",
                "2 would be dead, the first in line 6: `CHECK (n > 0)` is false with `n` = `0`",
                "2 would be dead, the first in line 2: field `id` must be BIGINT: `\"a\"` is not a number",
                "2 would be dead, the first in line 4: field `tags[1]` must be INT: `\"x\"` is not a number",
                "2 would be dead, the first in line 8: the message is not JSON: EOF while parsing a value at line 1 \
                 column 6",
            ],
        );
    }
}

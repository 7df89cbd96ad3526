//! `lamina query`: an answer as people or programs want it, and its stamp as one line.

use std::{
    fmt::Write as _,
    io::{IsTerminal, Read, Write},
    path::Path,
};

use anyhow::{Context, Result, bail};
use datafusion::arrow::{
    array::RecordBatch,
    ipc::reader::StreamReader,
    util::{
        display::{ArrayFormatter, FormatOptions},
        pretty::pretty_format_batches_with_options,
    },
};
use reqwest::header;
use serde_json::{Value, json};

use super::Client;

/// How a query's answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A table, for people; a block a row where a table is too wide.
    Table,
    /// One JSON document, with the stamp.
    Json,
    /// One JSON object a line.
    Ndjson,
    /// Comma-separated values.
    Csv,
    /// An Arrow stream.
    Arrow,
}

impl Format {
    fn media_type(self) -> &'static str {
        match self {
            Self::Table | Self::Arrow => "application/vnd.apache.arrow.stream",
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv",
        }
    }
}

/// How the stamp is told, on the error stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum StampFormat {
    /// One line, for people.
    #[default]
    Line,
    /// All of it.
    Json,
    /// Not at all.
    None,
}

/// The SQL of a query: what is given, or what standard input (`-`) or a file has.
pub fn sql(given: Option<&str>, file: Option<&Path>) -> Result<String> {
    let mut sql = String::new();
    match (given, file) {
        (Some("-"), None) => {
            std::io::stdin().read_to_string(&mut sql).context("could not read the SQL from standard input")?;
        }
        (Some(given), None) => given.clone_into(&mut sql),
        (None, Some(file)) => {
            sql = std::fs::read_to_string(file).with_context(|| format!("could not read `{}`", file.display()))?;
        }
        _ => bail!("write the SQL, `-` to read it from standard input, or `--file FILE`"),
    }
    Ok(sql.strip_prefix('\u{feff}').unwrap_or(&sql).to_owned())
}

impl Client {
    /// Runs a query and prints its answer; the stamp goes to the error stream, unless it is part of the answer.
    pub async fn query(
        &self,
        sql: &str,
        format: Option<Format>,
        stamp: StampFormat,
        out: &mut (impl Write + IsTerminal),
    ) -> Result<()> {
        let format = format.unwrap_or(if out.is_terminal() { Format::Table } else { Format::Json });
        let request = self.http.post(format!("{}/v1/sql", self.url)).header(header::ACCEPT, format.media_type());
        let mut response = self.send(request.json(&json!({"sql": sql}))).await?;
        let told = response.headers().get("lamina-stamp").and_then(|stamp| stamp.to_str().ok()).map(str::to_owned);
        let broken = "the answer broke off: it failed while it was being computed";
        if format == Format::Table {
            let bytes = response.bytes().await.context(broken)?;
            let batches: Result<Vec<_>, _> = StreamReader::try_new(bytes.as_ref(), None)?.collect();
            let width =
                if out.is_terminal() { terminal_size::terminal_size().map(|(width, _)| width.0.into()) } else { None };
            writeln!(out, "{}", table(&batches?, width)?)?;
        } else {
            while let Some(part) = response.chunk().await.context(broken)? {
                out.write_all(&part)?;
            }
            out.flush()?;
        }
        match (stamp, told) {
            (StampFormat::None, _) | (_, None) => {}
            (StampFormat::Json, Some(told)) => writeln!(std::io::stderr(), "{told}")?,
            (StampFormat::Line, Some(told)) => writeln!(std::io::stderr(), "{}", line(&serde_json::from_str(&told)?))?,
        }
        Ok(())
    }
}

/// A table, or where that is wider than there is room for, each row as a block.
fn table(batches: &[RecordBatch], width: Option<usize>) -> Result<String> {
    let options = FormatOptions::default().with_null("NULL");
    let table = pretty_format_batches_with_options(batches, &options)?.to_string();
    let is_wide = |width: usize| table.lines().next().is_some_and(|line| line.chars().count() > width);
    if !width.is_some_and(is_wide) || batches.iter().all(|batch| batch.num_rows() == 0) {
        return Ok(table);
    }
    let (mut blocks, mut number) = (String::new(), 0);
    for batch in batches {
        let schema = batch.schema();
        let longest = schema.fields().iter().map(|field| field.name().chars().count()).max().unwrap_or(0);
        let cells: Result<Vec<_>, _> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options)).collect();
        let cells = cells?;
        for row in 0..batch.num_rows() {
            number += 1;
            writeln!(blocks, "-- row {number}")?;
            for (field, cell) in schema.fields().iter().zip(&cells) {
                writeln!(blocks, "{:longest$} | {}", field.name(), cell.value(row))?;
            }
        }
    }
    Ok(blocks.trim_end().to_owned())
}

/// A stamp as one line: over which prefix the answer is, how old that is, and what is not as it should be.
fn line(stamp: &Value) -> String {
    let mut parts = Vec::new();
    for (dataset, head) in stamp["head"].as_object().into_iter().flatten() {
        let positions = head.as_object().into_iter().flatten();
        let positions: Vec<String> = positions.map(|(partition, next)| format!("{partition}:{next}")).collect();
        parts.push(format!("{dataset} below {}", positions.join(" ")).trim_end().to_owned());
    }
    for (view, of_view) in stamp["views"].as_object().into_iter().flatten() {
        let mut part = match of_view["batch_version"].as_i64() {
            Some(version) => format!("{view} from batch version {version}"),
            None => format!("{view} without a batch version"),
        };
        for (name, text) in [("failed_events", "events left out"), ("failed_groups", "groups not computed")] {
            if let Some(count) = of_view.get(name) {
                let _ = write!(part, " ({count} {text})");
            }
        }
        parts.push(part);
    }
    for (name, text) in [("stopped", "stands still"), ("missing", "lacks partitions")] {
        for (dataset, why) in stamp[name].as_object().into_iter().flatten() {
            parts.push(format!("{dataset} {text}: {}", why.as_str().map_or_else(|| why.to_string(), str::to_owned)));
        }
    }
    parts.push(match stamp["freshness_ms"].as_i64() {
        Some(0) => "lacks nothing".to_owned(),
        Some(age) => format!("lacks events of the last {age} ms"),
        None => "what it lacks cannot be told".to_owned(),
    });
    format!("-- {}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    #[test]
    fn a_table_fits() {
        let names: ArrayRef = Arc::new(StringArray::from(vec![Some("a long name"), Some(""), None]));
        let batch = RecordBatch::try_from_iter([
            ("id", Arc::new(Int64Array::from(vec![1, 2, 3])) as ArrayRef),
            ("name", names),
        ]);
        let batch = [batch.unwrap()];
        let wide = table(&batch, Some(80)).unwrap();
        assert_eq!(wide, table(&batch, None).unwrap());
        assert!(wide.contains("| 2  |             |\n| 3  | NULL        |"), "{wide}");
        let narrow = table(&batch, Some(19)).unwrap();
        let expected =
            "-- row 1\nid   | 1\nname | a long name\n-- row 2\nid   | 2\nname | \n-- row 3\nid   | 3\nname | NULL";
        assert_eq!(narrow, expected);
    }

    #[test]
    fn a_stamp_is_one_line() {
        let stamp = json!({
            "head": {"sales": {"0": 1950, "1": 2000}}, "freshness_ms": 21,
            "views": {"daily_sales": {"definition": "5f", "batch_version": 3, "cut": {"0": 9}, "failed_events": 2}},
        });
        let expected = "-- sales below 0:1950 1:2000, daily_sales from batch version 3 (2 events left out), lacks events of \
                        the last 21 ms";
        assert_eq!(line(&stamp), expected);
        let stamp = json!({
            "head": {"sales": {}}, "views": {"v": {"batch_version": null, "cut": {}}}, "freshness_ms": null,
            "stopped": {"sales": "no broker"}, "missing": {"sales": [2]},
        });
        let expected = "-- sales below, v without a batch version, sales stands still: no broker, sales lacks partitions: \
                        [2], what it lacks cannot be told";
        assert_eq!(line(&stamp), expected);
    }
}

//! `lamina ingest`: a file's lines as events, and exactly what became of which when not all could be sent.

use std::{
    fmt,
    io::{BufRead, BufReader, Read},
    path::Path,
};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::header;
use serde_json::{Value, json};

use super::{Client, Failure, text};

/// So many events are sent at once, or so many bytes; a line that is longer goes alone.
const SEND_EVENTS: usize = 5_000;
const SEND_BYTES: usize = 4 << 20;

/// What some editors put at the start of a file, and nobody sees.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// Lines that are sent at once.
#[derive(Debug, Default, PartialEq)]
struct Batch {
    body: Vec<u8>,
    /// The number of each line that is not blank, from 1.
    lines: Vec<u64>,
}

/// Reads batches of lines.
#[derive(Debug)]
struct Batches<R> {
    input: R,
    /// The next line's number.
    number: u64,
    /// A line that was read, and was too much for the batch before.
    kept: Option<Vec<u8>>,
}

impl<R: BufRead> Batches<R> {
    fn new(input: R) -> Self {
        Self { input, number: 1, kept: None }
    }

    /// Leaves out the lines before this one.
    fn skip_to(&mut self, line: u64) -> std::io::Result<()> {
        while self.number < line && self.line()?.is_some() {
            self.number += 1;
        }
        Ok(())
    }

    fn line(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        if let Some(line) = self.kept.take() {
            return Ok(Some(line));
        }
        let mut line = Vec::new();
        if self.input.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if self.number == 1 && line.starts_with(BOM) {
            line.drain(..BOM.len());
        }
        Ok(Some(line))
    }

    /// The next lines; `None` when there are no more.
    fn next(&mut self) -> std::io::Result<Option<Batch>> {
        let mut batch = Batch::default();
        while batch.lines.len() < SEND_EVENTS {
            let Some(line) = self.line()? else { break };
            if !line.trim_ascii().is_empty() {
                if !batch.body.is_empty() && batch.body.len() + line.len() >= SEND_BYTES {
                    self.kept = Some(line);
                    break;
                }
                batch.body.extend_from_slice(&line);
                batch.body.push(b'\n');
                batch.lines.push(self.number);
            }
            self.number += 1;
        }
        Ok((!batch.lines.is_empty()).then_some(batch))
    }
}

/// What is known of a batch that was not taken as a whole.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Known {
    /// Nothing of it is in.
    Nothing,
    /// So many of its events are in; of the others some may be.
    AtLeast(u64),
}

/// What became of the lines, when not all could be sent.
#[derive(Debug)]
struct Stopped {
    file: String,
    /// The first line that was to be sent.
    from: u64,
    accepted: u64,
    /// The first and the last line of the batch.
    batch: (u64, u64),
    /// The line that is to be corrected, if it is for a line.
    line: Option<u64>,
    known: Known,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, from, accepted, batch: (first, last), line, known } = self;
        match line {
            Some(line) => writeln!(f, "line {line} of `{file}` was not taken")?,
            None => writeln!(f, "`{file}` was not taken as a whole")?,
        }
        match first > from && *accepted > 0 {
            true => writeln!(f, "  in: lines {from} to {} ({accepted} events)", first - 1)?,
            false => writeln!(f, "  in: nothing")?,
        }
        let rerun = |line: &u64| format!("`lamina ingest {file} --from-line {line}`");
        match known {
            Known::Nothing => {
                writeln!(f, "  not in: line {first} and all after it")?;
                let correct = line.map_or(String::new(), |line| format!("correct line {line}, and "));
                write!(f, "  next: {correct}send the rest with {}", rerun(first))
            }
            Known::AtLeast(count) => {
                let some = if *count > 0 { format!(" ({count} of them are)") } else { String::new() };
                writeln!(f, "  may be in: lines {first} to {last}{some}")?;
                writeln!(f, "  not in: all after line {last}")?;
                write!(
                    f,
                    "  next: look which of lines {first} to {last} are in, with a query or in the log; {} sends them \
                     again, which doubles those that are, and {} goes on behind them",
                    rerun(first),
                    rerun(&(last + 1))
                )
            }
        }
    }
}

impl Client {
    /// Sends events, one a line from line `from` on, and gives how many, and the position that answers must reach to have
    /// them in.
    pub async fn ingest(&self, file: &Path, dataset: Option<&str>, from: u64) -> Result<(u64, Value)> {
        let dataset = match dataset {
            Some(dataset) => dataset.to_owned(),
            None => self.only_dataset().await?,
        };
        let (input, size): (Box<dyn Read>, u64) = match file.as_os_str() == "-" {
            true => (Box::new(std::io::stdin()), 0),
            false => {
                let file_ =
                    std::fs::File::open(file).with_context(|| format!("could not read `{}`", file.display()))?;
                let size = file_.metadata()?.len();
                (Box::new(file_), size)
            }
        };
        let style = "{spinner} {msg} {bytes} {bar:30} {bytes_per_sec} {eta}";
        let bar = ProgressBar::new(size).with_style(ProgressStyle::with_template(style)?);
        let mut batches = Batches::new(BufReader::with_capacity(1 << 20, input));
        batches.skip_to(from)?;
        let (mut accepted, mut frontier) = (0, json!({}));
        while let Some(Batch { body, lines }) = batches.next()? {
            bar.inc(body.len() as u64);
            let failure = match self.events(&dataset, body).await {
                Ok(answer) => {
                    accepted += answer["accepted"].as_u64().unwrap_or(0);
                    join(&mut frontier, &answer["frontier"]);
                    bar.set_message(format!("{accepted} events"));
                    continue;
                }
                Err(failure) => failure,
            };
            bar.abandon();
            let (first, last) = (lines.first().copied().unwrap_or(from), lines.last().copied().unwrap_or(from));
            let (known, file) = (known(&failure), file.display().to_string());
            // Of a line that went alone it is said without its number.
            let record = failure.record().or((lines.len() == 1 && failure.is_of_size()).then_some(0));
            let line = record.and_then(|record| lines.get(record).copied());
            let stopped = Stopped { file, from, accepted, batch: (first, last), line, known };
            // The reason stands alone: what the API says to do is for one request, and this was one of several.
            return Err(anyhow::anyhow!("{stopped}\n  why: {}", failure.reason()));
        }
        bar.finish();
        Ok((accepted, frontier))
    }

    async fn events(&self, dataset: &str, body: Vec<u8>) -> Result<Value, Failure> {
        let request = self.http.post(format!("{}/v1/datasets/{dataset}/events", self.url));
        let request = request.header(header::CONTENT_TYPE, "application/x-ndjson").body(body);
        let answer = self.send(request).await?;
        answer.json().await.map_err(|source| Failure::BrokeOff { url: self.url.clone(), source })
    }
}

/// What a failure leaves known of the batch that it befell.
fn known(failure: &Failure) -> Known {
    match failure {
        Failure::Unreached { .. } => Known::Nothing,
        Failure::BrokeOff { .. } => Known::AtLeast(0),
        Failure::Problem { body, .. } => match text(&body["type"]) {
            "/problems/log-failed" => Known::AtLeast(body["accepted"].as_u64().unwrap_or(0)),
            // What is checked is checked before anything is written. A defect, or something that is not Lamina, may have
            // come up after it.
            "/problems/internal" | "" => Known::AtLeast(0),
            _ => Known::Nothing,
        },
    }
}

/// The larger of two positions, partition by partition.
fn join(frontier: &mut Value, other: &Value) {
    for (dataset, positions) in other.as_object().into_iter().flatten() {
        for (partition, next) in positions.as_object().into_iter().flatten() {
            if next.as_i64() > frontier[dataset][partition].as_i64() {
                frontier[dataset][partition] = next.clone();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_their_numbers_and_long_ones_go_alone() {
        let check = |input: &[u8], from: u64, expected: &[(usize, &[u64])]| {
            let mut batches = Batches::new(input);
            batches.skip_to(from).unwrap();
            let mut found = Vec::new();
            while let Some(batch) = batches.next().unwrap() {
                found.push((batch.body.len(), batch.lines));
            }
            let expected: Vec<_> = expected.iter().map(|(bytes, lines)| (*bytes, lines.to_vec())).collect();
            assert_eq!(found, expected);
        };
        check(b"", 1, &[]);
        check(b"\n \r\n", 1, &[]);
        check(b"{}\n\n{}\r\n \n{}", 1, &[(10, &[1, 3, 5])]);
        check(b"{}\n\n{}\n{}", 3, &[(6, &[3, 4])]);
        check(b"{}\n", 9, &[]);
        check(b"\xef\xbb\xbf{}\n{}\n", 1, &[(6, &[1, 2])]);
        let long = [b"{}\n".as_slice(), &vec![b'x'; SEND_BYTES], b"\n{}\n"].concat();
        check(&long, 1, &[(3, &[1]), (SEND_BYTES + 1, &[2]), (3, &[3])]);
        let many = b"{}\n".repeat(SEND_EVENTS + 1);
        let (first, last): (Vec<u64>, u64) = ((1..=5_000).collect(), 5_001);
        check(&many, 1, &[(15_000, &first), (3, &[last])]);
    }

    #[test]
    fn what_is_said_is_what_is_known() {
        let stopped = |from, batch, line, known| {
            let file = "sales.ndjson".to_owned();
            Stopped { file, from, accepted: 9_997, batch, line, known }.to_string()
        };
        let said = stopped(1, (10_001, 15_000), Some(11_003), Known::Nothing);
        assert!(said.contains("in: lines 1 to 10000 (9997 events)\n  not in: line 10001 and all after it"), "{said}");
        assert!(
            said.contains("correct line 11003, and send the rest with `lamina ingest sales.ndjson --from-line 10001`")
        );
        let said = stopped(5, (5, 9), None, Known::AtLeast(2));
        assert!(
            said.contains("in: nothing\n  may be in: lines 5 to 9 (2 of them are)\n  not in: all after line 9"),
            "{said}"
        );
        let problem = |body: Value| Failure::Problem { status: 503, body };
        assert_eq!(known(&problem(json!({"type": "/problems/log-failed", "accepted": 3}))), Known::AtLeast(3));
        assert_eq!(known(&problem(json!({"type": "/problems/bad-events", "record": 3}))), Known::Nothing);
        assert_eq!(known(&problem(json!({"type": "/problems/internal"}))), Known::AtLeast(0));
        assert_eq!(known(&problem(json!("a proxy's page"))), Known::AtLeast(0));
    }
}

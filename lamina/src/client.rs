//! What the command line asks of a running Lamina, over HTTP.

use std::{
    io::{BufRead, BufReader, IsTerminal, Read, Write},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use common::access::Secret;
use datafusion::arrow::{ipc::reader::StreamReader, util::pretty::pretty_format_batches};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{Response, header};
use serde_json::{Value, json};

/// How a query's answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A table, for people.
    Table,
    /// The answer as the API gives it.
    Json,
    /// Comma-separated values.
    Csv,
}

/// So many events are sent at once, or so many bytes.
const SEND_EVENTS: usize = 5_000;
const SEND_BYTES: usize = 4 << 20;

/// A Lamina somewhere.
#[derive(Clone, Debug)]
pub struct Client {
    url: String,
    token: Option<Secret>,
    http: reqwest::Client,
}

impl Client {
    /// A client of the Lamina at `url`, with a token where it asks for one.
    pub fn new(url: &str, token: Option<&str>) -> Self {
        let token = token.map(Secret::new);
        Self { url: url.trim_end_matches('/').to_owned(), token, http: reqwest::Client::new() }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Response> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        };
        let response = request.send().await.with_context(|| {
            format!("Lamina cannot be reached at `{}`: is it running? Say where with --url or LAMINA_URL", self.url)
        })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = response.text().await.unwrap_or_default();
        Err(problem(status.as_u16(), &text))
    }

    async fn get(&self, path: &str) -> Result<Value> {
        Ok(self.send(self.http.get(format!("{}{path}", self.url))).await?.json().await?)
    }

    /// Runs a query and prints its answer; the stamp goes to the error stream.
    pub async fn query(&self, sql: &str, format: Option<Format>, out: &mut (impl Write + IsTerminal)) -> Result<()> {
        let format = format.unwrap_or(if out.is_terminal() { Format::Table } else { Format::Json });
        let accept = match format {
            Format::Table => "application/vnd.apache.arrow.stream",
            Format::Json => "application/json",
            Format::Csv => "text/csv",
        };
        let request = self.http.post(format!("{}/v1/sql", self.url)).header(header::ACCEPT, accept);
        let response = self.send(request.json(&json!({"sql": sql}))).await?;
        let stamp = response.headers().get("lamina-stamp").and_then(|stamp| stamp.to_str().ok()).map(str::to_owned);
        let bytes = response.bytes().await.context("the answer broke off: it failed while it was being computed")?;
        match format {
            Format::Table => {
                let batches: Result<Vec<_>, _> = StreamReader::try_new(bytes.as_ref(), None)?.collect();
                writeln!(out, "{}", pretty_format_batches(&batches?)?)?;
            }
            Format::Json | Format::Csv => out.write_all(&bytes)?,
        }
        if let Some(stamp) = stamp {
            writeln!(std::io::stderr(), "{stamp}")?;
        }
        Ok(())
    }

    /// Sends events, one a line, and gives the position that answers must reach to have them in.
    pub async fn ingest(&self, file: &Path, dataset: Option<&str>) -> Result<(u64, Value)> {
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
        let mut lines = BufReader::with_capacity(1 << 20, input).split(b'\n');
        let (mut accepted, mut frontier, mut first_line) = (0, json!({}), 1_u64);
        loop {
            let (mut body, mut count, mut end) = (Vec::new(), 0, true);
            for line in lines.by_ref() {
                body.extend_from_slice(&line?);
                body.push(b'\n');
                count += 1;
                if count == SEND_EVENTS || body.len() >= SEND_BYTES {
                    end = false;
                    break;
                }
            }
            if !body.trim_ascii().is_empty() {
                bar.inc(body.len() as u64);
                let sent = self.events(&dataset, body).await;
                let answer = sent.with_context(|| {
                    format!("{accepted} events were accepted; the ones from line {first_line} on were not")
                })?;
                accepted += answer["accepted"].as_u64().unwrap_or(0);
                join(&mut frontier, &answer["frontier"]);
                bar.set_message(format!("{accepted} events"));
            }
            first_line += count as u64;
            if end {
                bar.finish();
                return Ok((accepted, frontier));
            }
        }
    }

    async fn events(&self, dataset: &str, body: Vec<u8>) -> Result<Value> {
        let request = self.http.post(format!("{}/v1/datasets/{dataset}/events", self.url));
        let request = request.header(header::CONTENT_TYPE, "application/x-ndjson").body(body);
        Ok(self.send(request).await?.json().await?)
    }

    async fn only_dataset(&self) -> Result<String> {
        let answer = self.get("/v1/datasets").await?;
        let names: Vec<&str> =
            answer["datasets"].as_array().into_iter().flatten().filter_map(|d| d["name"].as_str()).collect();
        match names[..] {
            [only] => Ok(only.to_owned()),
            _ => bail!("there are several datasets: choose one of {} with --dataset", names.join(", ")),
        }
    }

    /// Recomputes a view and follows the job to its end.
    pub async fn recompute(&self, view: &str) -> Result<String> {
        let started = self.send(self.http.post(format!("{}/v1/views/{view}/recompute", self.url))).await?;
        let mut job: Value = started.json().await?;
        let id = job["id"].as_str().unwrap_or_default().to_owned();
        let bar =
            ProgressBar::new(100).with_style(ProgressStyle::with_template("{spinner} {msg} {bar:30} {percent}%")?);
        while matches!(job["state"].as_str(), Some("queued" | "running")) {
            tokio::time::sleep(Duration::from_millis(200)).await;
            job = self.get(&format!("/v1/jobs/{id}")).await?;
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a percentage")]
            bar.set_position((job["progress"].as_f64().unwrap_or(0.0) * 100.0) as u64);
            bar.set_message(job["state"].as_str().unwrap_or_default().to_owned());
        }
        bar.finish_and_clear();
        match (job["state"].as_str(), job["batch_version"].as_i64()) {
            (Some("succeeded"), Some(version)) => Ok(format!("view `{view}`: published batch version {version}")),
            (Some("succeeded"), None) => Ok(format!(
                "view `{view}`: nothing published, as nothing has been archived since its last batch version; new events \
                 are in answers already, and are archived a few seconds later (`batch.flush_age`)"
            )),
            _ => Err(anyhow!("job `{id}` failed: {}", job["error"].as_str().unwrap_or("it does not say why"))),
        }
    }

    /// How everything stands, in a few lines.
    pub async fn status(&self) -> Result<String> {
        let mut lines = Vec::new();
        for dataset in self.get("/v1/datasets").await?["datasets"].as_array().into_iter().flatten() {
            lines.push(format!(
                "dataset {}: log end {}, archived {}, {} events, {} dead letters",
                text(&dataset["name"]),
                dataset["log"]["end"],
                dataset["master"]["frontier"],
                dataset["events"],
                dataset["dead_letters"]
            ));
        }
        for view in self.get("/v1/views").await?["views"].as_array().into_iter().flatten() {
            let batch = match view["batch_version"].as_i64() {
                Some(version) => format!("batch version {version}, cut {}", view["cut"]),
                None => "no batch version yet".to_owned(),
            };
            let head = match &view["head"] {
                Value::Null => "cannot be answered now".to_owned(),
                head => format!("head {head}"),
            };
            let name = text(&view["name"]);
            let failed = match self.get(&format!("/v1/views/{name}/failed_events?limit=1")).await {
                Ok(failed) => match (failed["count"].as_i64(), &failed["failed_events"][0]["reason"]) {
                    (Some(count @ 1..), reason) => format!(", {count} failed events, the newest: {}", text(reason)),
                    _ => String::new(),
                },
                Err(error) => format!(", {error:#}"),
            };
            lines.push(format!("view {name}: {batch}, {head}{failed}"));
        }
        let ready = self.get("/readyz").await;
        lines.push(match ready {
            Ok(_) => "ready".to_owned(),
            Err(error) => format!("not ready: {error:#}"),
        });
        Ok(lines.join("\n"))
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A problem of the API as one message.
fn problem(status: u16, body: &str) -> anyhow::Error {
    let Ok(problem) = serde_json::from_str::<Value>(body) else { return anyhow!("status {status}: {body}") };
    let mut message = text(&problem["detail"]).to_owned();
    for (name, label) in [("line", "line"), ("column", "column"), ("record", "record")] {
        if let Some(value) = problem.get(name) {
            message = format!("{message} ({label} {value})");
        }
    }
    match problem["hint"].as_str() {
        Some(hint) => anyhow!("{message}\n{hint}"),
        None => anyhow!(message),
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

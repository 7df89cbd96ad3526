//! What the command line asks of a running Lamina, over HTTP.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use common::access::Secret;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Response;
use serde_json::Value;

mod ingest;
mod query;

pub use query::{Format, StampFormat, sql};

/// Why a request was not answered as it should be.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It was never there.
    #[error("Lamina cannot be reached at `{url}`: is it running? Say where with --url or LAMINA_URL")]
    Unreached {
        /// Where.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// It may have been there.
    #[error("Lamina at `{url}` broke off, or did not answer in time")]
    BrokeOff {
        /// Where.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// It was refused.
    #[error("{}", self.told())]
    Problem {
        /// The answer's status.
        status: u16,
        /// The problem as JSON; a string where it is none.
        body: Value,
    },
}

impl Failure {
    /// Why, without what to do.
    fn reason(&self) -> String {
        match self {
            Self::Problem { status, body } => match &body["detail"] {
                Value::String(detail) => detail.clone(),
                _ => format!("status {status}: {}", text(body)),
            },
            failure => common::fault::chain(failure),
        }
    }

    /// Which of the records that were sent it is about.
    fn record(&self) -> Option<usize> {
        let Self::Problem { body, .. } = self else { return None };
        body["record"].as_u64().and_then(|record| usize::try_from(record).ok())
    }

    /// Whether there was too much of something.
    fn is_of_size(&self) -> bool {
        matches!(self, Self::Problem { status: 413, .. })
    }

    fn told(&self) -> String {
        let mut told = self.reason();
        let Self::Problem { body, .. } = self else { return told };
        for name in ["line", "column", "record"] {
            if let Some(value) = body.get(name) {
                told = format!("{told} ({name} {value})");
            }
        }
        match body["hint"].as_str() {
            _ if text(&body["type"]) == "/problems/unauthorized" => {
                format!(
                    "{told}\ngive one with --token or LAMINA_TOKEN; who runs Lamina makes them with `lamina token new`"
                )
            }
            Some(hint) => format!("{told}\n{hint}"),
            None => told,
        }
    }
}

/// A Lamina somewhere.
#[derive(Clone, Debug)]
pub struct Client {
    url: String,
    token: Option<Secret>,
    http: reqwest::Client,
}

impl Client {
    /// A client of the Lamina at `url`, with a token where it asks for one. An address alone is one of HTTP.
    pub fn new(url: &str, token: Option<&str>) -> Self {
        let token = token.map(Secret::new);
        let scheme = if url.contains("://") { "" } else { "http://" };
        Self { url: format!("{scheme}{}", url.trim_end_matches('/')), token, http: reqwest::Client::new() }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Response, Failure> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        };
        let url = || self.url.clone();
        let response = request.send().await.map_err(|source| match source.is_connect() || source.is_builder() {
            true => Failure::Unreached { url: url(), source },
            false => Failure::BrokeOff { url: url(), source },
        })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let said = response.text().await.unwrap_or_default();
        let body = serde_json::from_str(&said).ok().filter(Value::is_object).unwrap_or(Value::String(said));
        Err(Failure::Problem { status, body })
    }

    async fn get(&self, path: &str) -> Result<Value> {
        Ok(self.send(self.http.get(format!("{}{path}", self.url))).await?.json().await?)
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
            (Some("succeeded"), None) => {
                let since = match self.get(&format!("/v1/views/{view}")).await?["batch_version"].as_i64() {
                    Some(_) => "since its last batch version",
                    None => "yet",
                };
                Ok(format!(
                    "view `{view}`: nothing published, as nothing has been archived {since}; new events are in answers \
                     already, and are archived a few seconds later (`batch.flush_age`)"
                ))
            }
            _ => Err(anyhow!("job `{id}` failed: {}", job["error"].as_str().unwrap_or("it does not say why"))),
        }
    }

    /// How everything stands, in a few lines: how far the batch layer and the views are behind the log, and how old
    /// answers are.
    pub async fn status(&self) -> Result<String> {
        let (mut lines, mut ends) = (Vec::new(), serde_json::Map::new());
        for dataset in self.get("/v1/datasets").await?["datasets"].as_array().into_iter().flatten() {
            let (name, end, archived) =
                (text(&dataset["name"]), &dataset["log"]["end"], &dataset["master"]["frontier"]);
            lines.push(format!(
                "dataset {name}: log end {}, archived {}{}, {} events, {} dead letters",
                total(end).map_or("out of reach".to_owned(), |end| end.to_string()),
                total(archived).unwrap_or(0),
                behind(end, archived),
                dataset["events"],
                dataset["dead_letters"]
            ));
            ends.insert(name.to_owned(), end.clone());
        }
        for view in self.get("/v1/views").await?["views"].as_array().into_iter().flatten() {
            let name = text(&view["name"]);
            let batch = match view["batch_version"].as_i64() {
                Some(version) => format!("batch version {version}, cut {}", total(&view["cut"]).unwrap_or(0)),
                None => "no batch version yet".to_owned(),
            };
            let head = match &view["head"] {
                Value::Null => "cannot be answered now".to_owned(),
                head => {
                    let end = ends.get(text(&view["dataset"])).unwrap_or(&Value::Null);
                    let fresh = match self.get(&format!("/v1/views/{name}/rows?limit=0")).await {
                        Ok(answer) => match answer["stamp"]["freshness_ms"].as_i64() {
                            Some(age) => format!("freshness {age} ms"),
                            None => "freshness unknown".to_owned(),
                        },
                        Err(error) => format!("{error:#}"),
                    };
                    format!("head {}{}, {fresh}", total(head).unwrap_or(0), behind(end, head))
                }
            };
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

/// The positions of all partitions together.
fn total(frontier: &Value) -> Option<i64> {
    Some(frontier.as_object()?.values().filter_map(Value::as_i64).sum())
}

/// How many offsets there are from a position to the log's end.
fn behind(end: &Value, position: &Value) -> String {
    match (total(end), total(position)) {
        (Some(end), position) if end > position.unwrap_or(0) => format!(" ({} behind)", end - position.unwrap_or(0)),
        _ => String::new(),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

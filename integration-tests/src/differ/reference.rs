//! The process that has the other engines.

use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::{
    compare::{Rows, tagged},
    plan::DATASET,
    query::Query,
    sql::Dialect,
    values::COLUMNS,
};
use crate::sandbox::cache;

/// DuckDB and PostgreSQL over one list of events.
#[derive(Debug)]
pub(super) struct Reference {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

/// What both say to a query: rows, or what is wrong with it.
#[derive(Debug)]
pub(super) struct Answers {
    /// DuckDB's answer.
    pub duck: Result<Rows, String>,
    /// PostgreSQL's answer.
    pub postgres: Result<Rows, String>,
}

impl Reference {
    /// Starts both engines.
    pub(super) fn start() -> Result<Self> {
        let python = cache().join("python/bin/python");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/differ/reference.py");
        let mut command = Command::new(&python);
        command.args([script, "--postgres"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child =
            command.spawn().with_context(|| format!("`{}`: run integration-tests/install.sh", python.display()))?;
        let input = child.stdin.take().context("the process has an input")?;
        let output = child.stdout.take().context("the process has an output")?;
        Ok(Self { child, input, output: BufReader::new(output).lines() })
    }

    async fn request(&mut self, request: Value) -> Result<Value> {
        self.input.write_all(format!("{request}\n").as_bytes()).await.context("the references are gone")?;
        let line = self.output.next_line().await?.context("the references are gone: their stderr says why")?;
        Ok(serde_json::from_str(&line)?)
    }

    /// Forgets all events and views.
    pub(super) async fn reset(&mut self) -> Result<()> {
        self.request(json!({"do": "reset", "table": DATASET, "columns": COLUMNS})).await?;
        Ok(())
    }

    /// Adds events: partition, offset, milliseconds, text.
    pub(super) async fn load(&mut self, events: &[(i32, i64, i64, String)]) -> Result<()> {
        self.request(json!({"do": "load", "events": events})).await?;
        Ok(())
    }

    /// Computes the views from the events that there are.
    pub(super) async fn views(&mut self, views: &[(String, Query)]) -> Result<()> {
        let both =
            |sql: &dyn Fn(Dialect) -> String| json!({"duck": sql(Dialect::Duck), "postgres": sql(Dialect::Postgres)});
        let view = |(name, query): &(String, Query)| {
            json!([name, both(&|dialect| query.sql(dialect)), both(&|dialect| query.of_each_event(dialect))])
        };
        let views: Vec<Value> = views.iter().map(view).collect();
        self.request(json!({"do": "views", "views": views})).await?;
        Ok(())
    }

    /// Asks both.
    pub(super) async fn ask(&mut self, query: &Query) -> Result<Answers> {
        self.ask_sql(&query.sql(Dialect::Duck), &query.sql(Dialect::Postgres)).await
    }

    /// Asks both, each in its own words.
    pub(super) async fn ask_sql(&mut self, duck: &str, postgres: &str) -> Result<Answers> {
        let sql = json!({"duck": duck, "postgres": postgres});
        let answers = self.request(json!({"do": "ask", "sql": sql})).await?;
        Ok(Answers { duck: answer(&answers["duck"])?, postgres: answer(&answers["postgres"])? })
    }

    /// Lets the engines end.
    pub(super) async fn stop(mut self) -> Result<()> {
        drop(self.input);
        let status = self.child.wait().await?;
        if !status.success() {
            bail!("the references ended with {status}");
        }
        Ok(())
    }
}

fn answer(answer: &Value) -> Result<Result<Rows, String>> {
    if let Some(error) = answer["error"].as_str() {
        return Ok(Err(error.lines().next().unwrap_or_default().to_owned()));
    }
    let rows = answer["rows"].as_array().context("an answer has rows")?;
    let rows: Result<Rows> =
        rows.iter().map(|row| row.as_array().context("a row is an array")?.iter().map(tagged).collect()).collect();
    Ok(Ok(rows?))
}

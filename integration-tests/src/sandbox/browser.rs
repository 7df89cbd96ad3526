//! A real browser without a window, led over WebDriver.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::process::free_port;

/// A tab of Chromium, closed when dropped.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    session: String,
    http: reqwest::Client,
}

impl Browser {
    /// Starts one.
    pub async fn start() -> Result<Self> {
        let port = free_port()?;
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start chromedriver: integration-tests/install.sh installs it")?;
        let url = format!("http://127.0.0.1:{port}");
        let mut browser = Self { driver, session: url.clone(), http: reqwest::Client::new() };
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while !reqwest::get(format!("{url}/status")).await.is_ok_and(|answer| answer.status().is_success()) {
            if std::time::Instant::now() > deadline {
                bail!("chromedriver does not answer");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // In a container there is no sandbox to be had, and little shared memory.
        let arguments = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"];
        let wanted = json!({"browserName": "chrome", "goog:chromeOptions": {"args": arguments}});
        let started = browser.post("/session", &json!({"capabilities": {"alwaysMatch": wanted}})).await?;
        let id = started["sessionId"].as_str().context("the id of a session")?;
        browser.session = format!("{url}/session/{id}");
        Ok(browser)
    }

    /// Opens a page.
    pub async fn open(&self, url: &str) -> Result<()> {
        self.post("/url", &json!({"url": url})).await.map(drop)
    }

    /// Runs the body of a function in the page, and gives what it returns.
    pub async fn run(&self, script: &str) -> Result<Value> {
        self.post("/execute/sync", &json!({"script": script, "args": []})).await
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let answer = self.http.post(format!("{}{path}", self.session)).json(body).send().await?;
        let (status, mut answer): (_, Value) = (answer.status(), answer.json().await?);
        if !status.is_success() {
            bail!("the browser answers {status}: {}", answer["value"]["message"]);
        }
        Ok(answer["value"].take())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Asked to end, the driver ends its browser; killed, it leaves it behind.
        let _ = Command::new("kill").args(["-TERM", &self.driver.id().to_string()]).status();
        let _ = self.driver.wait();
    }
}

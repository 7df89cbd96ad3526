//! Queries over HTTP, and how fresh their answers are.

use std::{
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::report::{line, percentiles};

/// So many clients ask at once.
pub const CLIENTS: u64 = 8;

/// Asks one query.
async fn ask(client: &reqwest::Client, url: &str, sql: &str) -> Result<Value> {
    let response = client.post(format!("{url}/v1/sql")).json(&json!({"sql": sql})).send().await?;
    let status = response.status();
    let body = response.json::<Value>().await?;
    ensure!(status.is_success(), "{body}");
    Ok(body)
}

async fn time(client: &reqwest::Client, url: &str, times: u64, sql: impl Fn(u64) -> String) -> Result<Vec<Duration>> {
    for warm in 0..5 {
        ask(client, url, &sql(warm)).await?;
    }
    let mut taken = Vec::new();
    for i in 0..times {
        let began = Instant::now();
        ask(client, url, &sql(i + 5)).await?;
        taken.push(began.elapsed());
    }
    Ok(taken)
}

fn lookup(i: u64) -> String {
    format!("SELECT * FROM a WHERE product_id = {}", i * 48_611 % 1_000_000)
}

/// The three kinds of query over view A.
pub async fn measure(url: &str, touched: &str) -> Result<()> {
    let client = reqwest::Client::new();
    let mut lookups = time(&client, url, 300, lookup).await?;
    line(&format!("key lookup, {touched} touched"), &percentiles(&mut lookups), "p50 2 ms");
    let top = "SELECT product_id, amount FROM a ORDER BY amount DESC, product_id LIMIT 10";
    let mut tops = time(&client, url, 30, |_| top.to_owned()).await?;
    line(&format!("top 10, {touched} touched"), &percentiles(&mut tops), "50 ms");
    let mut sums = time(&client, url, 30, |_| "SELECT sum(amount), sum(orders) FROM a".to_owned()).await?;
    line(&format!("sum, {touched} touched"), &percentiles(&mut sums), "");
    Ok(())
}

/// How many key lookups a second several clients at once get from servers that they share.
pub async fn throughput(urls: &[&str]) -> Result<u64> {
    let (asked, mut clients) = (Arc::new(AtomicU64::new(0)), JoinSet::new());
    let time = Duration::from_secs(5);
    let began = Instant::now();
    for (client, url) in (0..CLIENTS).zip(urls.iter().cycle()) {
        let (url, asked) = ((*url).to_owned(), asked.clone());
        clients.spawn(async move {
            let http = reqwest::Client::new();
            let mut i = client * 1000;
            while began.elapsed() < time {
                ask(&http, &url, &lookup(i)).await?;
                asked.fetch_add(1, Ordering::Relaxed);
                i += 1;
            }
            Ok::<(), anyhow::Error>(())
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    Ok(asked.load(Ordering::Relaxed) / time.as_secs())
}

/// Sends one event for each of so many products.
pub async fn touch(url: &str, products: std::ops::Range<u64>) -> Result<()> {
    let client = reqwest::Client::new();
    let products: Vec<u64> = products.collect();
    for some in products.chunks(5000) {
        let mut body = String::new();
        for i in some {
            writeln!(body, "{}", event(i * 7919 % 1_000_000))?;
        }
        send(&client, url, body).await?;
    }
    Ok(())
}

fn event(product: u64) -> Value {
    json!({
        "order_id": 1, "product_id": product, "customer_id": "c1", "store": 1, "quantity": 1, "amount": "1.00",
        "created_at": "2026-10-30T00:00:00Z",
    })
}

async fn send(client: &reqwest::Client, url: &str, body: String) -> Result<Value> {
    let request = client.post(format!("{url}/v1/datasets/sales/events")).header("content-type", "application/x-ndjson");
    let response = request.body(body).send().await?;
    let status = response.status();
    let body = response.json::<Value>().await?;
    ensure!(status.is_success(), "{body}");
    Ok(body)
}

/// What goes on beside the events whose freshness is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside<'a> {
    /// Nothing.
    Nothing,
    /// So many events a second, straight into Kafka at the brokers.
    Load(&'a str, u64),
    /// The same, and recomputes one after the other.
    LoadAndRecomputes(&'a str, u64),
}

/// From sending an event over HTTP to an answer that has it in.
pub async fn freshness(url: &str, name: &str, beside: Beside<'_>, aim: &str) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let (fed, recomputed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut tasks = JoinSet::new();
    if let Beside::Load(brokers, rate) | Beside::LoadAndRecomputes(brokers, rate) = beside {
        let (brokers, stop, fed) = (brokers.to_owned(), stop.clone(), fed.clone());
        tasks.spawn_blocking(move || super::ingest::feed(&brokers, rate, &stop, &fed));
    }
    if let Beside::LoadAndRecomputes(..) = beside {
        let (url, stop, recomputed) = (url.to_owned(), stop.clone(), recomputed.clone());
        tasks.spawn(async move { recompute_again_and_again(&url, &stop, &recomputed).await });
    }
    if beside != Beside::Nothing {
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let client = reqwest::Client::new();
    let mut taken = Vec::new();
    let (began, fed_before) = (Instant::now(), fed.load(Ordering::Relaxed));
    while began.elapsed() < Duration::from_secs(15) {
        let sending = Instant::now();
        let sent = send(&client, url, event(7).to_string()).await?;
        let body = json!({"sql": "SELECT orders FROM a WHERE product_id = 7", "min_position": sent["frontier"]});
        let response = client.post(format!("{url}/v1/sql")).json(&body).send().await?;
        ensure!(response.status().is_success(), "{}", response.text().await?);
        response.bytes().await?;
        taken.push(sending.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let time = began.elapsed();
    #[allow(clippy::cast_precision_loss, reason = "for people to read")]
    let rate = (fed.load(Ordering::Relaxed) - fed_before) as f64 / time.as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    if beside != Beside::Nothing {
        let recomputes = recomputed.load(Ordering::Relaxed);
        line("  beside the next line", &format!("{rate:.0} events/s, {recomputes} recomputes"), "");
    }
    line(name, &percentiles(&mut taken), aim);
    Ok(())
}

async fn recompute_again_and_again(url: &str, stop: &AtomicBool, recomputed: &AtomicU64) -> Result<()> {
    let client = reqwest::Client::new();
    for view in ["a", "b", "c"].iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let response = client.post(format!("{url}/v1/views/{view}/recompute")).send().await?;
        let job: Value = response.json().await?;
        let Some(id) = job["id"].as_str() else { continue };
        let job = loop {
            let job: Value = client.get(format!("{url}/v1/jobs/{id}")).send().await?.json().await?;
            if job["state"] == "succeeded" || job["state"] == "failed" {
                break job;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        ensure!(job["state"] == "succeeded", "{job}");
        recomputed.fetch_add(u64::from(!job["batch_version"].is_null()), Ordering::Relaxed);
    }
    Ok(())
}

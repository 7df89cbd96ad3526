//! `lamina demo`: everything in one process, with a stream of made-up sales.

use std::{
    convert::Infallible,
    io::{IsTerminal, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use common::{
    clock::{Clock, System},
    log::{Log, NewRecord},
    supervisor::Supervisor,
};

use crate::assembly::Running;

mod generator;

use generator::Generator;

const SALES: &str = include_str!("../../examples/sales/sales.sql");
const TICK: Duration = Duration::from_millis(50);
const PARTITIONS: i32 = 4;

/// The example's catalog.
pub fn files() -> Vec<(String, String)> {
    vec![("sales.sql".to_owned(), SALES.to_owned())]
}

/// Prints sales, one a line: each time the same ones, five minutes apart.
pub fn print(count: u64, out: &mut impl Write) -> anyhow::Result<()> {
    // The start of 2026.
    const FIRST_MS: i64 = 1_767_225_600_000;
    const APART_MS: i64 = 300_000;
    let mut generator = Generator::new(0);
    for (_, number) in (0..count).zip(0_i64..) {
        out.write_all(&generator.sale(FIRST_MS + number * APART_MS))?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// Standard error, with the status line that stands there wiped out before each line of the log.
pub fn above_status_line() -> impl Write {
    let mut err = std::io::stderr();
    // What cannot be written here cannot be told either.
    let _ = err.write_all(b"\r\x1b[2K");
    err
}

/// Sends `rate` sales a second to the log, until told to stop. Gives the count of what has been sent.
pub fn stream(log: Arc<dyn Log>, rate: u64, supervisor: &Supervisor) -> Arc<AtomicU64> {
    let sent = Arc::new(AtomicU64::new(0));
    let count = sent.clone();
    let cancelled = supervisor.cancelled();
    supervisor.spawn("stream of sales", async move {
        tokio::select! {
            () = cancelled.cancelled() => {}
            () = send(log, rate, &count) => {}
        }
        Ok::<(), Infallible>(())
    });
    sent
}

async fn send(log: Arc<dyn Log>, rate: u64, sent: &AtomicU64) {
    let clock = System;
    // Each run sells something else: the seed is the time.
    let mut generator = Generator::new(clock.now_us().unsigned_abs());
    let mut tick = tokio::time::interval(TICK);
    let mut owed = 0.0;
    let mut partition = 0;
    loop {
        tick.tick().await;
        #[allow(clippy::cast_precision_loss, reason = "a rate")]
        {
            owed += rate as f64 * TICK.as_secs_f64();
        }
        let mut records = Vec::new();
        while owed >= 1.0 {
            owed -= 1.0;
            records.push(NewRecord { key: None, value: Some(generator.sale(clock.now_ms()).into()) });
        }
        if records.is_empty() {
            continue;
        }
        partition = (partition + 1) % PARTITIONS;
        match log.append("sales", partition, records).await {
            Ok(offsets) => {
                sent.fetch_add(offsets.len() as u64, Ordering::Relaxed);
            }
            Err(error) => tracing::warn!("the stream of sales could not be written: {}", common::fault::chain(&error)),
        }
    }
}

/// What a newcomer sees first.
pub fn welcome(running: &Running, out: &mut impl Write) -> std::io::Result<()> {
    let at = running.address;
    writeln!(out, "Lamina answers at http://{at}/ (a page to look at). Try, in another terminal:\n")?;
    writeln!(out, "  curl 'http://{at}/v1/views/daily_sales/rows?limit=3'")?;
    writeln!(
        out,
        "  curl -d '{{\"sql\": \"SELECT product_id, total_amount FROM product_sales ORDER BY total_amount DESC LIMIT 5\"}}' \
         -H 'content-type: application/json' http://{at}/v1/sql"
    )?;
    writeln!(
        out,
        "  curl -d '{{\"order_id\": 1, \"product_id\": 7, \"store\": 3, \"quantity\": 2, \"amount\": 19.90, \"created_at\": \
         \"2026-01-03T17:05:00Z\"}}' -H 'content-type: application/json' http://{at}/v1/datasets/sales/events"
    )?;
    writeln!(out, "\nCtrl-C stops; started again it goes on where it was.\n")
}

/// Keeps a line up to date that says how everything stands.
pub fn status_line(running: &Running, sent: Arc<AtomicU64>, supervisor: &Supervisor) {
    let current = running.current.clone();
    let cancelled = supervisor.cancelled();
    supervisor.spawn("status line", async move {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        let in_place = std::io::stderr().is_terminal();
        let mut seconds = 0_u64;
        loop {
            tokio::select! {
                () = cancelled.cancelled() => break,
                _ = tick.tick() => {}
            }
            seconds += 1;
            if !in_place && !seconds.is_multiple_of(10) {
                continue;
            }
            let line = line(&current.context().engine, sent.load(Ordering::Relaxed)).await;
            let mut out = std::io::stderr().lock();
            let written = match in_place {
                true => write!(out, "\r\x1b[2K{line}").and_then(|()| out.flush()),
                false => writeln!(out, "{line}"),
            };
            if written.is_err() {
                break;
            }
        }
        Ok::<(), Infallible>(())
    });
}

async fn line(engine: &serving_layer::engine::Engine, sent: u64) -> String {
    let sum = |frontier: &common::position::Frontier| frontier.iter().map(|(_, next)| next).sum::<i64>();
    let views = engine.views(&common::access::Scope::default()).await.unwrap_or_default();
    let Some(view) = views.iter().find(|view| view.name == "daily_sales") else { return String::new() };
    let answer =
        engine.sql("SELECT sum(orders) AS n FROM daily_sales", &serving_layer::engine::Options::default()).await;
    let freshness = match answer {
        Ok(answer) => answer.stamp.freshness_ms.map_or("unknown".to_owned(), |ms| format!("{ms} ms")),
        Err(error) => common::fault::chain(&error),
    };
    format!(
        "events in {sent} | head {} | cut {} | batch version {} | freshness {freshness}",
        view.head.as_ref().map_or("not ready".to_owned(), |head| sum(head).to_string()),
        sum(&view.cut),
        view.batch_version.map_or("none yet".to_owned(), |version| version.to_string()),
    )
}

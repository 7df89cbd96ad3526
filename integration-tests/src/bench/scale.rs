//! The layers apart: ingest with one worker of the speed layer and with two, queries with one serving replica and with
//! two. On one machine they share its processors, so what this shows is what it costs to be apart.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::Value;
use tokio::task::JoinSet;

use super::{
    queries::{ask, lookup},
    report::{line, rate},
};
use crate::sandbox::process::{Program, free_port};

const CLIENTS: u64 = 8;

/// Processes on one store.
struct Apart {
    batch: Program,
    workers: Vec<Program>,
    replicas: Vec<Program>,
}

impl Apart {
    async fn start(folder: &Path, catalog: &str, brokers: &str, workers: usize, replicas: usize) -> Result<Self> {
        std::fs::create_dir_all(folder.join("store"))?;
        let output = folder.join("output");
        let (batch_port, mut ports) = (free_port()?, Vec::new());
        for _ in 0..workers {
            ports.push(free_port()?);
        }
        let speed: Vec<String> = ports.iter().map(|port| format!("http://127.0.0.1:{port}")).collect();
        let file = folder.join("lamina.toml");
        let settings = format!(
            "catalog = '{catalog}'\ndata = '{0}'\n[log]\nkafka = '{brokers}'\n[store]\nurl = 'file://{0}/store'\n\
             [serving]\nspeed = '{1}'\nbatch = 'http://127.0.0.1:{batch_port}'\n[speed]\ngroup = '{2}'\n",
            folder.display(),
            speed.join(","),
            folder.file_name().unwrap_or_default().to_string_lossy(),
        );
        std::fs::write(&file, settings)?;
        let settings = ["--settings", &file.display().to_string()].map(str::to_owned);
        let arguments: Vec<&str> = settings.iter().map(String::as_str).collect();
        let start = |name: &str, port: u16| Program::start(name, port, &arguments, &output);
        let mut apart = Self { batch: start("batch-layer", batch_port)?, workers: Vec::new(), replicas: Vec::new() };
        for port in ports {
            apart.workers.push(start("speed-layer", port)?);
        }
        for _ in 0..replicas {
            apart.replicas.push(start("serving-layer", free_port()?)?);
        }
        for program in apart.replicas.iter_mut() {
            program.answers(&output).await?;
        }
        Ok(apart)
    }

    fn cpu(&self) -> Result<Duration> {
        let mut cpu = self.batch.cpu()?;
        for program in self.workers.iter().chain(&self.replicas) {
            cpu += program.cpu()?;
        }
        Ok(cpu)
    }

    /// Waits until everything is archived and every view's head has come to the log's end.
    async fn wait(&self, events: u64) -> Result<()> {
        let url = &self.replicas[0].url;
        let deadline = Instant::now() + Duration::from_secs(300);
        loop {
            let dataset: Value = reqwest::get(format!("{url}/v1/datasets/sales")).await?.json().await?;
            let views: Value = reqwest::get(format!("{url}/v1/views")).await?.json().await?;
            let heads = views["views"]
                .as_array()
                .is_some_and(|views| views.iter().all(|view| view["head"] == dataset["log"]["end"]));
            if dataset["events"].as_u64() >= Some(events) && heads {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{dataset} {views}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn lookups(&self) -> Result<u64> {
        let (asked, mut clients) = (Arc::new(AtomicU64::new(0)), JoinSet::new());
        let time = Duration::from_secs(5);
        let began = Instant::now();
        for client in 0..CLIENTS {
            let replica = usize::try_from(client)? % self.replicas.len();
            let (url, asked) = (self.replicas[replica].url.clone(), asked.clone());
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
}

/// Measures one and two of each.
pub async fn measure(folder: &Path, catalog: &str, brokers: &str, events: u64) -> Result<()> {
    let mut ingest = BTreeMap::new();
    let mut lookups = BTreeMap::new();
    for count in [1, 2] {
        let began = Instant::now();
        let place = folder.join(format!("apart-{count}"));
        let apart = Apart::start(&place, catalog, brokers, count, 2).await?;
        apart.wait(events).await?;
        let (time, cpu) = (began.elapsed(), apart.cpu()?);
        line(&format!("ingest, speed workers: {count}, events a second"), &rate(events, time), "");
        line(&format!("ingest, speed workers: {count}, events a CPU second"), &rate(events, cpu), "");
        ingest.insert(count, time.as_secs_f64());
        if count == 2 {
            tokio::time::sleep(Duration::from_secs(15)).await;
            let two = apart.lookups().await?;
            let one = Apart { replicas: vec![], batch: apart.batch, workers: apart.workers };
            let mut replicas = apart.replicas;
            replicas.truncate(1);
            let one = Apart { replicas, ..one };
            lookups.insert(1, one.lookups().await?);
            lookups.insert(2, two);
        }
    }
    line("ingest with two workers beside one", &format!("{:.2}x", ingest[&1] / ingest[&2]), "");
    line("key lookups by 8 clients, serving replicas: 1", &format!("{} /s", lookups[&1]), "");
    line("key lookups by 8 clients, serving replicas: 2", &format!("{} /s", lookups[&2]), "");
    Ok(())
}

//! The layers apart: ingest with one worker of the speed layer and with two, queries with one serving replica and with
//! two. On one machine they share its processors, so what this shows is what it costs to be apart.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{
    ingest::wait_archived,
    queries::{CLIENTS, throughput},
    recompute::recompute,
    report::{line, rate},
};
use crate::sandbox::process::{Program, free_port};

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
}

/// Measures one and two of each, over all that the topic has.
pub async fn measure(folder: &Path, catalog: &str, brokers: &str) -> Result<()> {
    let mut times = Vec::new();
    for count in [1, 2] {
        let began = Instant::now();
        let place = folder.join(format!("apart-{count}"));
        let apart = Apart::start(&place, catalog, brokers, count, count).await?;
        let events = wait_archived(&apart.replicas[0].url).await?;
        let (time, cpu) = (began.elapsed(), apart.cpu()?);
        line(&format!("ingest, speed workers: {count}, events a second"), &rate(events, time), "");
        line(&format!("ingest, speed workers: {count}, events a CPU second"), &rate(events, cpu), "");
        times.push(time.as_secs_f64());
        recompute(&apart.replicas[0].url, "a").await?;
        let urls: Vec<&str> = apart.replicas.iter().map(|replica| replica.url.as_str()).collect();
        let lookups = throughput(&urls).await?;
        line(&format!("key lookups by {CLIENTS} clients, serving replicas: {count}"), &format!("{lookups} /s"), "");
    }
    line("ingest with two workers beside one", &format!("{:.2}x", times[0] / times[1]), "");
    Ok(())
}

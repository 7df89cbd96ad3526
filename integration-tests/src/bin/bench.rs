//! The benchmark command. Build everything first, so that the `lamina` beside it is as new:
//! `cargo build --release --workspace --bins && target/release/bench`.

use std::path::Path;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use common::catalog::Catalog;
use integration_tests::{
    bench::{
        build, catalog,
        floors::{self, Floors},
        ingest,
        queries::{self, Beside},
        recompute,
        report::{heading, line, rate},
        scale,
    },
    sandbox::{kafka::Kafka, process::free_port},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures Lamina beside the floors of this machine, in one run.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many events.
    #[arg(long, default_value_t = 3_000_000)]
    events: u64,
    /// Also a clean release build, in an empty target folder: 20 minutes and more on two cores.
    #[arg(long)]
    build: bool,
    /// Only one part of it.
    #[arg(long, conflicts_with = "build")]
    only: Option<Part>,
}

/// Parts that can be measured alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Build,
    Floors,
    Apart,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Arguments { events, build, only } = Arguments::parse();
    let folder = tempfile::tempdir()?;
    let catalog_folder = folder.path().join("catalog");
    let catalog = catalog::write(&catalog_folder)?;
    if build || only == Some(Part::Build) {
        heading("Build");
        build::measure(folder.path())?;
    }
    let mut floors = match only {
        Some(Part::Build) => return Ok(()),
        Some(Part::Apart) => Floors::default(),
        None | Some(Part::Floors) => {
            heading("Floors");
            floors::measure(&catalog, events).await?
        }
    };
    if only == Some(Part::Floors) {
        return Ok(());
    }
    let broker = tokio::task::spawn_blocking(Kafka::start).await??;
    let brokers = broker.brokers();
    create_topic(&brokers).await?;
    let producing = brokers.clone();
    tokio::task::spawn_blocking(move || ingest::produce(&producing, events)).await??;
    if only.is_none() {
        let consuming = brokers.clone();
        floors.consume = tokio::task::spawn_blocking(move || ingest::consume(&consuming, events)).await??;
        line("consume from Kafka, CPU", &rate(events, floors.consume), "");
        line("all, each counted once a layer that does it", &rate(events, floors.sum()), "");
        together(folder.path(), &catalog, &catalog_folder, &brokers, events, &floors).await?;
    }
    heading("The layers apart");
    scale::measure(folder.path(), &catalog_folder.display().to_string(), &brokers).await
}

/// All layers in one process.
async fn together(
    folder: &Path,
    catalog: &Catalog,
    catalog_folder: &Path,
    brokers: &str,
    events: u64,
    floors: &Floors,
) -> Result<()> {
    heading("Ingest: Kafka to the master dataset and three views");
    let data = folder.join("data");
    let (catalog_text, data_text) = (catalog_folder.display().to_string(), data.display().to_string());
    let arguments = ["--catalog", &catalog_text, "--data", &data_text, "--kafka", brokers];
    let (port, output) = (free_port()?, folder.join("output"));
    let (lamina, full_load) = ingest::run(port, &arguments, &output, events, floors).await?;
    let lamina = ingest::rebuild(lamina, port, &arguments, &output).await?;

    heading("Recompute");
    let master = data.join("store/master/sales");
    recompute::measure(&lamina.url, catalog, &master, folder).await?;

    heading("Queries over HTTP on view A");
    queries::measure(&lamina.url, "0%").await?;
    let lookups = queries::throughput(&[&lamina.url]).await?;
    line(&format!("key lookups by {} clients", queries::CLIENTS), &format!("{lookups} /s"), "2000 /s");
    queries::touch(&lamina.url, 0..10_000).await?;
    queries::measure(&lamina.url, "1%").await?;
    queries::touch(&lamina.url, 10_000..100_000).await?;
    queries::measure(&lamina.url, "10%").await?;
    line("memory", &format!("{} MiB", lamina.memory()? >> 20), "");

    heading("Freshness: from sending an event over HTTP to an answer that has it in");
    let half = full_load / 2;
    queries::freshness(&lamina.url, "idle", Beside::Nothing, "p99 20 ms").await?;
    queries::freshness(&lamina.url, "at half of full load", Beside::Load(brokers, half), "p99 100 ms").await?;
    let both = Beside::LoadAndRecomputes(brokers, half);
    queries::freshness(&lamina.url, "and with recomputes running", both, "").await?;
    lamina.kill()
}

async fn create_topic(brokers: &str) -> Result<()> {
    use common::log::Log;
    let settings = std::collections::BTreeMap::new();
    let clock = std::sync::Arc::new(common::clock::System);
    let log = common::log::kafka::Kafka::connect(brokers, &settings, clock).await?;
    log.ensure_topic("sales", 4).await?;
    Ok(())
}

//! The benchmark command. Build everything first, so that the `lamina` beside it is as new:
//! `cargo build --release --workspace --bins && target/release/bench`.

use anyhow::Result;
use clap::Parser;
use integration_tests::{
    bench::{
        catalog, floors, ingest,
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
    /// Only the floors.
    #[arg(long)]
    floors: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Arguments { events, floors: only_floors } = Arguments::parse();
    let folder = tempfile::tempdir()?;
    let catalog_folder = folder.path().join("catalog");
    let catalog = catalog::write(&catalog_folder)?;

    heading("Floors");
    let mut floors = floors::measure(&catalog, events).await?;
    if only_floors {
        return Ok(());
    }
    let broker = tokio::task::spawn_blocking(Kafka::start).await??;
    let brokers = broker.brokers();
    create_topic(&brokers).await?;
    let producing = brokers.clone();
    tokio::task::spawn_blocking(move || ingest::produce(&producing, events)).await??;
    let consuming = brokers.clone();
    floors.consume = tokio::task::spawn_blocking(move || ingest::consume(&consuming, events)).await??;
    line("consume from Kafka, CPU", &rate(events, floors.consume), "");
    line("all, each counted once a layer that does it", &rate(events, floors.sum()), "");

    heading("Ingest: Kafka to the master dataset and three views");
    let data = folder.path().join("data");
    let (catalog_text, data_text) = (catalog_folder.display().to_string(), data.display().to_string());
    let arguments = ["--catalog", &catalog_text, "--data", &data_text, "--kafka", &brokers];
    let (port, output) = (free_port()?, folder.path().join("output"));
    let (lamina, full_load) = ingest::run(port, &arguments, &output, events, &floors).await?;
    let lamina = ingest::rebuild(lamina, port, &arguments, &output).await?;

    heading("Recompute");
    let master = data.join("store/master/sales");
    recompute::measure(&lamina.url, &catalog, &master, folder.path()).await?;

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
    queries::freshness(&lamina.url, "at half of full load", Beside::Load(&brokers, half), "p99 100 ms").await?;
    let both = Beside::LoadAndRecomputes(&brokers, half);
    queries::freshness(&lamina.url, "and with recomputes running", both, "").await?;
    lamina.kill()?;

    heading("The layers apart");
    scale::measure(folder.path(), &catalog_text, &brokers, events).await?;
    Ok(())
}

async fn create_topic(brokers: &str) -> Result<()> {
    use common::log::Log;
    let settings = std::collections::BTreeMap::new();
    let clock = std::sync::Arc::new(common::clock::System);
    let log = common::log::kafka::Kafka::connect(brokers, &settings, clock).await?;
    log.ensure_topic("sales", 4).await?;
    Ok(())
}

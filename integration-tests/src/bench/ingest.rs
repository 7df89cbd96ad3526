//! Ingest end to end: from Kafka into the master dataset and the three views at once.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rdkafka::{
    ClientConfig, ClientContext, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, DefaultProducerContext, DeliveryResult, Producer, ProducerContext, ThreadedProducer},
};
use serde_json::Value;

use super::{
    floors::Floors,
    report::{line, rate},
};
use crate::{
    sandbox::process::{Program, cpu},
    workload::Sales,
};

/// Partitions of the topic.
const PARTITIONS: i32 = 4;

/// How long is waited for the broker while it does nothing: other work on the machine may hold it up.
const PATIENCE: Duration = Duration::from_secs(300);

/// Counts what has come of the records that were sent.
#[derive(Debug, Default)]
struct Deliveries {
    delivered: AtomicU64,
    failed: AtomicU64,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let count = if result.is_ok() { &self.delivered } else { &self.failed };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Creates the topic with the workload in it.
pub fn produce(brokers: &str, events: u64) -> Result<()> {
    let producer: ThreadedProducer<Deliveries> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("linger.ms", "50")
        .set("queue.buffering.max.messages", "1000000")
        .set("message.timeout.ms", PATIENCE.as_millis().to_string())
        .create_with_context(Deliveries::default())?;
    let (mut sales, mut buffer) = (Sales::new(20_261_124, events, 1_000_000), Vec::new());
    for event in 0..events {
        buffer.clear();
        sales.write(&mut buffer);
        let partition = i32::try_from(event / 1000 % 4)? % PARTITIONS;
        let mut record = BaseRecord::<(), [u8]>::to("sales").partition(partition).payload(&buffer);
        loop {
            match producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }
    producer.flush(PATIENCE)?;
    let Deliveries { delivered, failed } = &**producer.context();
    let (delivered, failed) = (delivered.load(Ordering::Relaxed), failed.load(Ordering::Relaxed));
    ensure!(delivered == events, "{delivered} of {events} events were delivered, and {failed} were not");
    Ok(())
}

/// Produces so many events a second until it is told to stop, and counts them.
pub fn feed(brokers: &str, rate: u64, stop: &AtomicBool, fed: &AtomicU64) -> Result<()> {
    let producer: ThreadedProducer<DefaultProducerContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).set("linger.ms", "5").create()?;
    let (mut sales, mut buffer) = (Sales::new(9, 1 << 40, 1_000_000), Vec::new());
    let began = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let due = u64::try_from(began.elapsed().as_micros())? * rate / 1_000_000;
        for event in fed.load(Ordering::Relaxed)..due {
            buffer.clear();
            sales.write(&mut buffer);
            let partition = i32::try_from(event / 100 % 4)? % PARTITIONS;
            let record = BaseRecord::<(), [u8]>::to("sales").partition(partition).payload(&buffer);
            producer.send(record).map_err(|(error, _)| error)?;
            fed.fetch_add(1, Ordering::Relaxed);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    producer.flush(Duration::from_secs(60))?;
    Ok(())
}

/// The floor of consuming: every message of the topic, on one thread, and nothing done with it.
pub fn consume(brokers: &str, events: u64) -> Result<Duration> {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", brokers).set("group.id", "floor").create()?;
    let mut assignment = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        assignment.add_partition_offset("sales", partition, Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;
    let cpu = cpu("self")?;
    let mut seen = 0;
    while seen < events {
        match consumer.poll(PATIENCE) {
            Some(Ok(_)) => seen += 1,
            Some(Err(error)) => return Err(error.into()),
            None => anyhow::bail!("the topic ended after {seen} of {events} events"),
        }
    }
    Ok(self::cpu("self")? - cpu)
}

/// Runs a process over the whole topic and says what it used. Gives how many events a second it took, too.
pub async fn run(port: u16, arguments: &[&str], output: &Path, events: u64, floors: &Floors) -> Result<(Program, u64)> {
    let began = Instant::now();
    let lamina = Program::lamina(port, arguments, output).await?;
    let archived = wait_archived(&lamina.url).await?;
    ensure!(archived == events, "{archived} of {events} events are archived");
    let (time, cpu, memory) = (began.elapsed(), lamina.cpu()?, lamina.memory()?);
    let share = floors.sum().as_secs_f64() / cpu.as_secs_f64() * 100.0;
    line("ingest, events a second", &rate(events, time), "");
    line("ingest, events a CPU second", &rate(events, cpu), "250000");
    line("ingest, share of the floors", &format!("{share:.0}%"), "60%");
    line("memory after ingest", &format!("{} MiB", memory >> 20), "");
    Ok((lamina, events * 1000 / u64::try_from(time.as_millis())?.max(1)))
}

/// Waits until the master dataset and every view's head have come to the log's end. How many events there are.
pub async fn wait_archived(url: &str) -> Result<u64> {
    let deadline = Instant::now() + Duration::from_secs(300);
    loop {
        let dataset: Value = reqwest::get(format!("{url}/v1/datasets/sales")).await?.json().await?;
        let views: Value = reqwest::get(format!("{url}/v1/views")).await?.json().await?;
        let end = &dataset["log"]["end"];
        let heads = views["views"].as_array().context("views")?.iter().all(|view| view["head"] == *end);
        if dataset["master"]["frontier"] == *end && heads {
            return dataset["events"].as_u64().context("events");
        }
        ensure!(Instant::now() < deadline, "the log's end is not reached: {dataset} {views}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// How long a killed process takes until every view can be answered again.
pub async fn rebuild(lamina: Program, port: u16, arguments: &[&str], output: &Path) -> Result<Program> {
    lamina.kill()?;
    let began = Instant::now();
    let lamina = Program::lamina(port, arguments, output).await?;
    let ready = format!("{}/readyz", lamina.url);
    while !reqwest::get(&ready).await?.status().is_success() {
        ensure!(began.elapsed() < Duration::from_secs(120), "it does not become ready");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    line("ready after kill -9, all events in the tail", &format!("{:.2} s", began.elapsed().as_secs_f64()), "5 s");
    Ok(lamina)
}

//! Apache Kafka, through librdkafka.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer},
};

use super::{Bounds, Error, Log, NewRecord, Reader};
use crate::{
    clock::Clock,
    position::{Frontier, Offset, Partition},
};

mod reader;

/// How long the cluster may take to answer when something is asked of it.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait when the producer's queue is full.
const QUEUE_FULL: Duration = Duration::from_millis(5);

/// Settings that decide whether answers are exact: they are Lamina's.
const RESERVED: &[&str] = &[
    "acks",
    "auto.offset.reset",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "isolation.level",
    "metadata.broker.list",
    "request.required.acks",
    "transactional.id",
];

/// A Kafka cluster.
pub struct Kafka {
    brokers: String,
    settings: BTreeMap<String, String>,
    clock: Arc<dyn Clock>,
    producer: FutureProducer,
    admin: Arc<AdminClient<DefaultClientContext>>,
    /// Asks for metadata and ends; it reads nothing.
    asking: Arc<BaseConsumer>,
    /// Topics that are known to be usable, and how many partitions they have.
    topics: Mutex<BTreeMap<String, Partition>>,
}

impl Debug for Kafka {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kafka").field("brokers", &self.brokers).finish_non_exhaustive()
    }
}

impl Kafka {
    /// Connects to `brokers`. `settings` are any of librdkafka's, but for those that are Lamina's own.
    pub async fn connect(
        brokers: &str,
        settings: &BTreeMap<String, String>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        if let Some(name) = settings.keys().find(|name| RESERVED.contains(&name.as_str())) {
            return Err(Error::ReservedSetting { name: name.clone() });
        }
        let failed = |source: KafkaError| Error::Unavailable {
            action: format!("connect to Kafka at `{brokers}`"),
            source: Box::new(source),
        };
        let base = client_config(brokers, settings);
        let mut producing = base.clone();
        producing.set("enable.idempotence", "true").set("acks", "all");
        // Messages wait this long for company: throughput at little cost in freshness.
        producing.set("linger.ms", settings.get("linger.ms").map_or("2", String::as_str));
        let producer: FutureProducer = producing.create().map_err(failed)?;
        let admin = base.create().map_err(failed)?;
        let asking: BaseConsumer = consumer_config(&base).create().map_err(failed)?;
        let kafka = Self {
            brokers: brokers.to_owned(),
            settings: settings.clone(),
            clock,
            producer,
            admin: Arc::new(admin),
            asking: Arc::new(asking),
            topics: Mutex::default(),
        };
        kafka.ask("reach", |asking| asking.fetch_metadata(None, PATIENCE).map(|_| ())).await?;
        Ok(kafka)
    }

    /// Asks the cluster something; the library's call blocks.
    async fn ask<T: Send + 'static>(
        &self,
        action: &str,
        question: impl FnOnce(&BaseConsumer) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, Error> {
        let asking = self.asking.clone();
        let answer = tokio::task::spawn_blocking(move || question(&asking)).await;
        let action = || format!("{action} Kafka at `{}` within {} s", self.brokers, PATIENCE.as_secs());
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Error::Unavailable { action: action(), source: Box::new(error) }),
            Err(error) => Err(Error::Unavailable { action: action(), source: Box::new(error) }),
        }
    }

    /// How many partitions a topic has; `None` when there is no such topic.
    async fn partitions(&self, topic: &str) -> Result<Option<Partition>, Error> {
        let name = topic.to_owned();
        self.ask("ask for topics of", move |asking| {
            let metadata = asking.fetch_metadata(Some(&name), PATIENCE)?;
            let topic = metadata.topics().iter().find(|topic| topic.name() == name && topic.error().is_none());
            Ok(topic.map(|topic| Partition::try_from(topic.partitions().len()).unwrap_or(Partition::MAX)))
        })
        .await
        .map(|partitions| partitions.filter(|&partitions| partitions > 0))
    }

    async fn create(&self, topic: &str, partitions: Partition) -> Result<(), Error> {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        let created = self.admin.create_topics([&new], &options).await;
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Unavailable {
            action: format!("create topic `{topic}` in Kafka at `{}`", self.brokers),
            source,
        };
        match created.map_err(|error| failed(error.into()))?.first() {
            Some(Ok(_)) | Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) | None => Ok(()),
            Some(Err((_, code))) => Err(failed(code.to_string().into())),
        }
    }

    /// A compacted topic forgets events.
    async fn refuse_compacted(&self, topic: &str) -> Result<(), Error> {
        let options = AdminOptions::new().request_timeout(Some(PATIENCE));
        let described = self.admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options).await;
        let described = described.map_err(|error| Error::Unavailable {
            action: format!("ask for the settings of topic `{topic}`"),
            source: Box::new(error),
        })?;
        let policy = described.iter().flatten().find_map(|resource| {
            let entry = resource.entries.iter().find(|entry| entry.name == "cleanup.policy")?;
            entry.value.clone()
        });
        match policy {
            Some(policy) if policy.contains("compact") => Err(Error::Compacted { topic: topic.to_owned() }),
            _ => Ok(()),
        }
    }

    fn known(&self, topic: &str) -> Option<Partition> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).get(topic).copied()
    }
}

fn client_config(brokers: &str, settings: &BTreeMap<String, String>) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("client.id", "lamina");
    for (name, value) in settings {
        config.set(name, value);
    }
    config
}

fn consumer_config(base: &ClientConfig) -> ClientConfig {
    let mut config = base.clone();
    config
        // Partitions are assigned, never subscribed to; the library wants a name all the same.
        .set("group.id", "lamina")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .set("allow.auto.create.topics", "false");
    config
}

/// First readable and next offset of every partition, as a reader of committed records sees them.
fn query_bounds(asking: &BaseConsumer, topic: &str, partitions: Partition) -> Result<Bounds, KafkaError> {
    let mut bounds = Bounds::default();
    for partition in 0..partitions {
        let (start, end) = asking.fetch_watermarks(topic, partition, PATIENCE)?;
        bounds.start.set(partition, start);
        bounds.end.set(partition, end);
    }
    Ok(bounds)
}

#[async_trait]
impl Log for Kafka {
    async fn ensure_topic(&self, topic: &str, partitions: Partition) -> Result<Partition, Error> {
        if let Some(known) = self.known(topic) {
            return Ok(known);
        }
        let mut found = self.partitions(topic).await?;
        if found.is_none() {
            self.create(topic, partitions).await?;
            let deadline = tokio::time::Instant::now() + PATIENCE;
            while found.is_none() {
                if tokio::time::Instant::now() > deadline {
                    return Err(Error::UnknownTopic { topic: topic.to_owned() });
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
                found = self.partitions(topic).await?;
            }
        }
        self.refuse_compacted(topic).await?;
        let count = found.unwrap_or(partitions);
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).insert(topic.to_owned(), count);
        Ok(count)
    }

    async fn bounds(&self, topic: &str) -> Result<Bounds, Error> {
        let partitions = match self.known(topic) {
            Some(known) => known,
            None => {
                let found = self.partitions(topic).await?;
                found.ok_or_else(|| Error::UnknownTopic { topic: topic.to_owned() })?
            }
        };
        let name = topic.to_owned();
        self.ask("ask for the ends of a topic of", move |asking| query_bounds(asking, &name, partitions)).await
    }

    async fn append(&self, topic: &str, partition: Partition, records: Vec<NewRecord>) -> Result<Vec<Offset>, Error> {
        let total = records.len();
        let mut sent: Vec<DeliveryFuture> = Vec::with_capacity(total);
        let mut failure: Option<KafkaError> = None;
        for record in &records {
            match self.send(topic, partition, record).await {
                Ok(delivery) => sent.push(delivery),
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        let mut offsets = Vec::with_capacity(total);
        for delivery in sent {
            match delivery.await {
                Ok(Ok(delivery)) => offsets.push(delivery.offset),
                Ok(Err((error, _))) => failure = failure.or(Some(error)),
                Err(_) => failure = failure.or(Some(KafkaError::Canceled)),
            }
        }
        match failure {
            None => Ok(offsets),
            Some(error) => Err(Error::Append {
                topic: topic.to_owned(),
                partition,
                written: offsets.len(),
                offsets,
                total,
                source: Box::new(error),
            }),
        }
    }

    async fn reader(&self, topic: &str, from: &Frontier) -> Result<Box<dyn Reader>, Error> {
        let bounds = self.bounds(topic).await?;
        reader::check(topic, from, &bounds)?;
        let config = consumer_config(&client_config(&self.brokers, &self.settings));
        let opened = reader::KafkaReader::open(&config, topic, from, &bounds, self.asking.clone(), self.clock.clone());
        Ok(Box::new(opened.map_err(|error| Error::Unavailable {
            action: format!("read topic `{topic}` from Kafka at `{}`", self.brokers),
            source: Box::new(error),
        })?))
    }
}

impl Kafka {
    /// Hands a record to the producer, which sends it when it sees fit.
    async fn send(&self, topic: &str, partition: Partition, record: &NewRecord) -> Result<DeliveryFuture, KafkaError> {
        let mut message: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(topic).partition(partition);
        if let Some(key) = &record.key {
            message = message.key(key.as_ref());
        }
        if let Some(value) = &record.value {
            message = message.payload(value.as_ref());
        }
        loop {
            match self.producer.send_result(message) {
                Ok(delivery) => return Ok(delivery),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    message = back;
                    tokio::time::sleep(QUEUE_FULL).await;
                }
                Err((error, _)) => return Err(error),
            }
        }
    }
}

impl Drop for Kafka {
    /// What is still on its way is waited for, but not for long.
    fn drop(&mut self) {
        let _ = self.producer.flush(Duration::from_secs(1));
    }
}

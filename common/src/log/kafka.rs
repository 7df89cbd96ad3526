//! Apache Kafka, through librdkafka.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use async_trait::async_trait;
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer},
};

use self::client::{Complaint, Listener, Settings};
use super::{Bounds, Error, Log, NewRecord, Reader, RecordLimit};
use crate::{
    clock::Clock,
    position::{Frontier, Offset, Partition},
};

mod client;
mod ends;
mod group;
mod reader;

/// How long the cluster may take to answer when something is asked of it.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to hear what the library has to say of a question that failed.
const LISTEN: Duration = Duration::from_millis(20);
/// How long to wait when the producer's queue is full.
const QUEUE_FULL: Duration = Duration::from_millis(5);

/// A Kafka cluster.
pub struct Kafka {
    brokers: String,
    settings: Settings,
    clock: Arc<dyn Clock>,
    producer: RwLock<FutureProducer<Listener>>,
    /// Whether topics that are not there are created.
    creates_topics: bool,
    /// Asks for metadata and ends; it reads nothing.
    asking: Arc<BaseConsumer<Listener>>,
    /// Asks for the ends of what is written, open transactions included.
    asking_all: Arc<BaseConsumer<Listener>>,
    /// Topics that are known to be usable, and how many partitions they have.
    topics: Mutex<BTreeMap<String, Partition>>,
    /// How large a record of each topic may be.
    limits: Mutex<BTreeMap<String, RecordLimit>>,
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
        let settings = Settings::new(brokers, settings)?;
        let failed = |source: KafkaError| Error::Unavailable {
            action: format!("connect to Kafka at `{brokers}`"),
            source: Box::new(source),
        };
        let client = |config| BaseConsumer::from_config_and_context(&config, Listener::default()).map(Arc::new);
        let kafka = Self {
            brokers: brokers.to_owned(),
            producer: RwLock::new(new_producer(&settings).map_err(failed)?),
            asking: client(settings.consumer()).map_err(failed)?,
            asking_all: client(settings.uncommitted()).map_err(failed)?,
            settings,
            clock,
            creates_topics: true,
            topics: Mutex::default(),
            limits: Mutex::default(),
        };
        kafka.ask("reach", |asking| asking.fetch_metadata(None, PATIENCE).map(|_| ())).await?;
        Ok(kafka)
    }

    /// Creates topics that are not there, or refuses them.
    #[must_use]
    pub fn creating_topics(mut self, creates_topics: bool) -> Self {
        self.creates_topics = creates_topics;
        self
    }

    /// Asks the cluster something; the library's call blocks.
    async fn ask<T: Send + 'static>(
        &self,
        action: &str,
        question: impl FnOnce(&BaseConsumer<Listener>) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, Error> {
        let asking = self.asking.clone();
        let answer = tokio::task::spawn_blocking(move || {
            ends::listen(&asking, Duration::ZERO);
            let _ = asking.context().complaint();
            question(&asking).map_err(|error| {
                // What the library has complained of in the meantime says why.
                ends::listen(&asking, LISTEN);
                (error, asking.context().complaint())
            })
        });
        let source: Box<dyn std::error::Error + Send + Sync> = match answer.await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err((source, Some(complaint)))) => Box::new(Complaint { complaint, source }),
            Ok(Err((source, None))) => Box::new(source),
            Err(panic) => Box::new(panic),
        };
        let action = format!("{action} Kafka at `{}` within {} s", self.brokers, PATIENCE.as_secs());
        Err(Error::Unavailable { action, source })
    }

    /// How many partitions a topic has; `None` when there is no such topic.
    async fn partitions(&self, topic: &str) -> Result<Option<Partition>, Error> {
        let name = topic.to_owned();
        self.ask("ask for topics of", move |asking| ends::count(asking, &name)).await
    }

    /// How many partitions a topic has that must be there.
    async fn existing(&self, topic: &str) -> Result<Partition, Error> {
        match self.known(topic) {
            Some(known) => Ok(known),
            None => self.partitions(topic).await?.ok_or_else(|| Error::UnknownTopic { topic: topic.to_owned() }),
        }
    }

    /// For the few times that topics are managed.
    fn admin(&self) -> Result<AdminClient<DefaultClientContext>, Error> {
        self.settings.base().create().map_err(|source| Error::Unavailable {
            action: format!("connect to Kafka at `{}`", self.brokers),
            source: Box::new(source),
        })
    }

    async fn create(&self, topic: &str, partitions: Partition) -> Result<Partition, Error> {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE));
        let created = self.admin()?.create_topics([&new], &options).await;
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Unavailable {
            action: format!("create topic `{topic}` in Kafka at `{}`", self.brokers),
            source,
        };
        match created.map_err(|error| failed(error.into()))?.first() {
            Some(Ok(_)) | Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) | None => {}
            Some(Err((_, code))) => return Err(failed(code.to_string().into())),
        }
        // All brokers have to hear of it, and leaders to be chosen.
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let found = self.partitions(topic).await;
            if let Ok(Some(count)) = found {
                return Ok(count);
            }
            if tokio::time::Instant::now() > deadline {
                return Err(found.err().unwrap_or_else(|| Error::UnknownTopic { topic: topic.to_owned() }));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Asks for a topic's settings. A compacted topic forgets events, and is refused; one whose settings cannot be asked
    /// for may be one. How large its records may be is noted.
    async fn look_at(&self, topic: &str) -> Result<(), Error> {
        let failed = |source: KafkaError| Error::Unavailable {
            action: format!(
                "ask whether topic `{topic}` is compacted (Lamina must be allowed to describe its settings)"
            ),
            source: Box::new(source),
        };
        let options = AdminOptions::new().request_timeout(Some(PATIENCE));
        let described = self.admin()?.describe_configs([&ResourceSpecifier::Topic(topic)], &options).await;
        for resource in described.map_err(failed)? {
            let resource = resource.map_err(|code| failed(KafkaError::AdminOp(code)))?;
            let policy = resource.get("cleanup.policy").and_then(|entry| entry.value.as_deref());
            if policy.is_some_and(|policy| policy.contains("compact")) {
                return Err(Error::Compacted { topic: topic.to_owned() });
            }
            let bytes_max = resource.get("max.message.bytes").and_then(|entry| entry.value.as_deref()?.parse().ok());
            let limit = self.settings.record_limit(topic, bytes_max);
            self.limits.lock().unwrap_or_else(PoisonError::into_inner).insert(topic.to_owned(), limit);
        }
        Ok(())
    }

    fn limit(&self, topic: &str, bytes: usize) -> Option<RecordLimit> {
        let limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        limits.get(topic).filter(|limit| bytes > limit.bytes).cloned()
    }

    fn known(&self, topic: &str) -> Option<Partition> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).get(topic).copied()
    }

    /// A producer that works: one that the library has given up is replaced.
    fn producer(&self) -> Result<FutureProducer<Listener>, KafkaError> {
        let current = self.producer.read().unwrap_or_else(PoisonError::into_inner).clone();
        if current.client().fatal_error().is_none() {
            return Ok(current);
        }
        let mut slot = self.producer.write().unwrap_or_else(PoisonError::into_inner);
        if let Some((code, reason)) = slot.client().fatal_error() {
            tracing::warn!("kafka producer: {code}: {reason}; going on with a new one");
            *slot = new_producer(&self.settings)?;
        }
        Ok(slot.clone())
    }
}

fn new_producer(settings: &Settings) -> Result<FutureProducer<Listener>, KafkaError> {
    FutureProducer::from_config_and_context(&settings.producer(), Listener::default())
}

#[async_trait]
impl Log for Kafka {
    async fn ensure_topic(&self, topic: &str, partitions: Partition) -> Result<Partition, Error> {
        if let Some(known) = self.known(topic) {
            return Ok(known);
        }
        let count = match self.partitions(topic).await? {
            Some(count) => count,
            None if self.creates_topics => {
                let count = self.create(topic, partitions.max(1)).await?;
                tracing::info!(topic, partitions = count, "created the topic, as it was not there");
                count
            }
            None => return Err(Error::NotCreated { topic: topic.to_owned() }),
        };
        self.look_at(topic).await?;
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).insert(topic.to_owned(), count);
        Ok(count)
    }

    async fn bounds(&self, topic: &str) -> Result<Bounds, Error> {
        let partitions = self.existing(topic).await?;
        let name = topic.to_owned();
        self.ask("ask for the ends of a topic of", move |asking| ends::bounds(asking, &name, partitions)).await
    }

    async fn refuses(&self, topic: &str, bytes: usize) -> Result<Option<RecordLimit>, Error> {
        if self.limit(topic, bytes).is_none() {
            return Ok(None);
        }
        // It may have been raised since it was noted.
        self.look_at(topic).await?;
        Ok(self.limit(topic, bytes))
    }

    async fn append(&self, topic: &str, partition: Partition, records: Vec<NewRecord>) -> Result<Vec<Offset>, Error> {
        let partitions = self.existing(topic).await?;
        if !(0..partitions).contains(&partition) {
            return Err(Error::Unavailable {
                action: format!("write to `{topic}` partition {partition}"),
                source: format!("the topic has {partitions} partitions").into(),
            });
        }
        let total = records.len();
        let mut offsets = Vec::with_capacity(total);
        let failure = match self.producer() {
            Ok(producer) => send_all(&producer, topic, partition, &records, &mut offsets).await.err(),
            Err(error) => Some(error),
        };
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

    async fn reader(
        &self,
        topic: &str,
        from: &Frontier,
        only: Option<&BTreeSet<Partition>>,
    ) -> Result<Box<dyn Reader>, Error> {
        let bounds = self.bounds(topic).await?;
        bounds.check(topic, from, only)?;
        let read = bounds.end.partitions().filter(|partition| only.is_none_or(|only| only.contains(partition)));
        let from = read.map(|partition| (partition, from.get(partition))).collect();
        let partitions = Partition::try_from(bounds.end.partitions().count()).unwrap_or(Partition::MAX);
        let (config, clock) = (self.settings.consumer(), self.clock.clone());
        let asking = reader::Asking { committed: self.asking.clone(), all: self.asking_all.clone() };
        let opened = reader::KafkaReader::open(&config, topic, &from, partitions, asking, clock);
        Ok(Box::new(opened.map_err(|error| Error::Unavailable {
            action: format!("read topic `{topic}` from Kafka at `{}`", self.brokers),
            source: Box::new(error),
        })?))
    }
}

/// Sends records in order, as many at once as the producer takes, and waits for all that it took. `offsets` are those
/// of the records that are known to be durable; the error is the first one.
async fn send_all(
    producer: &FutureProducer<Listener>,
    topic: &str,
    partition: Partition,
    records: &[NewRecord],
    offsets: &mut Vec<Offset>,
) -> Result<(), KafkaError> {
    let mut sent: Vec<DeliveryFuture> = Vec::with_capacity(records.len());
    let mut outcome = Ok(());
    for record in records {
        match send(producer, topic, partition, record).await {
            Ok(delivery) => sent.push(delivery),
            Err(error) => {
                outcome = Err(error);
                break;
            }
        }
    }
    for delivery in sent {
        match delivery.await {
            Ok(Ok(delivery)) => offsets.push(delivery.offset),
            Ok(Err((error, _))) => outcome = outcome.and(Err(error)),
            Err(_) => outcome = outcome.and(Err(KafkaError::Canceled)),
        }
    }
    outcome
}

/// Hands a record to the producer, which sends it when it sees fit.
async fn send(
    producer: &FutureProducer<Listener>,
    topic: &str,
    partition: Partition,
    record: &NewRecord,
) -> Result<DeliveryFuture, KafkaError> {
    let mut message: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(topic).partition(partition);
    if let Some(key) = &record.key {
        message = message.key(key.as_ref());
    }
    if let Some(value) = &record.value {
        message = message.payload(value.as_ref());
    }
    loop {
        match producer.send_result(message) {
            Ok(delivery) => return Ok(delivery),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                message = back;
                tokio::time::sleep(QUEUE_FULL).await;
            }
            Err((error, _)) => return Err(error),
        }
    }
}

impl Drop for Kafka {
    /// What is still on its way is waited for, but not for long.
    fn drop(&mut self) {
        let producer = self.producer.read().unwrap_or_else(PoisonError::into_inner);
        let _ = producer.flush(Duration::from_secs(1));
    }
}

//! A reader: one thread takes messages from librdkafka and hands them over in chunks.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use rdkafka::{
    ClientConfig, Message, Offset as KafkaOffset, TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Timestamp},
};
use tokio::sync::mpsc;

use super::{
    client::Listener,
    ends::{self, Ends, Looking},
};
use crate::{
    clock::Clock,
    log::{Chunk, Error, HeldBack, Reader},
    position::{Frontier, Offset, Partition},
};

/// A handful of chunks is handed over with at most so many records,
const CHUNK_RECORDS: usize = 32_768;
/// or so many bytes, about.
const CHUNK_BYTES: usize = 8 << 20;
/// So many handfuls of chunks may wait to be taken.
const QUEUE: usize = 4;
const POLL: Duration = Duration::from_millis(20);

/// A reader of a topic.
#[derive(Debug)]
pub(super) struct KafkaReader {
    topic: String,
    chunks: mpsc::Receiver<Result<Vec<Chunk>, Error>>,
    /// Came after chunks that had to be given out first.
    failure: Option<Error>,
    has_failed: bool,
    ends: Ends,
    stop: Arc<AtomicBool>,
}

/// The clients that ask for ends.
#[derive(Clone)]
pub(super) struct Asking {
    pub(super) committed: Arc<BaseConsumer<Listener>>,
    pub(super) all: Arc<BaseConsumer<Listener>>,
}

impl KafkaReader {
    /// Opens a reader of the partitions that `from` names, of a topic that has `partitions`. The log has what follows.
    pub(super) fn open(
        config: &ClientConfig,
        topic: &str,
        from: &Frontier,
        partitions: Partition,
        asking: Asking,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, KafkaError> {
        let consumer = BaseConsumer::from_config_and_context(config, Listener::default())?;
        let mut assignment = TopicPartitionList::new();
        for (partition, at) in from.iter() {
            assignment.add_partition_offset(topic, partition, KafkaOffset::Offset(at))?;
        }
        consumer.assign(&assignment)?;
        let (sender, chunks) = mpsc::channel(QUEUE);
        let (ends, stop) = (Ends::default(), Arc::new(AtomicBool::new(false)));
        let taking = Taking {
            topic: topic.to_owned(),
            consumer,
            asking: asking.committed.clone(),
            partitions,
            places: from.iter().map(|(partition, at)| (partition, Place { at, open: None })).collect(),
            stop: Stop(stop.clone()),
        };
        let looking = Looking {
            topic: topic.to_owned(),
            read: from.partitions().collect(),
            partitions,
            asking,
            clock,
            ends: ends.clone(),
            failures: sender.clone(),
            stop: stop.clone(),
        };
        start("kafka-reader", move || taking.run(&sender))?;
        start("kafka-ends", move || looking.run())?;
        Ok(Self { topic: topic.to_owned(), chunks, failure: None, has_failed: false, ends, stop })
    }
}

fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), KafkaError> {
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    started.map(|_| ()).map_err(|error| KafkaError::ClientCreation(error.to_string()))
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[async_trait]
impl Reader for KafkaReader {
    async fn poll(&mut self, max_records: usize, wait: Duration) -> Result<Vec<Chunk>, Error> {
        let ended = || Error::Unavailable {
            action: format!("read topic `{}`", self.topic),
            source: "its reader has ended: open another".into(),
        };
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        if self.has_failed {
            return Err(ended());
        }
        let mut taken = match tokio::time::timeout(wait, self.chunks.recv()).await {
            Err(_) => return Ok(Vec::new()),
            Ok(Some(Ok(chunks))) => chunks,
            Ok(Some(Err(failure))) => {
                self.has_failed = true;
                return Err(failure);
            }
            Ok(None) => return Err(ended()),
        };
        while taken.iter().map(Chunk::len).sum::<usize>() < max_records {
            match self.chunks.try_recv() {
                Ok(Ok(more)) => taken.extend(more),
                // It waits for its turn: what came before it is good.
                Ok(Err(failure)) => {
                    (self.failure, self.has_failed) = (Some(failure), true);
                    break;
                }
                Err(_) => break,
            }
        }
        Ok(taken)
    }

    fn end_seen(&self) -> Option<(Frontier, i64)> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).end.clone()
    }

    fn held_back(&self) -> HeldBack {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).held_back.clone()
    }

    fn start_seen(&self) -> Option<Frontier> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).start.clone()
    }
}

/// Tells the other thread to end with this one, however it ends.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Takes messages.
struct Taking {
    topic: String,
    consumer: BaseConsumer<Listener>,
    asking: Arc<BaseConsumer<Listener>>,
    /// How many partitions the topic has.
    partitions: Partition,
    places: BTreeMap<Partition, Place>,
    stop: Stop,
}

/// How far a partition has been read.
struct Place {
    /// The next offset that is wanted.
    at: Offset,
    /// What is being filled.
    open: Option<Chunk>,
}

impl Place {
    fn chunk(&mut self, partition: Partition) -> &mut Chunk {
        self.open.get_or_insert_with(|| Chunk::new(partition, self.at))
    }

    /// Adds a message. How many bytes it has.
    fn push(&mut self, message: &BorrowedMessage<'_>) -> usize {
        let (offset, value) = (message.offset(), message.payload());
        if offset < self.at {
            return 0;
        }
        let timestamp_ms = match message.timestamp() {
            Timestamp::CreateTime(ms) | Timestamp::LogAppendTime(ms) => ms,
            Timestamp::NotAvailable => 0,
        };
        self.chunk(message.partition()).push(offset, timestamp_ms, value);
        self.at = offset + 1;
        value.map_or(0, <[u8]>::len)
    }

    /// The library has read up to `end` and has no record between the last one and there: what is in between are
    /// markers, records that were rolled back, or such as compaction took.
    fn pass(&mut self, partition: Partition, end: Offset) {
        if end > self.at {
            self.chunk(partition).next = end;
            self.at = end;
        }
    }
}

impl Taking {
    fn run(mut self, chunks: &mpsc::Sender<Result<Vec<Chunk>, Error>>) {
        while !self.stop.0.load(Ordering::Relaxed) {
            let failure = self.take().err();
            let taken: Vec<Chunk> = self.places.values_mut().filter_map(|place| place.open.take()).collect();
            if !taken.is_empty() && chunks.blocking_send(Ok(taken)).is_err() {
                return;
            }
            if let Some(failure) = failure {
                let _ = chunks.blocking_send(Err(failure));
                return;
            }
        }
    }

    /// Takes what is there, up to a handful; waits a moment when there is nothing.
    fn take(&mut self) -> Result<(), Error> {
        let (mut records, mut bytes, mut wait) = (0, 0, POLL);
        while records < CHUNK_RECORDS && bytes < CHUNK_BYTES {
            let Some(event) = self.consumer.poll(wait) else { break };
            wait = Duration::ZERO;
            match event {
                // The message borrows the consumer: what is needed of it is copied at once.
                Ok(message) => {
                    if let Some(place) = self.places.get_mut(&message.partition()) {
                        bytes += place.push(&message);
                        records += 1;
                    }
                }
                Err(KafkaError::PartitionEOF(partition)) => {
                    let end = self.consumer.context().end();
                    if let (Some(place), Some(end)) = (self.places.get_mut(&partition), end) {
                        place.pass(partition, end);
                    }
                }
                Err(error) => match self.serious(error) {
                    Some(serious) => return Err(serious),
                    // The library tries again by itself.
                    None => break,
                },
            }
        }
        Ok(())
    }

    /// An error that the library does not get over by itself.
    fn serious(&self, error: KafkaError) -> Option<Error> {
        use RDKafkaErrorCode as Code;
        match error.rdkafka_error_code() {
            Some(Code::UnknownTopic | Code::UnknownTopicOrPartition) => {
                return Some(Error::UnknownTopic { topic: self.topic.clone() });
            }
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::UnknownPartition) => {}
            // No setting can make these pass: whoever runs Lamina has to hear of it.
            Some(Code::TopicAuthorizationFailed | Code::Fatal) => return Some(self.unavailable(error)),
            _ => {
                tracing::debug!(topic = self.topic, "kafka reader: {error}");
                return None;
            }
        }
        let at: Frontier = self.places.iter().map(|(&partition, place)| (partition, place.at)).collect();
        let read = at.partitions().collect();
        let known = ends::bounds(&self.asking, &self.topic, self.partitions).ok();
        let outside = known.and_then(|bounds| bounds.check(&self.topic, &at, Some(&read)).err());
        Some(outside.unwrap_or_else(|| self.unavailable(error)))
    }

    fn unavailable(&self, error: KafkaError) -> Error {
        Error::Unavailable { action: format!("read topic `{}`", self.topic), source: Box::new(error) }
    }
}

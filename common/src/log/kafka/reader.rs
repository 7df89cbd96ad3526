//! A reader: one thread takes messages from librdkafka and hands them over in chunks, another looks at the log's ends.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use rdkafka::{
    ClientConfig, Message, Offset as KafkaOffset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::Timestamp,
};
use tokio::sync::mpsc;

use super::{PATIENCE, query_bounds};
use crate::{
    clock::Clock,
    log::{Bounds, Chunk, Error, Reader},
    position::{Frontier, Offset, Partition},
};

/// A chunk is handed over with at most so many records,
const CHUNK_RECORDS: usize = 32_768;
/// or so many bytes.
const CHUNK_BYTES: usize = 8 << 20;
/// So many handfuls of chunks may wait to be taken.
const QUEUE: usize = 4;
/// How often the ends are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const POLL: Duration = Duration::from_millis(20);

/// The log's bounds, and when they were asked for.
type Ends = Arc<Mutex<Option<(Bounds, i64)>>>;

/// A reader of a topic.
#[derive(Debug)]
pub(super) struct KafkaReader {
    topic: String,
    chunks: mpsc::Receiver<Result<Vec<Chunk>, Error>>,
    ends: Ends,
    stop: Arc<AtomicBool>,
}

/// Whether the log still has what follows `from`.
pub(super) fn check(topic: &str, from: &Frontier, bounds: &Bounds) -> Result<(), Error> {
    for (partition, end) in bounds.end.iter() {
        let (wanted, start) = (from.get(partition), bounds.start.get(partition));
        if wanted < start {
            return Err(Error::Expired { topic: topic.to_owned(), partition, wanted, start });
        }
        if wanted > end {
            return Err(Error::Truncated { topic: topic.to_owned(), partition, wanted, end });
        }
    }
    Ok(())
}

impl KafkaReader {
    pub(super) fn open(
        config: &ClientConfig,
        topic: &str,
        from: &Frontier,
        bounds: &Bounds,
        asking: Arc<BaseConsumer>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, KafkaError> {
        let consumer: BaseConsumer = config.create()?;
        let mut assignment = TopicPartitionList::new();
        let mut at = BTreeMap::new();
        for partition in bounds.end.partitions() {
            let offset = from.get(partition);
            at.insert(partition, offset);
            assignment.add_partition_offset(topic, partition, KafkaOffset::Offset(offset))?;
        }
        consumer.assign(&assignment)?;
        let (sender, chunks) = mpsc::channel(QUEUE);
        let (ends, stop): (Ends, _) = (Ends::default(), Arc::new(AtomicBool::new(false)));
        let taking = Taking {
            topic: topic.to_owned(),
            consumer,
            asking: asking.clone(),
            at,
            open: BTreeMap::new(),
            at_end: BTreeSet::new(),
            gaps: BTreeMap::new(),
            looked: Instant::now(),
            ends: ends.clone(),
            stop: stop.clone(),
        };
        let failed = |error: std::io::Error| KafkaError::ClientCreation(error.to_string());
        std::thread::Builder::new()
            .name("kafka-reader".to_owned())
            .spawn(move || taking.run(&sender))
            .map_err(failed)?;
        let looking = Looking {
            topic: topic.to_owned(),
            partitions: Partition::try_from(bounds.end.iter().count()).unwrap_or(Partition::MAX),
            asking,
            clock,
            ends: ends.clone(),
            stop: stop.clone(),
        };
        std::thread::Builder::new().name("kafka-ends".to_owned()).spawn(move || looking.run()).map_err(failed)?;
        Ok(Self { topic: topic.to_owned(), chunks, ends, stop })
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[async_trait]
impl Reader for KafkaReader {
    async fn poll(&mut self, max_records: usize, wait: Duration) -> Result<Vec<Chunk>, Error> {
        let first = match tokio::time::timeout(wait, self.chunks.recv()).await {
            Err(_) => return Ok(Vec::new()),
            Ok(Some(chunks)) => chunks?,
            Ok(None) => {
                return Err(Error::Unavailable {
                    action: format!("read topic `{}`", self.topic),
                    source: "its reader has ended".into(),
                });
            }
        };
        let mut taken = first;
        while taken.iter().map(Chunk::len).sum::<usize>() < max_records {
            // An error waits for its turn: what came before it is good.
            match self.chunks.try_recv() {
                Ok(Ok(more)) => taken.extend(more),
                Ok(Err(error)) => {
                    tracing::warn!("{error}");
                    break;
                }
                Err(_) => break,
            }
        }
        Ok(taken)
    }

    fn end_seen(&self) -> Option<(Frontier, i64)> {
        let seen = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        seen.as_ref().map(|(bounds, asked_us)| (bounds.end.clone(), *asked_us))
    }

    fn start_seen(&self) -> Option<Frontier> {
        let seen = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        seen.as_ref().map(|(bounds, _)| bounds.start.clone())
    }
}

/// Looks at the log's ends.
struct Looking {
    topic: String,
    partitions: Partition,
    asking: Arc<BaseConsumer>,
    clock: Arc<dyn Clock>,
    ends: Ends,
    stop: Arc<AtomicBool>,
}

impl Looking {
    fn run(&self) {
        while !self.stop.load(Ordering::Relaxed) {
            let asked_us = self.clock.now_us();
            // An answer that does not come leaves the last one to get old.
            if let Ok(bounds) = query_bounds(&self.asking, &self.topic, self.partitions) {
                *self.ends.lock().unwrap_or_else(PoisonError::into_inner) = Some((bounds, asked_us));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// Takes messages.
struct Taking {
    topic: String,
    consumer: BaseConsumer,
    asking: Arc<BaseConsumer>,
    /// By partition, the next offset that is wanted.
    at: BTreeMap<Partition, Offset>,
    open: BTreeMap<Partition, Chunk>,
    /// Partitions whose end has been reached.
    at_end: BTreeSet<Partition>,
    /// Partitions that are read once more from where they stand, to see that there is nothing up to an end.
    gaps: BTreeMap<Partition, Offset>,
    looked: Instant,
    ends: Ends,
    stop: Arc<AtomicBool>,
}

impl Taking {
    fn run(mut self, chunks: &mpsc::Sender<Result<Vec<Chunk>, Error>>) {
        while !self.stop.load(Ordering::Relaxed) {
            let taken = match self.take() {
                Ok(taken) if taken.is_empty() => {
                    self.look_for_gaps();
                    continue;
                }
                taken => taken,
            };
            let failed = taken.is_err();
            if chunks.blocking_send(taken).is_err() || failed {
                return;
            }
        }
    }

    /// What is there now, up to a handful; waits a moment when there is nothing.
    fn take(&mut self) -> Result<Vec<Chunk>, Error> {
        let mut wait = POLL;
        let mut records = 0;
        loop {
            // The message borrows the consumer: what is needed of it is copied at once.
            let event = match self.consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    let partition = message.partition();
                    let from = self.at.get(&partition).copied().unwrap_or(0);
                    if message.offset() >= from {
                        let chunk = self.open.entry(partition).or_insert_with(|| Chunk::new(partition, from));
                        let timestamp_ms = match message.timestamp() {
                            Timestamp::CreateTime(ms) | Timestamp::LogAppendTime(ms) => ms,
                            Timestamp::NotAvailable => 0,
                        };
                        chunk.push(message.offset(), timestamp_ms, message.payload());
                        self.at.insert(partition, message.offset() + 1);
                        records += 1;
                    }
                    Ok((partition, self.open.get(&partition).map_or(0, |chunk| chunk.bytes.len())))
                }
                Some(Err(error)) => Err(error),
            };
            match event {
                Ok((partition, bytes)) => {
                    self.at_end.remove(&partition);
                    self.gaps.remove(&partition);
                    if records >= CHUNK_RECORDS || bytes >= CHUNK_BYTES {
                        break;
                    }
                    wait = Duration::ZERO;
                }
                Err(KafkaError::PartitionEOF(partition)) => {
                    self.reached_end(partition);
                    wait = Duration::ZERO;
                }
                Err(error) => match self.serious(&error) {
                    Some(serious) => return Err(serious),
                    // The library tries again by itself.
                    None => break,
                },
            }
        }
        Ok(std::mem::take(&mut self.open).into_values().collect())
    }

    /// The end of a partition has been reported: if it was read once more for a gap, there is one.
    fn reached_end(&mut self, partition: Partition) {
        self.at_end.insert(partition);
        if let Some(end) = self.gaps.remove(&partition) {
            let from = self.at.get(&partition).copied().unwrap_or(0);
            let chunk = self.open.entry(partition).or_insert_with(|| Chunk::new(partition, from));
            chunk.next = chunk.next.max(end);
            self.at.insert(partition, chunk.next);
        }
    }

    /// A partition that stands at its end, below the end that the cluster tells, may have markers up to there that are
    /// no records. Its end is asked for and it is read again from where it stands: if the end is then reported before
    /// any record, there is none in between.
    fn look_for_gaps(&mut self) {
        if self.looked.elapsed() < LOOK_EVERY {
            return;
        }
        self.looked = Instant::now();
        let Some((bounds, _)) = self.ends.lock().unwrap_or_else(PoisonError::into_inner).clone() else { return };
        for partition in self.at_end.clone() {
            let at = self.at.get(&partition).copied().unwrap_or(0);
            if bounds.end.get(partition) <= at || self.gaps.contains_key(&partition) {
                continue;
            }
            let Ok((_, end)) = self.asking.fetch_watermarks(&self.topic, partition, PATIENCE) else { continue };
            if end > at && self.consumer.seek(&self.topic, partition, KafkaOffset::Offset(at), PATIENCE).is_ok() {
                self.at_end.remove(&partition);
                self.gaps.insert(partition, end);
            }
        }
    }

    /// An error that the library does not get over by itself.
    fn serious(&self, error: &KafkaError) -> Option<Error> {
        let out_of_range = matches!(
            error.rdkafka_error_code(),
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
        );
        let gone = matches!(
            error.rdkafka_error_code(),
            Some(RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition)
        );
        if !out_of_range && !gone {
            tracing::debug!(topic = self.topic, "kafka reader: {error}");
            return None;
        }
        if gone {
            return Some(Error::UnknownTopic { topic: self.topic.clone() });
        }
        let from: Frontier = self.at.iter().map(|(&partition, &at)| (partition, at)).collect();
        let partitions = Partition::try_from(self.at.len()).unwrap_or(Partition::MAX);
        let bounds = query_bounds(&self.asking, &self.topic, partitions).unwrap_or_default();
        let unavailable =
            || Error::Unavailable { action: format!("read topic `{}`", self.topic), source: Box::new(error.clone()) };
        Some(check(&self.topic, &from, &bounds).err().unwrap_or_else(unavailable))
    }
}

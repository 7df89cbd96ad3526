//! A log in memory whose failures are drawn from a seed: for simulations.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use common::{
    clock::Clock,
    log::{Bounds, Chunk, Error, Log, NewRecord, Reader},
    position::{Frontier, Offset, Partition},
};
use tokio::sync::watch;

#[derive(Clone, Debug)]
struct Record {
    offset: Offset,
    timestamp_ms: i64,
    value: Option<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Part {
    records: Vec<Record>,
    start: Offset,
    end: Offset,
}

#[derive(Debug)]
struct Inner {
    topics: BTreeMap<String, Vec<Part>>,
    random: fastrand::Rng,
    /// How many reads in a thousand fail.
    failing: u32,
}

/// A log in memory.
#[derive(Clone, Debug)]
pub struct MemoryLog {
    inner: Arc<Mutex<Inner>>,
    clock: Arc<dyn Clock>,
    moved: watch::Sender<u64>,
}

impl MemoryLog {
    /// An empty log; `seed` draws its failures once there are any.
    pub fn new(seed: u64, clock: Arc<dyn Clock>) -> Self {
        let inner = Inner { topics: BTreeMap::new(), random: fastrand::Rng::with_seed(seed), failing: 0 };
        Self { inner: Arc::new(Mutex::new(inner)), clock, moved: watch::Sender::new(0) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on so many reads in a thousand fail.
    pub fn fail(&self, per_thousand: u32) {
        self.inner().failing = per_thousand;
    }

    /// Forgets the records of a partition below `start`, as retention does.
    pub fn trim(&self, topic: &str, partition: Partition, start: Offset) {
        if let Some(part) = self.inner().topics.get_mut(topic).and_then(|parts| parts.get_mut(index(partition))) {
            part.records.retain(|record| record.offset >= start);
            part.start = start;
        }
    }

    /// Leaves a gap of `offsets` at the end of a partition, as a transaction's marker does.
    pub fn skip(&self, topic: &str, partition: Partition, offsets: Offset) {
        if let Some(part) = self.inner().topics.get_mut(topic).and_then(|parts| parts.get_mut(index(partition))) {
            part.end += offsets;
        }
        self.moved.send_modify(|moved| *moved += 1);
    }
}

impl Inner {
    /// Draws whether a read fails.
    fn may_fail(&mut self) -> Result<(), Error> {
        if self.failing > 0 && self.random.u32(0..1000) < self.failing {
            return Err(Error::Unavailable {
                action: "read the log".to_owned(),
                source: "the simulation says no".into(),
            });
        }
        Ok(())
    }
}

fn index(partition: Partition) -> usize {
    usize::try_from(partition).unwrap_or(usize::MAX)
}

#[async_trait]
impl Log for MemoryLog {
    async fn ensure_topic(&self, topic: &str, partitions: Partition) -> Result<Partition, Error> {
        let mut inner = self.inner();
        let parts =
            inner.topics.entry(topic.to_owned()).or_insert_with(|| (0..partitions).map(|_| Part::default()).collect());
        Ok(Partition::try_from(parts.len()).unwrap_or(Partition::MAX))
    }

    async fn bounds(&self, topic: &str) -> Result<Bounds, Error> {
        let inner = self.inner();
        let parts = inner.topics.get(topic).ok_or_else(|| Error::UnknownTopic { topic: topic.to_owned() })?;
        let ends = parts.iter().zip(0..).map(|(part, partition)| (partition, part.end));
        let starts = parts.iter().zip(0..).map(|(part, partition)| (partition, part.start));
        Ok(Bounds { start: starts.collect(), end: ends.collect() })
    }

    async fn append(&self, topic: &str, partition: Partition, records: Vec<NewRecord>) -> Result<Vec<Offset>, Error> {
        let timestamp_ms = self.clock.now_ms();
        let mut offsets = Vec::with_capacity(records.len());
        {
            let mut inner = self.inner();
            let parts = inner.topics.get_mut(topic).and_then(|parts| parts.get_mut(index(partition)));
            let part = parts.ok_or_else(|| Error::UnknownTopic { topic: topic.to_owned() })?;
            for record in records {
                let offset = part.end;
                part.records.push(Record { offset, timestamp_ms, value: record.value.map(|value| value.to_vec()) });
                part.end += 1;
                offsets.push(offset);
            }
        }
        self.moved.send_modify(|moved| *moved += 1);
        Ok(offsets)
    }

    async fn reader(
        &self,
        topic: &str,
        from: &Frontier,
        only: Option<&BTreeSet<Partition>>,
    ) -> Result<Box<dyn Reader>, Error> {
        self.inner().may_fail()?;
        let bounds = self.bounds(topic).await?;
        let mut at = Frontier::default();
        for (partition, end) in
            bounds.end.iter().filter(|(partition, _)| only.is_none_or(|only| only.contains(partition)))
        {
            let (wanted, start) = (from.get(partition), bounds.start.get(partition));
            if wanted < start {
                return Err(Error::Expired { topic: topic.to_owned(), partition, wanted, start });
            }
            if wanted > end {
                return Err(Error::Truncated { topic: topic.to_owned(), partition, wanted, end });
            }
            at.set(partition, wanted);
        }
        let moved = self.moved.subscribe();
        Ok(Box::new(MemoryReader { log: self.clone(), topic: topic.to_owned(), at, moved }))
    }
}

#[derive(Debug)]
struct MemoryReader {
    log: MemoryLog,
    topic: String,
    at: Frontier,
    moved: watch::Receiver<u64>,
}

impl MemoryReader {
    fn take(&mut self, max_records: usize) -> Result<Vec<Chunk>, Error> {
        let mut inner = self.log.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.may_fail()?;
        let limit = inner.random.usize(1..=max_records.max(1));
        let mut chunks = Vec::new();
        let parts = inner.topics.get(&self.topic).ok_or_else(|| Error::UnknownTopic { topic: self.topic.clone() })?;
        let read: Vec<Partition> = self.at.partitions().collect();
        for (part, partition) in parts.iter().zip(0..).filter(|(_, partition)| read.contains(partition)) {
            let mut chunk = Chunk::new(partition, self.at.get(partition));
            let first = part.records.partition_point(|record| record.offset < chunk.from);
            for record in part.records[first..].iter().take(limit) {
                chunk.push(record.offset, record.timestamp_ms, record.value.as_deref());
            }
            if first + chunk.len() == part.records.len() {
                chunk.next = part.end;
            }
            if chunk.next > chunk.from {
                self.at.set(partition, chunk.next);
                chunks.push(chunk);
            }
        }
        Ok(chunks)
    }
}

#[async_trait]
impl Reader for MemoryReader {
    async fn poll(&mut self, max_records: usize, wait: Duration) -> Result<Vec<Chunk>, Error> {
        self.moved.mark_unchanged();
        let chunks = self.take(max_records)?;
        if chunks.is_empty() && tokio::time::timeout(wait, self.moved.changed()).await.is_ok() {
            return self.take(max_records);
        }
        Ok(chunks)
    }

    fn end_seen(&self) -> Option<(Frontier, i64)> {
        let now_us = self.log.clock.now_us();
        let inner = self.log.inner();
        let parts = inner.topics.get(&self.topic)?;
        Some((self.at.partitions().map(|partition| (partition, parts[index(partition)].end)).collect(), now_us))
    }
}

//! Reading: value by value from the frontier on, never past what is durable.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use redb::{Database, ReadableDatabase};
use tokio::sync::watch;

use super::{
    BATCHES, BOUNDS, LOOK_AGAIN, Shared,
    batch::{decode_into, records},
};
use crate::{
    log::{Chunk, Error, Reader},
    position::{Frontier, Offset, Partition},
};

/// So many bytes of a partition are given out at once, about.
const CHUNK_BYTES: usize = 8 << 20;

/// A reader of the embedded log.
#[derive(Debug)]
pub(super) struct EmbeddedReader {
    shared: Arc<Shared>,
    topic: String,
    at: Frontier,
    commits: watch::Receiver<u64>,
}

impl EmbeddedReader {
    pub(super) fn open(
        shared: Arc<Shared>,
        topic: &str,
        from: &Frontier,
        only: Option<&BTreeSet<Partition>>,
    ) -> Result<Self, Error> {
        let bounds = shared.topic(topic)?.bounds;
        bounds.check(topic, from, only)?;
        let read = bounds.end.partitions().filter(|partition| only.is_none_or(|only| only.contains(partition)));
        let at = read.map(|partition| (partition, from.get(partition))).collect();
        let commits = shared.commits.subscribe();
        Ok(Self { shared, topic: topic.to_owned(), at, commits })
    }

    /// What there is. The reader itself does not move before the answer is handed over.
    async fn take(&mut self, max_records: usize) -> Result<Vec<Chunk>, Error> {
        let topic = self.shared.topic(&self.topic)?;
        let end: Frontier =
            self.at.partitions().map(|partition| (partition, topic.bounds.end.get(partition))).collect();
        let behind: Vec<(Partition, Offset, Offset)> = end
            .iter()
            .map(|(partition, end)| (partition, self.at.get(partition), end))
            .filter(|(_, at, end)| at < end)
            .collect();
        let mut chunks = Vec::new();
        if !behind.is_empty() {
            let each = (max_records / behind.len()).max(1);
            let (shared, id, name) = (self.shared.clone(), topic.id, self.topic.clone());
            // Pages that are not cached are read from the disk.
            let reading = tokio::task::spawn_blocking(move || shared.read(id, &name, &behind, each));
            chunks = reading.await.map_err(|error| unavailable(&self.topic, error.into()))??;
        }
        for chunk in &chunks {
            self.at.set(chunk.partition, chunk.next);
        }
        Ok(chunks)
    }
}

/// What a read of a partition came to.
enum Found {
    /// What there was, perhaps nothing.
    Records,
    /// The log starts above where the reader stands.
    Expired(Offset),
    /// What was written at this offset cannot be read.
    Damage(Offset),
}

fn unavailable(topic: &str, source: Box<dyn std::error::Error + Send + Sync>) -> Error {
    Error::Unavailable { action: format!("read `{topic}` from the embedded log"), source }
}

impl Shared {
    fn read(
        &self,
        id: u32,
        topic: &str,
        behind: &[(Partition, Offset, Offset)],
        each: usize,
    ) -> Result<Vec<Chunk>, Error> {
        behind
            .iter()
            .map(|&(partition, from, end)| self.read_partition(id, topic, partition, from, end, each))
            .collect()
    }

    fn read_partition(
        &self,
        id: u32,
        topic: &str,
        partition: Partition,
        from: Offset,
        end: Offset,
        limit: usize,
    ) -> Result<Chunk, Error> {
        let mut chunk = Chunk::new(partition, from);
        let read = |database: &Database| -> Result<Found, redb::Error> {
            let transaction = database.begin_read()?;
            // What was trimmed under a reader must not look like a gap. Only this snapshot knows what it has.
            let start = transaction.open_table(BOUNDS)?.get((id, partition))?.map_or(0, |bounds| bounds.value().0);
            if start > from {
                return Ok(Found::Expired(start));
            }
            let batches = transaction.open_table(BATCHES)?;
            let first = batches.range((id, partition, 0)..=(id, partition, from))?.next_back().transpose()?;
            let mut at = first.map_or(from, |(key, _)| key.value().2);
            for entry in batches.range((id, partition, at)..(id, partition, end))? {
                let (key, value) = entry?;
                // Batches follow one another: where one is missing, records are.
                let is_next = key.value().2 == at;
                let Some((next, records)) = records(value.value(), topic, partition, at).filter(|_| is_next) else {
                    return Ok(Found::Damage(at));
                };
                match decode_into(records, &mut chunk, limit) {
                    Some(true) => (chunk.next, at) = (chunk.next.max(next), next),
                    Some(false) => return Ok(Found::Records),
                    None => return Ok(Found::Damage(at)),
                }
                if chunk.bytes.len() >= CHUNK_BYTES {
                    return Ok(Found::Records);
                }
            }
            Ok(if at < end { Found::Damage(at) } else { Found::Records })
        };
        match self.with(read) {
            Ok(Found::Records) => Ok(chunk),
            Ok(Found::Expired(start)) => {
                Err(Error::Expired { topic: topic.to_owned(), partition, wanted: from, start })
            }
            Ok(Found::Damage(at)) => Err(Error::Corrupt(format!(
                "the embedded log of `{topic}` partition {partition} is damaged at offset {at}: restore its folder from a \
                 copy; all that is archived is in the master dataset as well"
            ))),
            Err(error) => Err(unavailable(topic, error.into())),
        }
    }
}

#[async_trait]
impl Reader for EmbeddedReader {
    async fn poll(&mut self, max_records: usize, wait: Duration) -> Result<Vec<Chunk>, Error> {
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            self.commits.mark_unchanged();
            let chunks = self.take(max_records).await?;
            if !chunks.is_empty() || tokio::time::Instant::now() >= deadline {
                return Ok(chunks);
            }
            let until = deadline.min(tokio::time::Instant::now() + LOOK_AGAIN);
            let _ = tokio::time::timeout_at(until, self.commits.changed()).await;
        }
    }

    fn end_seen(&self) -> Option<(Frontier, i64)> {
        let now_us = self.shared.clock.now_us();
        let end = self.shared.topic(&self.topic).ok()?.bounds.end;
        Some((self.at.partitions().map(|partition| (partition, end.get(partition))).collect(), now_us))
    }
}

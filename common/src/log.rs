//! The log: where events live before anything else happens to them.
//!
//! One trait with two implementations, [`kafka`] and [`embedded`], held to the same promises by [`suite`]:
//! an append that has returned is durable; a reader gives every record of its partitions in offset order, none twice
//! and none left out; offsets may have gaps; nothing is given out that a crash could still take back.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use crate::{
    fault::{Domain, Fault},
    position::{Frontier, Offset, Partition},
};

pub mod embedded;
pub mod kafka;
pub mod partitioner;
#[cfg(any(test, feature = "suite"))]
pub mod suite;

/// A record to append.
#[derive(Clone, Debug, Default)]
pub struct NewRecord {
    /// The key, if it has one.
    pub key: Option<Bytes>,
    /// The event's bytes; `None` is a tombstone.
    pub value: Option<Bytes>,
}

/// Records of one partition in offset order, in one block of memory.
#[derive(Clone, Debug, Default)]
pub struct Chunk {
    /// The partition.
    pub partition: Partition,
    /// Where the reader stood before this chunk: everything in `[from, next)` that the log has is in here.
    pub from: Offset,
    /// Where the reader stands after it. Past the last record's offset + 1 where the log has a gap.
    pub next: Offset,
    /// The records' offsets, strictly ascending.
    pub offsets: Vec<Offset>,
    /// The log's own timestamps, milliseconds since 1970.
    pub timestamps_ms: Vec<i64>,
    /// The end of each record's value in `bytes`.
    pub ends: Vec<usize>,
    /// Whether the record is a tombstone (no value at all, as opposed to an empty one).
    pub tombstones: Vec<bool>,
    /// The values, one after the other.
    pub bytes: Vec<u8>,
}

impl Chunk {
    /// An empty chunk at `from`.
    pub fn new(partition: Partition, from: Offset) -> Self {
        Self { partition, from, next: from, ..Self::default() }
    }

    /// Adds a record; `next` moves to `offset + 1`.
    pub fn push(&mut self, offset: Offset, timestamp_ms: i64, value: Option<&[u8]>) {
        debug_assert!(offset >= self.next, "records come in offset order");
        self.offsets.push(offset);
        self.timestamps_ms.push(timestamp_ms);
        self.tombstones.push(value.is_none());
        self.bytes.extend_from_slice(value.unwrap_or_default());
        self.ends.push(self.bytes.len());
        self.next = offset + 1;
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether there are none (`next` may still be past `from`: a gap).
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// The value of record `i`; empty for a tombstone.
    pub fn value(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.bytes[start..self.ends[i]]
    }
}

/// What a log holds of a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that can still be read, by partition. Every partition of the topic is named.
    pub start: Frontier,
    /// The next offset to be written (for Kafka: the last stable offset), by partition. Every partition is named.
    pub end: Frontier,
}

impl Bounds {
    /// Whether all that follows `from` is there: not expired at the start, not lost at the end. A partition that the
    /// topic does not have ends at 0.
    pub(crate) fn check(&self, topic: &str, from: &Frontier, only: Option<&BTreeSet<Partition>>) -> Result<(), Error> {
        let named: BTreeSet<Partition> = self.end.partitions().chain(from.partitions()).collect();
        for &partition in only.unwrap_or(&named) {
            let (wanted, start, end) = (from.get(partition), self.start.get(partition), self.end.get(partition));
            if wanted < start {
                return Err(Error::Expired { topic: topic.to_owned(), partition, wanted, start });
            }
            if wanted > end {
                return Err(Error::Truncated { topic: topic.to_owned(), partition, wanted, end });
            }
        }
        Ok(())
    }
}

/// How large one record may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordLimit {
    /// Key and value together, in bytes.
    pub bytes: usize,
    /// What sets it, in the operator's terms.
    pub setting: String,
}

/// A log of partitioned topics.
#[async_trait]
pub trait Log: Send + Sync + Debug {
    /// Makes sure that `topic` exists and can be used; creates it with `partitions` partitions if it does not exist.
    /// Returns how many partitions it has. A compacted topic is refused.
    async fn ensure_topic(&self, topic: &str, partitions: Partition) -> Result<Partition, Error>;

    /// Why nothing can be written at the moment, where the log knows that of itself.
    fn failing(&self) -> Option<String> {
        None
    }

    /// What can be read of `topic` now.
    async fn bounds(&self, topic: &str) -> Result<Bounds, Error>;

    /// The limit that keeps a record of so many bytes out of a topic that has been ensured; `None` where there is none.
    async fn refuses(&self, _topic: &str, _bytes: usize) -> Result<Option<RecordLimit>, Error> {
        Ok(None)
    }

    /// Appends records to a partition, in order; once it returns they are durable. Gives their offsets.
    /// When it fails midway, [`Error::Append`] names what was written.
    async fn append(&self, topic: &str, partition: Partition, records: Vec<NewRecord>) -> Result<Vec<Offset>, Error>;

    /// A reader of `topic` that starts exactly at `from`, of all its partitions or `only` of some. Partitions that
    /// `from` does not name start at 0. Fails with [`Error::Expired`] where the log starts above `from`, and
    /// [`Error::Truncated`] where it ends below it.
    async fn reader(
        &self,
        topic: &str,
        from: &Frontier,
        only: Option<&BTreeSet<Partition>>,
    ) -> Result<Box<dyn Reader>, Error>;
}

/// By topic, the partitions that a member of a consumer group is to hold.
pub type Assignment = BTreeMap<String, BTreeSet<Partition>>;

/// A place in a consumer group. Dropped, the group is left.
#[derive(Debug)]
pub struct Membership {
    /// What this member is to hold. Closed once the group has been left.
    pub assigned: watch::Receiver<Assignment>,
    /// How far it has come, by topic: committed to the group now and then for others to see, and never read back.
    pub reached: watch::Sender<BTreeMap<String, Frontier>>,
    /// The topics whose partitions it takes its share of; what it holds of those that stay does not move for others.
    pub topics: watch::Sender<Vec<String>>,
}

/// Reads a topic in batches.
#[async_trait]
pub trait Reader: Send + Debug {
    /// The records that are there, at most about `max_records`; waits up to `wait` when there are none. An empty
    /// answer means that the reader stood at the end of every partition. Chunks of one partition come in order.
    /// Safe to cancel: what was not returned is returned by the next call.
    async fn poll(&mut self, max_records: usize, wait: Duration) -> Result<Vec<Chunk>, Error>;

    /// The end of what this reader reads, as it last saw it, and when (by its clock, microseconds since 1970): everything that
    /// was logged before then is below it. `None` while it is not known.
    fn end_seen(&self) -> Option<(Frontier, i64)>;

    /// What is written beyond the end of what can be read, as this reader last saw it.
    fn held_back(&self) -> HeldBack {
        HeldBack::default()
    }

    /// The first offset that the log still has of every partition, as this reader last saw it. `None` where it is not
    /// known, or nothing expires.
    fn start_seen(&self) -> Option<Frontier> {
        None
    }
}

/// What a log has written that nobody can read yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldBack {
    /// Where what is written ends, at the time of [`Reader::end_seen`]. Empty where all that is written can be read.
    pub written: Frontier,
    /// Why it has not become readable for a while.
    pub reason: Option<String>,
}

/// Why the log cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each field is")]
pub enum Error {
    #[error("topic `{topic}` does not exist")]
    UnknownTopic { topic: String },
    #[error(
        "topic `{topic}` does not exist, and is not created as `log.create_topics` is false; create it, or correct the dataset's option `topic`"
    )]
    NotCreated { topic: String },
    #[error(
        "topic `{topic}` is compacted: it forgets events, so no answer over it could be exact; set `cleanup.policy=delete` on it or name another topic"
    )]
    Compacted { topic: String },
    #[error(
        "the log of `{topic}` partition {partition} starts at {start}, above {wanted}: events from {wanted} on have expired before they were archived; `lamina record-lost` shows and records what is lost, and the line goes on behind it"
    )]
    Expired { topic: String, partition: Partition, wanted: Offset, start: Offset },
    #[error("the log of `{topic}` partition {partition} ends at {end}, below {wanted}: it was truncated or recreated")]
    Truncated { topic: String, partition: Partition, wanted: Offset, end: Offset },
    #[error("could not append to `{topic}` partition {partition}: {written} of {total} records were written")]
    Append {
        topic: String,
        partition: Partition,
        /// Offsets of the records that are known to be durable. One whose acknowledgement did not come may be in the
        /// log as well.
        offsets: Vec<Offset>,
        written: usize,
        total: usize,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("could not {action}")]
    Unavailable { action: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("log setting `{name}` is Lamina's own and cannot be passed through: remove it")]
    ReservedSetting { name: String },
    #[error("{0}")]
    Corrupt(String),
}

impl Fault for Error {
    fn domain(&self) -> Domain {
        match self {
            Self::UnknownTopic { .. }
            | Self::NotCreated { .. }
            | Self::Compacted { .. }
            | Self::ReservedSetting { .. } => Domain::User,
            Self::Expired { .. } | Self::Truncated { .. } | Self::Corrupt(_) => Domain::Internal,
            Self::Append { .. } | Self::Unavailable { .. } => Domain::External,
        }
    }
}

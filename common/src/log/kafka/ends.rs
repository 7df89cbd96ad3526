//! Where a topic starts and ends, asked of the cluster.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    Offset as KafkaOffset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::sync::mpsc;

use super::{PATIENCE, client::Listener, reader::Asking};
use crate::{
    clock::Clock,
    log::{Bounds, Chunk, Error, HeldBack},
    position::{Frontier, Offset, Partition},
};

/// How often the ends are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often it is asked whether the topic has more partitions than before.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// How often it is asked what has expired.
const START_EVERY: Duration = Duration::from_secs(10);
/// A transaction that is open for longer than this is said.
const OPEN_MAX: Duration = Duration::from_secs(5);

/// Where the partitions begin and end, as it was last seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) start: Option<Frontier>,
    /// With the time, in microseconds since 1970.
    pub(super) end: Option<(Frontier, i64)>,
    pub(super) held_back: HeldBack,
}

pub(super) type Ends = Arc<Mutex<Seen>>;

/// How many partitions a topic has; `None` when there is no such topic.
pub(super) fn count(asking: &BaseConsumer<Listener>, topic: &str) -> Result<Option<Partition>, KafkaError> {
    let metadata = asking.fetch_metadata(Some(topic), PATIENCE)?;
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
    match found.error().map(RDKafkaErrorCode::from) {
        None => Ok(Partition::try_from(found.partitions().len()).ok().filter(|&count| count > 0)),
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Ok(None),
        Some(code) => Err(KafkaError::MetadataFetch(code)),
    }
}

/// First readable and next offset of every partition, as a reader of committed records sees them.
pub(super) fn bounds(
    asking: &BaseConsumer<Listener>,
    topic: &str,
    partitions: Partition,
) -> Result<Bounds, KafkaError> {
    // The start first: what expires in between makes it too low, never higher than the end.
    let start = edge(asking, topic, 0..partitions, KafkaOffset::Beginning)?;
    Ok(Bounds { start, end: edge(asking, topic, 0..partitions, KafkaOffset::End)? })
}

/// One of the edges of some partitions, with one request to each broker: asked for a time, the library passes the
/// special times for the edges on.
fn edge(
    asking: &BaseConsumer<Listener>,
    topic: &str,
    partitions: impl IntoIterator<Item = Partition>,
    edge: KafkaOffset,
) -> Result<Frontier, KafkaError> {
    let mut wanted = TopicPartitionList::new();
    for partition in partitions {
        wanted.add_partition_offset(topic, partition, edge)?;
    }
    let answered = asking.offsets_for_times(wanted, PATIENCE)?;
    let mut frontier = Frontier::default();
    for element in answered.elements() {
        element.error()?;
        // Anything else is no answer.
        let KafkaOffset::Offset(offset) = element.offset() else {
            return Err(KafkaError::OffsetFetch(RDKafkaErrorCode::OffsetNotAvailable));
        };
        frontier.set(element.partition(), offset);
    }
    Ok(frontier)
}

/// Takes what a client that reads nothing has to say, for so long: it would keep it for ever.
pub(super) fn listen(asking: &BaseConsumer<Listener>, wait: Duration) {
    let until = Instant::now() + wait;
    loop {
        // An event ends the wait.
        let left = until.saturating_duration_since(Instant::now());
        let _ = asking.poll(left);
        if left.is_zero() {
            return;
        }
    }
}

/// Looks at the ends of a topic again and again, beside a reader.
pub(super) struct Looking {
    pub(super) topic: String,
    pub(super) read: Vec<Partition>,
    /// How many the topic has.
    pub(super) partitions: Partition,
    pub(super) asking: Asking,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) ends: Ends,
    pub(super) failures: mpsc::Sender<Result<Vec<Chunk>, Error>>,
    pub(super) stop: Arc<AtomicBool>,
}

impl Looking {
    pub(super) fn run(self) {
        let mut seen = Frontier::default();
        let (mut counted, mut started) = (Instant::now(), Instant::now());
        self.look_at_start();
        let (mut grown, mut open) = (None, Open::default());
        while !self.stop.load(Ordering::Relaxed) {
            let asked_us = self.clock.now_us();
            // An answer that does not come leaves the last one to get old.
            if let Ok((end, written)) = self.look() {
                if let Some(truncated) = self.lost(&seen, &end) {
                    let _ = self.failures.blocking_send(Err(truncated));
                    return;
                }
                seen = end.clone();
                let reason = grown.clone().or(open.note(&self.topic, &end, &written));
                let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
                ends.held_back = HeldBack { written, reason };
                // With partitions that nobody reads, the end that is known is not the log's.
                ends.end = grown.is_none().then_some((end, asked_us));
            }
            if counted.elapsed() >= COUNT_EVERY {
                counted = Instant::now();
                grown = self.grown(grown);
            }
            if started.elapsed() >= START_EVERY {
                started = Instant::now();
                self.look_at_start();
            }
            listen(&self.asking.all, Duration::ZERO);
            listen(&self.asking.committed, LOOK_EVERY);
        }
    }

    /// Where what can be read ends, and then where what is written does.
    fn look(&self) -> Result<(Frontier, Frontier), KafkaError> {
        let end = edge(&self.asking.committed, &self.topic, self.read.iter().copied(), KafkaOffset::End)?;
        Ok((end, edge(&self.asking.all, &self.topic, self.read.iter().copied(), KafkaOffset::End)?))
    }

    /// What has expired matters for hours, so it is not looked at as often.
    fn look_at_start(&self) {
        if let Ok(start) = edge(&self.asking.committed, &self.topic, self.read.iter().copied(), KafkaOffset::Beginning)
        {
            self.ends.lock().unwrap_or_else(PoisonError::into_inner).start = Some(start);
        }
    }

    /// An end never moves back, unless records were lost or the topic is another one of the same name.
    fn lost(&self, before: &Frontier, now: &Frontier) -> Option<Error> {
        let (partition, wanted) = before.iter().find(|&(partition, end)| now.get(partition) < end)?;
        Some(Error::Truncated { topic: self.topic.clone(), partition, wanted, end: now.get(partition) })
    }

    /// What to do about partitions that have been added, if any have.
    fn grown(&self, known: Option<String>) -> Option<String> {
        let Ok(Some(now)) = count(&self.asking.committed, &self.topic) else { return known };
        if now <= self.partitions {
            return None;
        }
        let (topic, before) = (&self.topic, self.partitions);
        let reason =
            format!("topic `{topic}` has grown from {before} to {now} partitions: start Lamina again to read them all");
        if known.as_ref() != Some(&reason) {
            tracing::warn!("{reason}");
        }
        Some(reason)
    }
}

/// Since when transactions hold back what can be read.
#[derive(Default)]
struct Open(BTreeMap<Partition, (Offset, Instant)>);

impl Open {
    /// Which partition has stood before an open transaction for too long, if any has.
    fn note(&mut self, topic: &str, end: &Frontier, written: &Frontier) -> Option<String> {
        let mut reason = None;
        for (partition, end) in end.iter() {
            if written.get(partition) <= end {
                self.0.remove(&partition);
                continue;
            }
            let (at, since) = self.0.entry(partition).or_insert((end, Instant::now()));
            if *at != end {
                (*at, *since) = (end, Instant::now());
            } else if since.elapsed() >= OPEN_MAX {
                reason = Some(format!(
                    "a transaction is open at offset {end} of topic `{topic}`, partition {partition}: what is written \
                     after it can be read once its producer has committed or aborted it, or its \
                     `transaction.timeout.ms` is over"
                ));
            }
        }
        reason
    }
}

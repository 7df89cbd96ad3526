//! Membership in a consumer group: who holds which partitions. Records are not read through it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, Offset as KafkaOffset, TopicPartitionList,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance},
    error::KafkaError,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Kafka, client::Listener};
use crate::{
    log::{Assignment, Error, Membership},
    position::Frontier,
};

const POLL: Duration = Duration::from_millis(100);
/// How often the group is told how far this member has come.
const COMMIT_EVERY: Duration = Duration::from_secs(5);
/// How long a rebalance waits for members that do not come back, in milliseconds. A broker that has been killed remembers
/// members that have joined anew under other names since, and waits for them so long: 5 minutes unless told.
const REBALANCE_MS: &str = "10000";

impl Kafka {
    /// Takes a place in the consumer group `group`, for the partitions of `topics`. It is given up when `leave` is
    /// cancelled, or nobody listens any more.
    pub fn join(&self, group: &str, topics: &[&str], leave: CancellationToken) -> Result<Membership, Error> {
        let failed = |source: KafkaError| Error::Unavailable {
            action: format!("join the consumer group `{group}` of Kafka at `{}`", self.brokers),
            source: Box::new(source),
        };
        let mut config = self.settings.consumer();
        config
            .set("group.id", group)
            // Only what has to move moves.
            .set("partition.assignment.strategy", "cooperative-sticky")
            // Nothing committed is ever read: where a topic is joined does not matter.
            .set("auto.offset.reset", "latest");
        self.settings.unless_given(&mut config, &["session.timeout.ms"], "6000");
        self.settings.unless_given(&mut config, &["heartbeat.interval.ms"], "1000");
        // It must not be shorter than the session time-out: whoever sets that one sees to this one.
        self.settings.unless_given(&mut config, &["max.poll.interval.ms", "session.timeout.ms"], REBALANCE_MS);
        let assigned = watch::Sender::new(Assignment::new());
        let (reached, committing) = watch::channel(BTreeMap::new());
        let (topics_sender, subscribed) = watch::channel(topics.iter().map(|&topic| topic.to_owned()).collect());
        let membership = Membership { assigned: assigned.subscribe(), reached, topics: topics_sender };
        let member = Member { inner: Listener::default(), assigned, is_out: AtomicBool::new(false) };
        let consumer = BaseConsumer::from_config_and_context(&config, member).map_err(failed)?;
        consumer.subscribe(topics).map_err(failed)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = stop.clone();
        #[allow(clippy::disallowed_methods, reason = "it ends with the membership, not with a supervisor")]
        tokio::spawn(async move {
            leave.cancelled().await;
            stopping.store(true, Ordering::Relaxed);
        });
        let run = move || run(&consumer, &committing, subscribed, &stop);
        let started = std::thread::Builder::new().name("kafka-group".to_owned()).spawn(run);
        started.map_err(|error| failed(KafkaError::ClientCreation(error.to_string())))?;
        Ok(membership)
    }
}

fn run(
    consumer: &BaseConsumer<Member>,
    reached: &watch::Receiver<BTreeMap<String, Frontier>>,
    mut topics: watch::Receiver<Vec<String>>,
    stop: &AtomicBool,
) {
    let mut committed = Instant::now();
    // Closed, the other half of the membership has been dropped.
    while !stop.load(Ordering::Relaxed) && reached.has_changed().is_ok() {
        // What is fetched before a partition is paused is of no use.
        if let Some(Err(error)) = consumer.poll(POLL) {
            tracing::debug!("kafka group: {error}");
        }
        if topics.has_changed().unwrap_or(false) {
            let topics = topics.borrow_and_update().clone();
            let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
            if let Err(error) = consumer.subscribe(&topics) {
                tracing::warn!("kafka group: could not subscribe to {topics:?}: {error}");
            }
        }
        if committed.elapsed() >= COMMIT_EVERY {
            committed = Instant::now();
            commit(consumer, &reached.borrow());
        }
    }
    consumer.unsubscribe();
}

fn commit(consumer: &BaseConsumer<Member>, reached: &BTreeMap<String, Frontier>) {
    let mut offsets = TopicPartitionList::new();
    for (topic, frontier) in reached {
        for (partition, next) in frontier.iter() {
            let _ = offsets.add_partition_offset(topic, partition, KafkaOffset::Offset(next));
        }
    }
    if offsets.count() > 0
        && let Err(error) = consumer.commit(&offsets, CommitMode::Async)
    {
        tracing::debug!("kafka group: could not commit: {error}");
    }
}

/// Hears what the group decides.
struct Member {
    inner: Listener,
    assigned: watch::Sender<Assignment>,
    /// Whether it has lost its place in the group: the broker is away, or has not heard of it for too long. What it
    /// held it goes on holding until the group says something else. Nobody else may have it yet, and if somebody does,
    /// two hold the same.
    is_out: AtomicBool,
}

impl ClientContext for Member {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.inner.log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.inner.error(error, reason);
    }
}

impl ConsumerContext for Member {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Rebalance::Revoke(partitions) = rebalance else { return };
        if consumer.assignment_lost() {
            tracing::info!("kafka group: this member has lost its place, and keeps what it holds until it has another");
            self.is_out.store(true, Ordering::Relaxed);
        } else {
            self.change(partitions, |held, partition| {
                held.remove(&partition);
            });
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(partitions) => {
                if let Err(error) = consumer.pause(partitions) {
                    tracing::debug!("kafka group: could not pause: {error}");
                }
                self.change(partitions, |held, partition| {
                    held.insert(partition);
                });
            }
            Rebalance::Revoke(_) => {}
            Rebalance::Error(error) => tracing::warn!("kafka group: {error}"),
        }
    }
}

impl Member {
    fn change(&self, partitions: &TopicPartitionList, change: impl Fn(&mut BTreeSet<i32>, i32)) {
        self.assigned.send_modify(|assigned| {
            // Whoever comes back is given all that is to be its own.
            if self.is_out.swap(false, Ordering::Relaxed) {
                assigned.clear();
            }
            for element in partitions.elements() {
                change(assigned.entry(element.topic().to_owned()).or_default(), element.partition());
            }
        });
    }
}

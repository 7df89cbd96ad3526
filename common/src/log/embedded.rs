//! A durable log in one file, for a start with nothing installed.
//!
//! Appends are collected by one writer thread: whatever waits together becomes one value a partition and one fsynced
//! transaction, so throughput grows with the load. Readers are given only what that transaction has made durable.
//!
//! Each batch has a checksum and says whose it is, and what the log holds is remembered beside it after each commit: a bit
//! that flips, and a commit that is gone, are seen when the log is opened or read, and what is whole can be recovered.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    thread::JoinHandle,
    time::Duration,
};

use async_trait::async_trait;
use redb::{Database, TableDefinition};
use tokio::sync::{mpsc, oneshot, watch};

use super::{Bounds, Error, Log, NewRecord, Reader};
use crate::{
    clock::Clock,
    position::{Frontier, Offset, Partition},
};

mod batch;
mod open;
mod reader;
mod recover;
mod witness;
mod writer;

use open::{Opened, count, seen_of};
use witness::Witness;

/// Topic name → its number and how many partitions it has.
const TOPICS: TableDefinition<'_, &str, (u32, i32)> = TableDefinition::new("topics");
/// Topic and partition → first readable and next offset.
const BOUNDS: TableDefinition<'_, (u32, i32), (i64, i64)> = TableDefinition::new("bounds");
/// Topic, partition and the first record's offset → records.
const BATCHES: TableDefinition<'_, (u32, i32, i64), &[u8]> = TableDefinition::new("batches");
/// What is written to see whether anything can be.
const PROBE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("probe");

/// How many commits there have been, under [`COMMIT`].
const COMMITS: TableDefinition<'_, &str, u64> = TableDefinition::new("commits");
const COMMIT: &str = "commit";

/// So many appends may wait for the writer.
const QUEUE: usize = 1024;
const CACHE_BYTES: usize = 64 << 20;

/// The embedded log.
#[derive(Debug)]
pub struct Embedded {
    shared: Arc<Shared>,
    /// `None` only while it is being dropped.
    queue: Option<mpsc::Sender<writer::Request>>,
    writer: Option<JoinHandle<()>>,
}

/// What the log, its writer and its readers share.
#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    file: PathBuf,
    /// `None` while it is opened again after a write that failed.
    database: RwLock<Option<Database>>,
    /// Why nothing can be written at the moment.
    failing: RwLock<Option<String>>,
    clock: Arc<dyn Clock>,
    topics: RwLock<BTreeMap<String, Topic>>,
    /// What remembers the commits; whoever commits has it until that is done.
    witness: Mutex<Witness>,
    /// Counts the commits, to wake readers.
    commits: watch::Sender<u64>,
}

/// A topic as it is known to be durable.
#[derive(Clone, Debug)]
struct Topic {
    id: u32,
    partitions: Partition,
    bounds: Bounds,
}

impl Embedded {
    /// Opens the log in a folder, which is made when it is missing. One process at a time can have it open.
    pub fn open(folder: &Path, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let file = folder.join("log.redb");
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Unavailable {
            action: format!("open the embedded log `{}`", file.display()),
            source,
        };
        std::fs::create_dir_all(folder).map_err(|error| failed(error.into()))?;
        let Opened { database, witness, topics } = open::open(folder, &file)?;
        // The files' own names must outlast a power failure too, not only what is written into them.
        for named_in in [Some(folder), folder.parent()].into_iter().flatten().filter(|path| path.is_dir()) {
            File::open(named_in).and_then(|folder| folder.sync_all()).map_err(|error| failed(error.into()))?;
        }
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            file: file.clone(),
            database: RwLock::new(Some(database)),
            failing: RwLock::default(),
            clock,
            topics: RwLock::new(topics),
            witness: Mutex::new(witness),
            commits: watch::Sender::new(0),
        });
        let (queue, requests) = mpsc::channel(QUEUE);
        let writing = shared.clone();
        let writer = std::thread::Builder::new()
            .name("embedded-log".to_owned())
            .spawn(move || writer::run(&writing, requests))
            .map_err(|error| failed(error.into()))?;
        Ok(Self { shared, queue: Some(queue), writer: Some(writer) })
    }

    /// Moves the end of a partition on by `offsets` that hold no record, as a transaction's marker does in Kafka.
    pub async fn skip(&self, topic: &str, partition: Partition, offsets: Offset) -> Result<(), Error> {
        self.write(topic, partition, writer::What::Skip(offsets)).await.map(|_| ())
    }

    /// Forgets records below a frontier, as far as they fill whole batches.
    pub async fn trim(&self, topic: &str, below: &Frontier) -> Result<(), Error> {
        for (partition, offset) in below.iter() {
            self.write(topic, partition, writer::What::Trim(offset)).await?;
        }
        Ok(())
    }

    async fn write(&self, topic: &str, partition: Partition, what: writer::What) -> Result<Vec<Offset>, Error> {
        let known = self.shared.topic(topic)?;
        if !(0..known.partitions).contains(&partition) {
            return Err(Error::Unavailable {
                action: format!("write to `{topic}` partition {partition}"),
                source: format!("the topic has {} partitions", known.partitions).into(),
            });
        }
        let (reply, answer) = oneshot::channel();
        let request = writer::Request { topic: topic.to_owned(), id: known.id, partition, what, reply };
        let ended = || Error::Unavailable {
            action: format!("write to `{topic}` partition {partition}"),
            source: "the log has been closed".into(),
        };
        let queue = self.queue.as_ref().ok_or_else(ended)?;
        queue.send(request).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

impl Drop for Embedded {
    /// Ends the writer, so that the folder can be opened again at once.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Shared {
    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, redb::Error> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let away = || redb::Error::Io(std::io::Error::other("it is opened again after a write that failed"));
        work(database.as_ref().ok_or_else(away)?)
    }

    fn fails(&self, why: Option<String>) {
        *self.failing.write().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Goes on from what is on the disk after a commit that failed, once `bytes` can be written.
    fn reopen(&self, bytes: usize) -> Result<(), Error> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        let mut witness = self.witness.lock().unwrap_or_else(PoisonError::into_inner);
        // The file is held by whoever has it open.
        *database = None;
        let opened = open::open(&self.folder, &self.file)?;
        *witness = opened.witness;
        // What was in doubt may be there after all.
        *self.topics.write().unwrap_or_else(PoisonError::into_inner) = opened.topics;
        probe(database.insert(opened.database), bytes).map_err(|error| Error::Unavailable {
            action: format!("write to the embedded log `{}`", self.file.display()),
            source: error.into(),
        })
    }

    fn topic(&self, topic: &str) -> Result<Topic, Error> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        topics.get(topic).cloned().ok_or_else(|| Error::UnknownTopic { topic: topic.to_owned() })
    }
}

/// Whether so many bytes can be written: they are, and are then given up.
fn probe(database: &Database, bytes: usize) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(PROBE)?.insert("room", vec![0; bytes].as_slice())?;
    transaction.commit()?;
    let transaction = database.begin_write()?;
    transaction.open_table(PROBE)?.remove("room")?;
    transaction.commit()?;
    Ok(())
}

#[async_trait]
impl Log for Embedded {
    async fn ensure_topic(&self, topic: &str, partitions: Partition) -> Result<Partition, Error> {
        if let Ok(known) = self.shared.topic(topic) {
            return Ok(known.partitions);
        }
        let (shared, topic) = (self.shared.clone(), topic.to_owned());
        let created = tokio::task::spawn_blocking(move || shared.create(&topic, partitions.max(1))).await;
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Unavailable {
            action: "create a topic in the embedded log".to_owned(),
            source,
        };
        created.map_err(|error| failed(error.into()))?.map_err(|error| failed(error.into()))
    }

    fn failing(&self) -> Option<String> {
        self.shared.failing.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn bounds(&self, topic: &str) -> Result<Bounds, Error> {
        Ok(self.shared.topic(topic)?.bounds)
    }

    async fn append(&self, topic: &str, partition: Partition, records: Vec<NewRecord>) -> Result<Vec<Offset>, Error> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        self.write(topic, partition, writer::What::Append(records)).await
    }

    async fn reader(
        &self,
        topic: &str,
        from: &Frontier,
        only: Option<&BTreeSet<Partition>>,
    ) -> Result<Box<dyn Reader>, Error> {
        Ok(Box::new(reader::EmbeddedReader::open(self.shared.clone(), topic, from, only)?))
    }
}

impl Shared {
    /// Creates a topic, unless it has come to be in the meantime. Gives how many partitions it has.
    fn create(&self, name: &str, partitions: Partition) -> Result<Partition, redb::Error> {
        self.with(|database| self.create_in(database, name, partitions))
    }

    fn create_in(&self, database: &Database, name: &str, partitions: Partition) -> Result<Partition, redb::Error> {
        let witness = self.witness.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody else writes meanwhile, so what is known now is all there is.
        let mut topics = self.topics.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(topic) = topics.get(name) {
            return Ok(topic.partitions);
        }
        let id = topics.values().map(|topic| topic.id + 1).max().unwrap_or(0);
        let transaction = database.begin_write()?;
        let commit = count(&transaction)?;
        transaction.open_table(TOPICS)?.insert(name, (id, partitions))?;
        transaction.commit()?;
        let zero: Frontier = (0..partitions).map(|partition| (partition, 0)).collect();
        let bounds = Bounds { start: zero.clone(), end: zero };
        topics.insert(name.to_owned(), Topic { id, partitions, bounds });
        self.remember(&witness, commit, topics)?;
        Ok(partitions)
    }

    /// Remembers a commit, and only then lets readers know of it.
    fn remember(&self, witness: &Witness, commit: u64, topics: BTreeMap<String, Topic>) -> Result<(), redb::Error> {
        witness.write(&seen_of(commit, &topics)).map_err(redb::Error::Io)?;
        *self.topics.write().unwrap_or_else(PoisonError::into_inner) = topics;
        Ok(())
    }
}

/// How long a reader waits at most before it looks again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;

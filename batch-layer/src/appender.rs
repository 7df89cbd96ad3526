//! From the log to the master dataset, exactly once.
//!
//! A batch starts exactly at the frontier of the snapshot that it is committed against, and nothing refreshes that
//! snapshot in between. After any error the appender begins again from what the tables say: a commit that failed may be
//! durable all the same, so nothing is ever sent again blindly.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use common::{
    catalog::Dataset,
    fault::chain,
    log::{self, Chunk},
    master::{self, Version},
    position::{Frontier, Partition},
    storage::{
        self,
        table::{Snapshot, Table},
    },
    values::{Decoded, Decoder},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{Context, metrics::Metrics};

mod batch;
mod commit;

use batch::Batch;

const POLL_RECORDS: usize = 131_072;
const POLL_WAIT: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// The appender of one dataset.
pub(crate) struct Appender {
    context: Arc<Context>,
    dataset: Arc<Dataset>,
    metrics: Metrics,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Log(#[from] log::Error),
    #[error(transparent)]
    Storage(#[from] storage::Error),
    #[error("the task that {what} died")]
    Died { what: &'static str, source: tokio::task::JoinError },
}

/// A table, the snapshot that the next commit is made against, and what its transactions say there.
#[derive(Clone, Debug)]
struct Place {
    table: Table,
    snapshot: Snapshot,
    version: Version,
}

/// Where both tables stand.
#[derive(Clone, Debug)]
struct Places {
    master: Place,
    dead_letters: Place,
}

impl Appender {
    pub(crate) fn new(context: Arc<Context>, dataset: Arc<Dataset>, metrics: Metrics) -> Self {
        Self { context, dataset, metrics }
    }

    /// Archives until it is told to stop; then archives what it has and ends.
    pub(crate) async fn run(self) -> Result<(), Infallible> {
        let cancelled = self.context.supervisor.cancelled();
        let mut backoff = Duration::from_millis(100);
        loop {
            let began = Instant::now();
            let Err(error) = self.session(&cancelled).await else { return Ok(()) };
            if began.elapsed() > BACKOFF_MAX {
                backoff = Duration::from_millis(100);
            }
            self.metrics.restarts.with_label_values(&[&self.dataset.name]).inc();
            tracing::warn!(dataset = self.dataset.name, "appender: {}; beginning again in {backoff:?}", chain(&error));
            tokio::select! {
                () = cancelled.cancelled() => return Ok(()),
                () = tokio::time::sleep(backoff) => {}
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// From what the tables say until something goes wrong.
    async fn session(&self, cancelled: &CancellationToken) -> Result<(), Error> {
        let (log, topic) = (&self.context.log, &self.dataset.topic);
        let partitions = log.ensure_topic(topic, self.dataset.partitions).await?;
        let mut places = Some(self.places(partitions).await?);
        let frontier = places.as_ref().map(|places| places.master.version.frontier.clone()).unwrap_or_default();
        if let Some(places) = &places {
            master::verify(log.as_ref(), topic, &places.master.version).await?;
        }
        let mut reader = log.reader(topic, &frontier).await?;
        let mut batch = Batch::new(frontier);
        let mut committing: Option<JoinHandle<Result<Places, Error>>> = None;
        let settings = &self.context.settings;
        loop {
            let chunks = tokio::select! {
                () = cancelled.cancelled() => break,
                chunks = reader.poll(POLL_RECORDS, POLL_WAIT.min(settings.flush_age)) => chunks?,
            };
            for decoded in self.decode(chunks).await? {
                batch.push(decoded);
            }
            if let Some((end, _)) = reader.end_seen() {
                self.note_lag(&batch.end, &end);
            }
            // A commit that failed is known at once, not when the next one is due.
            if committing.as_ref().is_some_and(JoinHandle::is_finished) {
                places = Some(joined(&mut committing).await?);
            }
            if batch.is_due(settings) {
                let at = match places.take() {
                    Some(places) => places,
                    None => joined(&mut committing).await?,
                };
                let full = std::mem::replace(&mut batch, Batch::new(Frontier::default()));
                batch = Batch::new(full.end.clone());
                committing = Some(self.commit(at, full, partitions));
            }
        }
        let at = match places.take() {
            Some(places) => places,
            None => joined(&mut committing).await?,
        };
        if !batch.is_empty() {
            committing = Some(self.commit(at, batch, partitions));
            joined(&mut committing).await?;
        }
        Ok(())
    }

    async fn places(&self, partitions: Partition) -> Result<Places, Error> {
        let (storage, name) = (&self.context.storage, &self.dataset.name);
        let open = async |table: Table, schema: &datafusion::arrow::datatypes::Schema| -> Result<Place, Error> {
            table.ensure(schema).await?;
            let snapshot = table.load(None).await?;
            let version = Version::of(&table, &snapshot, name, partitions).await?;
            Ok(Place { table, snapshot, version })
        };
        Ok(Places {
            master: open(master::table(storage, name)?, &self.dataset.schema).await?,
            dead_letters: open(master::dead_letters(storage, name)?, &master::dead_letters_schema()).await?,
        })
    }

    /// Decodes chunks side by side, in order.
    async fn decode(&self, chunks: Vec<Chunk>) -> Result<Vec<(Chunk, Decoded)>, Error> {
        let decoding: Vec<_> = chunks
            .into_iter()
            .map(|chunk| {
                let dataset = self.dataset.clone();
                tokio::task::spawn_blocking(move || {
                    let decoded = Decoder::new(dataset).decode(&chunk);
                    (chunk, decoded)
                })
            })
            .collect();
        let mut decoded = Vec::with_capacity(decoding.len());
        for decoding in decoding {
            decoded.push(decoding.await.map_err(|source| Error::Died { what: "decodes", source })?);
        }
        Ok(decoded)
    }

    fn commit(&self, at: Places, batch: Batch, partitions: Partition) -> JoinHandle<Result<Places, Error>> {
        let commit = commit::Commit {
            context: self.context.clone(),
            dataset: self.dataset.clone(),
            metrics: self.metrics.clone(),
            partitions,
        };
        // Not under the supervisor: its outcome is waited for, and a stop must let it end.
        #[allow(clippy::disallowed_methods, reason = "the handle is kept and awaited by the appender")]
        tokio::spawn(async move { commit.run(at, batch).await })
    }

    fn note_lag(&self, at: &Frontier, end: &Frontier) {
        let behind: i64 = end.iter().map(|(partition, end)| (end - at.get(partition)).max(0)).sum();
        self.metrics.unarchived.with_label_values(&[&self.dataset.name]).set(behind);
    }
}

async fn joined(committing: &mut Option<JoinHandle<Result<Places, Error>>>) -> Result<Places, Error> {
    match committing.take() {
        Some(handle) => handle.await.map_err(|source| Error::Died { what: "commits", source })?,
        None => Err(Error::Log(log::Error::Corrupt("the appender lost its place".to_owned()))),
    }
}

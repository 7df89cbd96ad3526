//! From the log to the master dataset, exactly once.
//!
//! A batch starts exactly at the frontier of the snapshot that it is committed against, and nothing refreshes that
//! snapshot in between. A commit that failed may be durable all the same, so after any error the tables are read again:
//! where they stand still the same files are committed again, where they have moved the batch is dropped and the
//! appender goes on from there. Nothing is ever sent again blindly.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use common::{
    catalog::Dataset,
    fault::{Domain, Fault},
    log::{self, Chunk, Reader},
    master::{self, Version},
    position::{Frontier, Offset, Partition},
    storage::{
        self,
        table::{Snapshot, Table},
    },
    values::{Decoded, Decoder},
};
use datafusion::arrow::datatypes::Schema;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{Context, metrics::Metrics, retry::Retry};

mod batch;
mod commit;
mod merge;

use batch::Batch;

const POLL_RECORDS: usize = 131_072;
const POLL_WAIT: Duration = Duration::from_millis(100);
/// How often it is told how far behind the archive is, while the store keeps it waiting.
const NOTE_EVERY: Duration = Duration::from_secs(1);

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
    #[error("table `{table}` was at {from} and is at {to}: another appender is at work on it")]
    Moved { table: String, from: Frontier, to: Frontier },
    #[error(
        "the log gave partition {partition} from {from} to {next} where {at} was due: nothing of it was archived, and the \
         log is read again from the master's frontier"
    )]
    OutOfOrder { partition: Partition, from: Offset, next: Offset, at: Offset },
    #[error("the task that {what} died")]
    Died { what: &'static str, source: tokio::task::JoinError },
}

impl Fault for Error {
    fn domain(&self) -> Domain {
        match self {
            Self::Log(error) => error.domain(),
            Self::Storage(error) => error.domain(),
            Self::Moved { .. } => Domain::External,
            Self::OutOfOrder { .. } | Self::Died { .. } => Domain::Internal,
        }
    }
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

/// A commit under way.
type Committing = JoinHandle<Result<Places, Error>>;

/// Where the tables stand, or the one commit under way that will say so while the next batch is read.
struct At {
    places: Option<Places>,
    committing: Option<Committing>,
}

impl Appender {
    pub(crate) fn new(context: Arc<Context>, dataset: Arc<Dataset>, metrics: Metrics) -> Self {
        metrics.begin(&dataset.name);
        Self { context, dataset, metrics }
    }

    /// Archives until it is told to stop; then archives what it has and ends.
    pub(crate) async fn run(self) -> Result<(), Infallible> {
        let cancelled = self.context.supervisor.cancelled();
        let mut retry = Retry::new(cancelled.clone(), &self.metrics.troubles);
        loop {
            let Err(error) = self.session(&cancelled, &mut retry).await else { return Ok(()) };
            self.metrics.restarts.with_label_values(&[&self.dataset.name]).inc();
            if error.domain() != Domain::External {
                tracing::error!(dataset = self.dataset.name, "nothing more is archived: {error}");
                retry.slow();
            }
            if !retry.after(&format!("appender of `{}`", self.dataset.name), &error).await {
                return Ok(());
            }
        }
    }

    /// From what the tables say until something goes wrong.
    async fn session(&self, cancelled: &CancellationToken, retry: &mut Retry) -> Result<(), Error> {
        let (partitions, places, mut reader) = tokio::select! {
            () = cancelled.cancelled() => return Ok(()),
            opened = self.open() => opened?,
        };
        let mut batch = Batch::new(places.master.version.frontier.clone());
        let mut at = At { places: Some(places), committing: None };
        let read = self.read(reader.as_mut(), &mut batch, &mut at, partitions, cancelled, retry).await;
        // What is being committed ends before anything else is tried, whatever happened meanwhile.
        let settled = at.settle().await;
        read?;
        settled?;
        if let Some(places) = at.places.take().filter(|_| !batch.is_empty()) {
            at.committing = Some(self.commit(places, batch, partitions));
            at.settle().await?;
        }
        Ok(())
    }

    /// Opens the tables, makes sure that the log still holds what was archived, and opens it where the master ends.
    async fn open(&self) -> Result<(Partition, Places, Box<dyn Reader>), Error> {
        let (log, topic) = (&self.context.log, &self.dataset.topic);
        let partitions = log.ensure_topic(topic, self.dataset.partitions).await?;
        let (storage, name) = (&self.context.storage, &self.dataset.name);
        let open = async |table: Table, schema: &Schema| -> Result<Place, storage::Error> {
            table.ensure(schema).await?;
            Place::load(table, name, partitions).await
        };
        let places = Places {
            master: open(master::table(storage, name)?, &self.dataset.schema).await?,
            dead_letters: open(master::dead_letters(storage, name)?, &master::dead_letters_schema()).await?,
        };
        master::verify(log.as_ref(), topic, &places.master.version).await?;
        let reader = log.reader(topic, &places.master.version.frontier, None).await?;
        Ok((partitions, places, reader))
    }

    /// Reads batch after batch, each while the one before is committed, until it is told to stop.
    async fn read(
        &self,
        reader: &mut dyn Reader,
        batch: &mut Batch,
        at: &mut At,
        partitions: Partition,
        cancelled: &CancellationToken,
        retry: &mut Retry,
    ) -> Result<(), Error> {
        let settings = &self.context.settings;
        let mut archived = batch.end.clone();
        loop {
            let chunks = tokio::select! {
                () = cancelled.cancelled() => return Ok(()),
                chunks = reader.poll(POLL_RECORDS, POLL_WAIT.min(settings.flush_age)) => chunks?,
            };
            for decoded in self.decode(chunks).await? {
                batch.push(decoded)?;
            }
            let is_due = batch.is_due(settings);
            // A commit that failed is known at once, not when the next one is due.
            if (is_due || at.is_settled()) && self.settled(at, reader, &archived).await? {
                retry.reset();
            }
            if let Some(places) = &at.places {
                archived.clone_from(&places.master.version.frontier);
            }
            if let Some(places) = at.places.take_if(|_| is_due) {
                let next = Batch::new(batch.end.clone());
                at.committing = Some(self.commit(places, std::mem::replace(batch, next), partitions));
            }
            self.note_lag(&archived, reader);
        }
    }

    /// Waits for the commit under way, and tells meanwhile how far behind the archive is. Whether there was one.
    async fn settled(&self, at: &mut At, reader: &mut dyn Reader, archived: &Frontier) -> Result<bool, Error> {
        let mut settling = pin!(at.settle());
        loop {
            tokio::select! {
                settled = &mut settling => return settled,
                () = tokio::time::sleep(NOTE_EVERY) => self.note_lag(archived, reader),
            }
        }
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

    fn commit(&self, places: Places, batch: Batch, partitions: Partition) -> Committing {
        let commit = commit::Commit {
            context: self.context.clone(),
            dataset: self.dataset.clone(),
            metrics: self.metrics.clone(),
            partitions,
        };
        // Not under the supervisor: its outcome is waited for, and a stop must let it end.
        #[allow(clippy::disallowed_methods, reason = "the handle is kept and awaited by the appender")]
        tokio::spawn(async move { commit.run(places, batch).await })
    }

    fn note_lag(&self, archived: &Frontier, reader: &dyn Reader) {
        let dataset = [self.dataset.name.as_str()];
        if let Some((end, _)) = reader.end_seen() {
            self.metrics.unarchived.with_label_values(&dataset).set(unarchived(archived, &end));
        }
        if let Some(retained) = reader.start_seen().and_then(|start| retained(archived, &start)) {
            self.metrics.retained.with_label_values(&dataset).set(retained);
        }
    }
}

/// How many offsets of all partitions are not archived.
fn unarchived(archived: &Frontier, end: &Frontier) -> i64 {
    end.iter().map(|(partition, end)| (end - archived.get(partition)).max(0)).sum()
}

/// How many archived offsets the log still has of the partition with the fewest.
fn retained(archived: &Frontier, start: &Frontier) -> Option<i64> {
    start.iter().map(|(partition, start)| archived.get(partition) - start).min()
}

impl Place {
    async fn load(table: Table, dataset: &str, partitions: Partition) -> Result<Self, storage::Error> {
        let snapshot = table.load(None).await?;
        let version = Version::of(&table, &snapshot, dataset, partitions).await?;
        Ok(Self { table, snapshot, version })
    }
}

impl At {
    /// Whether a commit has ended and its outcome has not been looked at.
    fn is_settled(&self) -> bool {
        self.committing.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Waits for the commit under way. Whether there was one.
    async fn settle(&mut self) -> Result<bool, Error> {
        let Some(handle) = self.committing.take() else { return Ok(false) };
        let places = handle.await.map_err(|source| Error::Died { what: "commits", source })??;
        self.places = Some(places);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_summed_and_the_margin_is_the_smallest() {
        let frontier = |next: [i64; 2]| Frontier::from_iter([(0, next[0]), (1, next[1])]);
        let check = |archived, start, end, expected: (i64, i64)| {
            let (archived, start, end) = (frontier(archived), frontier(start), frontier(end));
            assert_eq!((unarchived(&archived, &end), retained(&archived, &start)), (expected.0, Some(expected.1)));
        };
        check([10, 20], [4, 0], [11, 22], (3, 6));
        check([10, 20], [10, 0], [10, 20], (0, 0));
        // An end that was seen before the last commit is no lag; a start above the frontier is a loss.
        check([10, 20], [12, 0], [9, 20], (0, -2));
        assert_eq!(retained(&frontier([1, 1]), &Frontier::default()), None);
    }
}

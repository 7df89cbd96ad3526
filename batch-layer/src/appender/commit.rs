//! One batch into the tables: dead letters first, then files and frontier of the master together.
//!
//! Until it is told to stop, a commit tries for ever: with the same files, and only while the table stands where the
//! batch begins.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use bytes::Bytes;
use common::{
    catalog::Dataset,
    master::{Version, dead_letters_schema, last_fingerprint_id, last_offset_id, position_id, rows_id},
    position::{Frontier, Partition},
    storage::{
        self,
        parquet::{File, Layout},
        table::{Change, DataFile, Table},
    },
    values::DeadLetter,
};
use datafusion::arrow::{
    array::{BinaryArray, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray},
    datatypes::SchemaRef,
    record_batch::RecordBatch,
};

use super::{Batch, Error, Place, Places};
use crate::{Context, metrics::Metrics, retry::Retry};

/// A data file of the master is ended at about this size.
pub(super) const FILE_BYTES: usize = 128 << 20;

pub(super) struct Commit {
    pub(super) context: Arc<Context>,
    pub(super) dataset: Arc<Dataset>,
    pub(super) metrics: Metrics,
    pub(super) partitions: Partition,
}

impl Commit {
    /// Commits `batch` against `at`, and gives where the tables stand then.
    pub(super) async fn run(&self, mut at: Places, batch: Batch) -> Result<Places, Error> {
        let began = Instant::now();
        let Batch { end, rows, dead, last, .. } = batch;
        self.dead_letters(&mut at.dead_letters, dead, &end).await?;
        let rows: Vec<RecordBatch> = rows.into_values().flatten().collect();
        let files = self.files(rows, self.dataset.schema.clone(), Layout::Master, &at.master.table).await?;
        let added: i64 = files.iter().map(|file| file.rows).sum();
        let mut txns = self.positions(&end, &at.master.version.frontier);
        txns.insert(rows_id(&self.dataset.name), at.master.version.rows + added);
        for (partition, (offset, fingerprint)) in last {
            txns.insert(last_offset_id(&self.dataset.name, partition), offset);
            txns.insert(last_fingerprint_id(&self.dataset.name, partition), fingerprint);
        }
        self.commit(&mut at.master, files, txns).await?;
        let dataset = [self.dataset.name.as_str()];
        self.metrics.events.with_label_values(&dataset).inc_by(u64::try_from(added).unwrap_or(0));
        self.metrics.commits.with_label_values(&dataset).inc();
        self.metrics.commit_seconds.observe(began.elapsed().as_secs_f64());
        at.master = self.merge(at.master, &self.dataset.schema).await?;
        at.dead_letters = self.merge(at.dead_letters, &dead_letters_schema()).await?;
        Ok(at)
    }

    /// Archives dead letters, but for those that an earlier try has archived already.
    async fn dead_letters(&self, at: &mut Place, dead: Vec<DeadLetter>, end: &Frontier) -> Result<(), Error> {
        let decided = at.version.frontier.clone();
        let new: Vec<DeadLetter> =
            dead.into_iter().filter(|letter| letter.offset >= decided.get(letter.partition)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let count = new.len();
        let rows = dead_letter_rows(&new).map_err(|source| storage::Error::Parquet {
            action: "write dead letters".to_owned(),
            source: source.into(),
        })?;
        let files = self.files(vec![rows], dead_letters_schema(), Layout::Master, &at.table).await?;
        let mut txns = self.positions(end, &decided);
        txns.insert(rows_id(&self.dataset.name), at.version.rows + i64::try_from(count).unwrap_or(0));
        self.commit(at, files, txns).await?;
        self.metrics.dead_letters.with_label_values(&[&self.dataset.name]).inc_by(count as u64);
        Ok(())
    }

    fn positions(&self, end: &Frontier, before: &Frontier) -> BTreeMap<String, i64> {
        end.iter()
            .filter(|&(partition, next)| next > before.get(partition))
            .map(|(partition, next)| (position_id(&self.dataset.name, partition), next))
            .collect()
    }

    /// Commits the files, and says where the table stands then.
    async fn commit(&self, at: &mut Place, files: Vec<DataFile>, txns: BTreeMap<String, i64>) -> Result<(), Error> {
        let change = Change { added: files, removed: Vec::new(), txns, timestamp_ms: None };
        let mut after = at.version.clone();
        after.apply(&self.dataset.name, self.partitions, &change);
        let mut retry = self.retry();
        loop {
            let now_ms = self.context.clock.now_ms();
            let committed = at.table.commit(&at.snapshot, &change.added, Vec::new(), &change.txns, now_ms).await;
            let failure = match committed {
                Ok(snapshot) => {
                    after.version = snapshot.version();
                    // Another appender may have merged files in between: which there are, only the snapshot says.
                    after.files = snapshot.files().into_iter().map(Arc::new).collect();
                    *at = Place { table: at.table.clone(), snapshot, version: after };
                    return Ok(());
                }
                Err(failure) => failure,
            };
            // The commit may be durable all the same: only the table knows.
            let found = self.reload(at, &mut retry).await?;
            if stands_alike(&found.version, &after) {
                *at = found;
                return Ok(());
            }
            if !stands_alike(&found.version, &at.version) {
                let (from, to) = (at.version.frontier.clone(), found.version.frontier);
                return Err(Error::Moved { table: at.table.path().to_owned(), from, to });
            }
            *at = found;
            if !retry.after(&format!("commit to `{}`", at.table.path()), &failure).await {
                return Err(failure.into());
            }
        }
    }

    pub(super) async fn reload(&self, at: &Place, retry: &mut Retry) -> Result<Place, Error> {
        loop {
            let failure = match Place::load(at.table.clone(), &self.dataset.name, self.partitions).await {
                Ok(found) => return Ok(found),
                Err(failure) => failure,
            };
            if !retry.after(&format!("look at `{}` after a commit that failed", at.table.path()), &failure).await {
                return Err(failure.into());
            }
        }
    }

    pub(super) fn retry(&self) -> Retry {
        Retry::new(self.context.supervisor.cancelled(), &self.metrics.troubles)
    }

    /// Encodes rows and stores the files, which no commit names yet.
    async fn files(
        &self,
        rows: Vec<RecordBatch>,
        schema: SchemaRef,
        layout: Layout,
        table: &Table,
    ) -> Result<Vec<DataFile>, Error> {
        let encoding = tokio::task::spawn_blocking(move || encode(&rows, &schema, layout));
        let encoded = encoding.await.map_err(|source| Error::Died { what: "encodes", source })??;
        let mut files = Vec::with_capacity(encoded.len());
        for (bytes, file) in encoded {
            let mut retry = self.retry();
            // The same bytes under the same name: written twice they are what they were.
            while let Err(failure) = table.put(&file.path, bytes.clone()).await {
                if !retry.after(&format!("write to `{}`", table.path()), &failure).await {
                    return Err(failure.into());
                }
            }
            files.push(file);
        }
        Ok(files)
    }
}

/// Whether a table's transactions say the same: then its rows are the same, as a batch's rows follow from its ends.
pub(super) fn stands_alike(one: &Version, other: &Version) -> bool {
    one.frontier == other.frontier && one.rows == other.rows && one.last == other.last
}

fn encode(rows: &[RecordBatch], schema: &SchemaRef, layout: Layout) -> Result<Vec<(Bytes, DataFile)>, storage::Error> {
    let mut files = Vec::new();
    let mut open: Option<File> = None;
    for rows in rows {
        let mut file = match open.take() {
            Some(file) => file,
            None => File::new(schema, layout)?,
        };
        file.write(rows)?;
        if file.size() >= FILE_BYTES {
            files.push(file.finish(name())?);
        } else {
            open = Some(file);
        }
    }
    if let Some(file) = open {
        files.push(file.finish(name())?);
    }
    Ok(files)
}

pub(super) fn name() -> String {
    format!("part-{}.parquet", uuid::Uuid::now_v7())
}

fn dead_letter_rows(letters: &[DeadLetter]) -> Result<RecordBatch, datafusion::arrow::error::ArrowError> {
    let partitions: Int32Array = letters.iter().map(|letter| Some(letter.partition)).collect();
    let offsets: Int64Array = letters.iter().map(|letter| Some(letter.offset)).collect();
    let timestamps: TimestampMicrosecondArray = letters.iter().map(|letter| Some(letter.timestamp_ms * 1000)).collect();
    let reasons: StringArray = letters.iter().map(|letter| Some(letter.reason.as_str())).collect();
    let raw: BinaryArray = letters.iter().map(|letter| letter.raw.as_deref()).collect();
    RecordBatch::try_new(
        dead_letters_schema(),
        vec![Arc::new(partitions), Arc::new(offsets), Arc::new(timestamps), Arc::new(reasons), Arc::new(raw)],
    )
}

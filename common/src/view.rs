//! Batch views: what a view's SQL gives over the master dataset up to a cut, one Delta commit a version.
//!
//! A commit replaces all files and carries, as application transactions, the batch view version, the master version
//! that was read, the cut, and how many events and groups could not be computed. Commits that carry no batch view version (maintenance) are none.

use std::{collections::BTreeMap, sync::Arc};

use datafusion::arrow::datatypes::SchemaRef;

use crate::{
    catalog::View,
    fold::Failed,
    position::{Frontier, Partition},
    storage::{
        Error, Storage,
        table::{Change, DataFile, Snapshot, Table},
    },
};

const BATCH_VERSION: &str = "lamina/batch_version";
const MASTER_VERSION: &str = "lamina/master_version";
const PARTITIONS: &str = "lamina/partitions";
const ROWS: &str = "lamina/rows";
const FAILED_EVENTS: &str = "lamina/failed_events";
const FAILED_GROUPS: &str = "lamina/failed_groups";

fn cut_id(partition: Partition) -> String {
    format!("lamina/cut/{partition}")
}

/// One batch view version.
#[derive(Clone, Debug, PartialEq)]
pub struct Published {
    /// Its number: 1, 2, 3, …
    pub batch_version: i64,
    /// The master version that it was computed from.
    pub master_version: i64,
    /// That version's frontier.
    pub cut: Frontier,
    /// How many groups it has.
    pub rows: i64,
    /// How many events below the cut are in none of them because the view cannot be computed over them.
    pub failed_events: i64,
    /// Of how many groups something could not be computed.
    pub failed_groups: i64,
    /// When it was published, milliseconds since 1970.
    pub published_at_ms: i64,
    /// Its files.
    pub files: Arc<Vec<DataFile>>,
}

impl Published {
    /// What the newest of its failed events stand in, beside its files. Delta's engines do not look at such a name.
    pub fn failed_file(&self) -> String {
        format!("_failed-{}-{}.json", self.batch_version, self.master_version)
    }
}

/// The table of one definition of a view.
#[derive(Clone, Debug)]
pub struct ViewTable {
    table: Table,
    schema: SchemaRef,
}

impl ViewTable {
    /// The table of `view`'s present definition. The definition stands for the state format too: what another format
    /// wrote is another table.
    pub fn new(storage: &Storage, view: &View) -> Result<Self, Error> {
        let table = storage.table(&format!("views/{}/{}", view.name, view.definition))?;
        Ok(Self { table, schema: view.fold.stored() })
    }

    /// The Delta table.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The columns of its files.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Creates the table when it is missing, and opens it at its newest version.
    pub async fn open(&self) -> Result<Snapshot, Error> {
        self.table.ensure(&self.schema).await?;
        self.table.load(None).await
    }

    /// The newest batch view version at a snapshot; `None` before the first.
    pub async fn published(&self, at: &Snapshot) -> Result<Option<Published>, Error> {
        let known = [BATCH_VERSION, MASTER_VERSION, PARTITIONS, ROWS, FAILED_EVENTS, FAILED_GROUPS].map(str::to_owned);
        let mut txns = self.table.txns(at, &known).await?;
        let Some(&partitions) = txns.get(PARTITIONS) else { return Ok(None) };
        let cuts: Vec<String> = (0..i32::try_from(partitions).unwrap_or(0)).map(cut_id).collect();
        txns.extend(self.table.txns(at, &cuts).await?);
        let change = Change { added: at.files(), txns, timestamp_ms: None, removed: Vec::new() };
        let mut published = parse(&change);
        // The time is in the commit alone, and only while the log still has it.
        if let (Some(published), Some(commit)) = (published.as_mut(), self.table.change(at.version()).await?) {
            published.published_at_ms = commit.timestamp_ms.unwrap_or(0);
        }
        Ok(published)
    }

    /// Publishes a batch view version against `at`, the snapshot that was newest when the work began: if another one
    /// was published since, this one fails with [`Error::Conflict`].
    pub async fn publish(&self, at: &Snapshot, version: &Published) -> Result<Snapshot, Error> {
        let mut txns = BTreeMap::from([
            (BATCH_VERSION.to_owned(), version.batch_version),
            (MASTER_VERSION.to_owned(), version.master_version),
            (ROWS.to_owned(), version.rows),
            (FAILED_EVENTS.to_owned(), version.failed_events),
            (FAILED_GROUPS.to_owned(), version.failed_groups),
        ]);
        let partitions = version.cut.partitions().max().map_or(0, |last| last + 1);
        txns.insert(PARTITIONS.to_owned(), partitions.into());
        txns.extend((0..partitions).map(|partition| (cut_id(partition), version.cut.get(partition))));
        self.table.commit(at, &version.files, at.removals(), &txns, version.published_at_ms).await
    }

    /// Stores the newest failed events of a version that is about to be published. Of one master version every recompute
    /// finds the same ones, so it does not matter whose they are.
    pub async fn put_failed(&self, version: &Published, failed: &Failed) -> Result<(), Error> {
        if failed.count() == 0 {
            return Ok(());
        }
        let text = serde_json::to_vec(failed).unwrap_or_default();
        self.table.put(&version.failed_file(), text.into()).await
    }

    /// The failed events of a version, the newest of them with their reasons.
    pub async fn failed(&self, version: &Published) -> Result<Failed, Error> {
        if version.failed_events == 0 {
            return Ok(Failed::default());
        }
        let text = self.table.get(&version.failed_file()).await?;
        let failed = text.and_then(|text| serde_json::from_slice(&text).ok());
        // The number stands in the commit; of a list that is gone that is what is left.
        Ok(failed.unwrap_or_else(|| Failed::of(version.failed_events)))
    }

    /// The newest batch view versions, newest first, as far back as the table's log goes and `limit` allows.
    pub async fn history(&self, limit: usize) -> Result<Vec<Published>, Error> {
        let mut history = Vec::new();
        if !self.table.exists().await? {
            return Ok(history);
        }
        let mut version = self.table.load(None).await?.version();
        while history.len() < limit && version > 0 {
            // Older log files are cleaned up.
            let Some(change) = self.table.change(version).await? else { break };
            history.extend(parse(&change));
            version -= 1;
        }
        Ok(history)
    }
}

fn parse(change: &Change) -> Option<Published> {
    let get = |id: &str| change.txns.get(id).copied();
    let partitions = i32::try_from(get(PARTITIONS)?).ok()?;
    Some(Published {
        batch_version: get(BATCH_VERSION)?,
        master_version: get(MASTER_VERSION)?,
        cut: (0..partitions).map(|partition| (partition, get(&cut_id(partition)).unwrap_or(0))).collect(),
        rows: get(ROWS)?,
        failed_events: get(FAILED_EVENTS).unwrap_or(0),
        failed_groups: get(FAILED_GROUPS).unwrap_or(0),
        published_at_ms: change.timestamp_ms.unwrap_or(0),
        files: Arc::new(change.added.clone()),
    })
}

/// Follows a view's table from one batch view version to the next.
#[derive(Debug)]
pub struct Follower {
    table: ViewTable,
    delta_version: u64,
}

impl Follower {
    /// Opens the table, created when missing; also gives the newest batch view version.
    pub async fn open(table: ViewTable) -> Result<(Self, Option<Published>), Error> {
        let snapshot = table.open().await?;
        let published = table.published(&snapshot).await?;
        Ok((Self { table, delta_version: snapshot.version() }, published))
    }

    /// The next batch view version, `None` while there is none.
    pub async fn next(&mut self) -> Result<Option<Published>, Error> {
        while let Some(change) = self.table.table.change(self.delta_version + 1).await? {
            self.delta_version += 1;
            if let Some(published) = parse(&change) {
                return Ok(Some(published));
            }
        }
        Ok(None)
    }
}

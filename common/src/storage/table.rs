//! A Delta table whose every commit carries application transactions.
//!
//! What must outlive checkpoints (frontiers, cuts, counts) is in `txn` actions, and a commit is made against the
//! snapshot that its contents were made from: delta-rs then refuses it when another writer has moved one of the same
//! `appId`s in between.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use deltalake::{
    DeltaTable, DeltaTableError, TableProperty,
    kernel::{
        Action, Add, EagerSnapshot, Remove, StructField, StructType, Transaction, Version,
        engine::arrow_conversion::TryIntoKernel,
        transaction::{CommitBuilder, CommitProperties, TransactionError},
    },
    logstore::{LogStoreRef, get_actions},
    operations::{create::CreateBuilder, vacuum::VacuumMode},
    protocol::{DeltaOperation, SaveMode},
};
use object_store::{ObjectStore, ObjectStoreExt, path::Path};

use super::{Error, damage, txns};

/// A Delta table.
#[derive(Clone)]
pub struct Table {
    path: String,
    log_store: LogStoreRef,
    objects: Arc<dyn ObjectStore>,
}

impl Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A data file of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct DataFile {
    /// Its path, relative to the table.
    pub path: String,
    /// Its size in bytes.
    pub size: i64,
    /// How many rows it has.
    pub rows: i64,
    /// The smallest and the largest value of integer columns, by column.
    pub ranges: BTreeMap<String, (i64, i64)>,
}

/// What one commit changed.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Files that came.
    pub added: Vec<DataFile>,
    /// Files that went.
    pub removed: Vec<String>,
    /// Application transactions, `appId` to version.
    pub txns: BTreeMap<String, i64>,
    /// When it was made, milliseconds since 1970, if it says so.
    pub timestamp_ms: Option<i64>,
}

/// A table at one version.
#[derive(Clone, Debug)]
pub struct Snapshot {
    delta: EagerSnapshot,
}

impl Snapshot {
    /// The Delta version.
    pub fn version(&self) -> Version {
        self.delta.version()
    }

    /// The files of this version.
    #[allow(deprecated, reason = "the replacement is columns of statistics that would have to be taken apart again")]
    pub fn files(&self) -> Vec<DataFile> {
        self.delta.log_data().iter().map(|file| DataFile::from_add(&file.add_action())).collect()
    }

    /// Removals of all files of this version, for a commit that replaces them.
    pub fn removals(&self) -> Vec<Remove> {
        self.delta.log_data().iter().map(|file| file.remove_action(true)).collect()
    }

    /// The table's columns.
    pub fn schema(&self) -> SchemaRef {
        self.delta.arrow_schema()
    }
}

impl DataFile {
    /// As a commit says it.
    pub fn from_add(add: &Add) -> Self {
        let stats: serde_json::Value =
            add.stats.as_deref().and_then(|stats| serde_json::from_str(stats).ok()).unwrap_or_default();
        let mut ranges = BTreeMap::new();
        if let Some(lows) = stats["minValues"].as_object() {
            for (column, low) in lows {
                if let (Some(low), Some(high)) = (low.as_i64(), stats["maxValues"][column].as_i64()) {
                    ranges.insert(column.clone(), (low, high));
                }
            }
        }
        Self { path: add.path.clone(), size: add.size, rows: stats["numRecords"].as_i64().unwrap_or(-1), ranges }
    }

    /// Whether it may have a row whose `column` lies between `low` and `high`, by what its commit says of it.
    pub fn may_hold(&self, column: &str, low: i64, high: i64) -> bool {
        self.ranges.get(column).is_none_or(|&(least, most)| least <= high && low <= most)
    }

    /// As a commit says it.
    pub fn to_add(&self, modified_ms: i64) -> Add {
        let pick = |value: fn(&(i64, i64)) -> i64| -> serde_json::Map<String, serde_json::Value> {
            self.ranges.iter().map(|(column, range)| (column.clone(), value(range).into())).collect()
        };
        let nulls: serde_json::Map<_, _> = self.ranges.keys().map(|column| (column.clone(), 0.into())).collect();
        let stats = serde_json::json!({
            "numRecords": self.rows, "minValues": pick(|range| range.0), "maxValues": pick(|range| range.1),
            "nullCount": nulls,
        });
        Add {
            path: self.path.clone(),
            size: self.size,
            modification_time: modified_ms,
            data_change: true,
            stats: Some(stats.to_string()),
            ..Add::default()
        }
    }
}

/// Why no Delta table can have these columns; `None` where one can.
pub fn refused(schema: &Schema) -> Option<String> {
    let columns: Result<StructType, _> = schema.try_into_kernel();
    columns.err().map(|error: datafusion::arrow::error::ArrowError| error.to_string())
}

impl Table {
    pub(super) fn new(path: String, log_store: LogStoreRef, objects: Arc<dyn ObjectStore>) -> Self {
        Self { path, log_store, objects }
    }

    /// The table's path under the store's root.
    pub fn path(&self) -> &str {
        &self.path
    }

    fn failed(&self, action: &'static str, source: DeltaTableError) -> Error {
        match &source {
            DeltaTableError::Transaction { source: TransactionError::CommitConflict(_) } => {
                Error::Conflict { table: self.path.clone() }
            }
            _ => Error::Table { action, table: self.path.clone(), source: Box::new(source) },
        }
    }

    /// Makes sure that the table exists, empty when it is new: a first commit that carried data would not be checked
    /// for conflicts when it lost the race for version 0.
    pub async fn ensure(&self, schema: &Schema) -> Result<(), Error> {
        if self.exists().await? {
            return Ok(());
        }
        let columns: StructType = schema
            .try_into_kernel()
            .map_err(|error| self.failed("create", DeltaTableError::Arrow { source: error }))?;
        let columns: Vec<StructField> = columns.fields().cloned().collect();
        let created = CreateBuilder::new()
            .with_log_store(self.log_store.clone())
            .with_columns(columns)
            .with_save_mode(SaveMode::Ignore)
            // Of several creators one wins; the others must not add a second, equal definition to its table.
            .with_commit_properties(CommitProperties::default().with_max_retries(0))
            // Versions that somebody still reads must be there: log files are kept for a week.
            .with_configuration_property(TableProperty::LogRetentionDuration, Some("interval 7 days"))
            .with_configuration_property(TableProperty::CheckpointInterval, Some("20"))
            .await;
        match created {
            Ok(_) => Ok(()),
            // Another process may have created it between the look and the commit.
            Err(_) if self.exists().await? => Ok(()),
            Err(error) => Err(self.failed("create", error)),
        }
    }

    /// Whether the table exists.
    pub async fn exists(&self) -> Result<bool, Error> {
        self.log_store.is_delta_table_location().await.map_err(|error| self.failed("look for", error))
    }

    /// The newest version, or `version`.
    pub async fn load(&self, version: Option<Version>) -> Result<Snapshot, Error> {
        let delta = EagerSnapshot::try_new(self.log_store.as_ref(), version)
            .await
            .map_err(|error| self.failed("open", error))?;
        Ok(Snapshot { delta })
    }

    /// The versions of application transactions at a snapshot; those that are not set are left out.
    pub async fn txns(&self, at: &Snapshot, app_ids: &[String]) -> Result<BTreeMap<String, i64>, Error> {
        let all = txns::all(self.log_store.as_ref(), &at.delta).await;
        if let Some(mut all) = all.map_err(|error| self.failed("read the transactions of", error))? {
            return Ok(app_ids.iter().filter_map(|app_id| all.remove_entry(app_id)).collect());
        }
        let mut found = BTreeMap::new();
        for app_id in app_ids {
            let version = at
                .delta
                .transaction_version(self.log_store.as_ref(), app_id)
                .await
                .map_err(|error| self.failed("read the transactions of", error))?;
            if let Some(version) = version {
                found.insert(app_id.clone(), version);
            }
        }
        Ok(found)
    }

    /// What the commit of `version` changed; `None` while there is no such version.
    pub async fn change(&self, version: Version) -> Result<Option<Change>, Error> {
        let entry = self.log_store.read_commit_entry(version).await.map_err(|error| self.failed("follow", error))?;
        entry.map(|bytes| self.parse(version, &bytes)).transpose()
    }

    fn parse(&self, version: Version, entry: &Bytes) -> Result<Change, Error> {
        let mut change = Change::default();
        for action in get_actions(version, entry).map_err(|error| self.failed("follow", error))? {
            match action {
                Action::Add(add) => change.added.push(DataFile::from_add(&add)),
                Action::Remove(remove) => change.removed.push(remove.path),
                Action::Txn(txn) => {
                    change.txns.insert(txn.app_id, txn.version);
                }
                Action::CommitInfo(info) => change.timestamp_ms = info.timestamp,
                _ => {}
            }
        }
        Ok(change)
    }

    /// Commits files and application transactions against `at`. Gives the table after it.
    ///
    /// [`Error::Conflict`]: another writer has moved one of the transactions, or removed one of the files. After any
    /// other error the commit may be durable all the same: load again and compare the transactions.
    pub async fn commit(
        &self,
        at: &Snapshot,
        added: &[DataFile],
        removed: Vec<Remove>,
        txns: &BTreeMap<String, i64>,
        now_ms: i64,
    ) -> Result<Snapshot, Error> {
        let mode = if removed.is_empty() { SaveMode::Append } else { SaveMode::Overwrite };
        let mut actions: Vec<Action> = removed.into_iter().map(Action::Remove).collect();
        actions.extend(added.iter().map(|file| Action::Add(file.to_add(now_ms))));
        let transactions = txns.iter().map(|(app_id, &version)| Transaction::new(app_id, version)).collect();
        let properties = CommitProperties::default().with_application_transactions(transactions);
        let operation = DeltaOperation::Write { mode, partition_by: None, predicate: None };
        self.apply(at, actions, properties, operation).await
    }

    /// Puts `added` in the place of the files at the paths in `removed`, which hold the same rows. Only right after
    /// `at`: whatever else has been committed since makes it fail.
    ///
    /// After an error the commit may be durable all the same: load again and look.
    pub async fn rewrite(
        &self,
        at: &Snapshot,
        added: &DataFile,
        removed: &BTreeSet<&str>,
        now_ms: i64,
    ) -> Result<Snapshot, Error> {
        let files = at.delta.log_data();
        let there = files.iter().filter(|file| removed.contains(file.path().as_ref()));
        let mut actions: Vec<Action> = there.map(|file| Action::Remove(file.remove_action(false))).collect();
        // Rows that are elsewhere by now would be there twice.
        if actions.len() != removed.len() {
            return Err(Error::Conflict { table: self.path.clone() });
        }
        actions.push(Action::Add(Add { data_change: false, ..added.to_add(now_ms) }));
        let properties = CommitProperties::default().with_max_retries(0);
        let operation = DeltaOperation::Optimize { predicate: None, target_size: added.size };
        self.apply(at, actions, properties, operation).await
    }

    async fn apply(
        &self,
        at: &Snapshot,
        actions: Vec<Action>,
        properties: CommitProperties,
        operation: DeltaOperation,
    ) -> Result<Snapshot, Error> {
        let log_store = self.log_store.clone();
        let commit = CommitBuilder::from(properties).with_actions(actions).build(Some(&at.delta), log_store, operation);
        let done = commit.await.map_err(|error| self.failed("commit to", error))?;
        Ok(Snapshot { delta: done.snapshot().snapshot().clone() })
    }

    /// Deletes files that no version within `retention` has: replaced ones, and those that a writer left behind without
    /// a commit. How many there were.
    pub async fn vacuum(&self, retention: Duration) -> Result<usize, Error> {
        let retention = chrono::Duration::from_std(retention).unwrap_or(chrono::Duration::MAX);
        let vacuum = DeltaTable::new(self.log_store.clone()).vacuum();
        let vacuum = vacuum.with_mode(VacuumMode::Full).with_retention_period(retention);
        let (_, done) = vacuum
            .with_enforce_retention_duration(false)
            .await
            .map_err(|error| self.failed("delete old files of", error))?;
        Ok(done.files_deleted.len())
    }

    /// A file beside the data files; `None` when there is none of that name.
    pub async fn get(&self, name: &str) -> Result<Option<Bytes>, Error> {
        let path = Path::from(format!("{}/{name}", self.path));
        let read = async { self.objects.get(&path).await?.bytes().await };
        match read.await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(Error::Object { action: "read", path: path.to_string(), source }),
        }
    }

    /// Whether a file beside the table's log is there, and as it was written.
    pub async fn is_whole(&self, name: &str) -> Result<bool, Error> {
        match self.get(name).await {
            Ok(found) => Ok(found.is_some()),
            Err(error) if damage(&error).is_some() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Stores a file; a data file's name must be new.
    pub async fn put(&self, name: &str, bytes: Bytes) -> Result<(), Error> {
        let path = Path::from(format!("{}/{name}", self.path));
        self.objects.put(&path, bytes.into()).await.map_err(|source| Error::Object {
            action: "write",
            path: path.to_string(),
            source,
        })?;
        Ok(())
    }
}

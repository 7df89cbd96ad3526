//! The master dataset: every usable event of a topic, in one append-only Delta table.
//!
//! Each commit adds files *and*, as application transactions, how far the log is archived: the frontier of any version
//! is in the table itself. Dead letters are a second table with frontiers of its own.

use std::{collections::BTreeMap, sync::Arc};

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::{
    catalog::Dataset,
    position::{Frontier, Offset, Partition},
    storage::{
        Error, Storage,
        table::{Change, DataFile, Snapshot, Table},
    },
};

mod verify;

pub use verify::verify;

/// The master table of a dataset.
pub fn table(storage: &Storage, dataset: &str) -> Result<Table, Error> {
    storage.table(&format!("master/{dataset}"))
}

/// The dead letters of a dataset.
pub fn dead_letters(storage: &Storage, dataset: &str) -> Result<Table, Error> {
    storage.table(&format!("dead_letters/{dataset}"))
}

/// The columns of a dead letters table.
pub fn dead_letters_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("_partition", DataType::Int32, false),
        Field::new("_offset", DataType::Int64, false),
        Field::new("_timestamp", DataType::Timestamp(TimeUnit::Microsecond, None), false),
        Field::new("reason", DataType::Utf8, false),
        Field::new("raw", DataType::Binary, true),
    ]))
}

/// The `appId` under which a commit says how far a partition is archived.
pub fn position_id(dataset: &str, partition: Partition) -> String {
    format!("lamina/{dataset}/{partition}")
}

/// The `appId` under which a commit says which record of a partition was the last one.
pub fn last_offset_id(dataset: &str, partition: Partition) -> String {
    format!("lamina/{dataset}/{partition}/last_offset")
}

/// The `appId` under which a commit says what that record was: its fingerprint.
pub fn last_fingerprint_id(dataset: &str, partition: Partition) -> String {
    format!("lamina/{dataset}/{partition}/last_fingerprint")
}

/// The `appId` under which a commit says how many rows the table has: the appender's own running count.
pub fn rows_id(dataset: &str) -> String {
    format!("lamina/{dataset}/rows")
}

/// A record's fingerprint, to see whether a log still holds what was archived from it: FNV-1a over its offset, time
/// and bytes.
pub fn fingerprint(offset: Offset, timestamp_ms: i64, value: Option<&[u8]>) -> i64 {
    let head = [offset.to_le_bytes(), timestamp_ms.to_le_bytes()].concat();
    let present = [u8::from(value.is_some())];
    let bytes = head.iter().chain(&present).chain(value.unwrap_or_default());
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    i64::from_le_bytes((hash >> 1).to_le_bytes())
}

/// A master table (or its dead letters) at one version.
#[derive(Clone, Debug, Default)]
pub struct Version {
    /// The Delta version.
    pub version: u64,
    /// How far the log is archived.
    pub frontier: Frontier,
    /// The appender's running count of rows.
    pub rows: i64,
    /// By partition, the last archived record and its fingerprint.
    pub last: BTreeMap<Partition, (Offset, i64)>,
    /// The files.
    pub files: Vec<Arc<DataFile>>,
    /// Whether the change that led here moved the frontier over events that had expired, and archived none: what has
    /// been folded of them is not in the dataset any more.
    pub is_lost: bool,
}

impl Version {
    /// Reads it from a snapshot; `partitions` is how many partitions the topic has.
    pub async fn of(table: &Table, snapshot: &Snapshot, dataset: &str, partitions: Partition) -> Result<Self, Error> {
        let mut ids = vec![rows_id(dataset)];
        for partition in 0..partitions {
            ids.extend([
                position_id(dataset, partition),
                last_offset_id(dataset, partition),
                last_fingerprint_id(dataset, partition),
            ]);
        }
        let txns = table.txns(snapshot, &ids).await?;
        let mut at = Self {
            version: snapshot.version(),
            files: snapshot.files().into_iter().map(Arc::new).collect(),
            ..Self::default()
        };
        at.take(dataset, partitions, &txns);
        known_partitions(table, at.files.iter().map(AsRef::as_ref), partitions)?;
        Ok(at)
    }

    /// The version after `change`.
    pub fn apply(&mut self, dataset: &str, partitions: Partition, change: &Change) {
        self.version += 1;
        let moved = (0..partitions).any(|partition| change.txns.contains_key(&position_id(dataset, partition)));
        // The appender counts its rows in every commit, be there none.
        self.is_lost = moved && !change.txns.contains_key(&rows_id(dataset));
        if !change.removed.is_empty() {
            self.files.retain(|file| !change.removed.contains(&file.path));
        }
        self.files.extend(change.added.iter().cloned().map(Arc::new));
        self.take(dataset, partitions, &change.txns);
    }

    fn take(&mut self, dataset: &str, partitions: Partition, txns: &BTreeMap<String, i64>) {
        if let Some(&rows) = txns.get(&rows_id(dataset)) {
            self.rows = rows;
        }
        for partition in 0..partitions {
            if let Some(&next) = txns.get(&position_id(dataset, partition)) {
                self.frontier.set(partition, next);
            }
            let offset = txns.get(&last_offset_id(dataset, partition));
            let fingerprint = txns.get(&last_fingerprint_id(dataset, partition));
            if let (Some(&offset), Some(&fingerprint)) = (offset, fingerprint) {
                self.last.insert(partition, (offset, fingerprint));
            }
        }
    }

    /// How many rows the files have.
    pub fn rows_in_files(&self) -> i64 {
        self.files.iter().map(|file| file.rows).sum()
    }
}

/// Refuses files with events of partitions that were added to the topic after `partitions` was asked for: the frontier
/// does not say how far those are archived.
fn known_partitions<'a>(
    table: &Table,
    files: impl IntoIterator<Item = &'a DataFile>,
    partitions: Partition,
) -> Result<(), Error> {
    let highest = |file: &DataFile| file.ranges.get("_partition").map(|&(_, highest)| highest);
    match files.into_iter().filter_map(highest).max() {
        Some(added) if added >= i64::from(partitions) => {
            Err(Error::PartitionAdded { table: table.path().to_owned(), added, partitions })
        }
        _ => Ok(()),
    }
}

/// Follows a master table commit by commit.
#[derive(Clone, Debug)]
pub struct Follower {
    table: Table,
    dataset: String,
    partitions: Partition,
    at: Version,
}

impl Follower {
    /// Opens the master table at its newest version; creates it when it is missing.
    pub async fn open(storage: &Storage, dataset: &Dataset, partitions: Partition) -> Result<Self, Error> {
        Self::follow(table(storage, &dataset.name)?, &dataset.name, &dataset.schema, partitions).await
    }

    /// The same for the dataset's dead letters.
    pub async fn open_dead_letters(storage: &Storage, dataset: &Dataset, partitions: Partition) -> Result<Self, Error> {
        Self::follow(dead_letters(storage, &dataset.name)?, &dataset.name, &dead_letters_schema(), partitions).await
    }

    async fn follow(table: Table, dataset: &str, schema: &SchemaRef, partitions: Partition) -> Result<Self, Error> {
        table.ensure(schema).await?;
        let snapshot = table.load(None).await?;
        let at = Version::of(&table, &snapshot, dataset, partitions).await?;
        Ok(Self { table, dataset: dataset.to_owned(), partitions, at })
    }

    /// Where it stands.
    pub fn at(&self) -> &Version {
        &self.at
    }

    /// The table.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Goes one commit on; `false` when there is none yet.
    pub async fn advance(&mut self) -> Result<bool, Error> {
        let Some(change) = self.table.change(self.at.version + 1).await? else { return Ok(false) };
        known_partitions(&self.table, &change.added, self.partitions)?;
        self.at.apply(&self.dataset, self.partitions, &change);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;
    use crate::catalog::Catalog;

    #[tokio::test]
    async fn events_of_an_added_partition_are_not_read_without_its_frontier() {
        let storage = Storage::with_store("memory:///lamina/".parse().unwrap(), Arc::new(InMemory::new())).unwrap();
        let sql = "CREATE TABLE sales (a INT);".to_owned();
        let catalog = Catalog::parse(&[("sales.sql".to_owned(), sql)]).unwrap();
        let dataset = &catalog.datasets["sales"];
        let mut follower = Follower::open(&storage, dataset, 2).await.unwrap();
        let table = table(&storage, "sales").unwrap();
        for (partition, is_known) in [(1, true), (2, false)] {
            let ranges = [("_partition".to_owned(), (0, partition))].into();
            let file = DataFile { path: format!("part-{partition}.parquet"), size: 6, rows: 1, ranges };
            let txns = [(position_id("sales", i32::try_from(partition).unwrap()), 1)].into();
            let snapshot = table.load(None).await.unwrap();
            table.commit(&snapshot, &[file], Vec::new(), &txns, 0).await.unwrap();
            let opened = Follower::open(&storage, dataset, 2).await.map(|follower| follower.at().version);
            for read in [follower.advance().await.map(|_| follower.at().version), opened] {
                match read {
                    Ok(version) => assert!(is_known && version == 1),
                    Err(Error::PartitionAdded { added, .. }) => assert!(!is_known && added == 2),
                    Err(error) => panic!("{error}"),
                }
            }
        }
        let restarted = Follower::open(&storage, dataset, 3).await.unwrap();
        assert_eq!(restarted.at().frontier, Frontier::from_iter([(1, 1), (2, 1)]));
    }

    #[test]
    fn a_fingerprint_tells_records_apart() {
        let known = fingerprint(7, 1_000, Some(b"x"));
        assert!(known >= 0);
        assert_eq!(known, fingerprint(7, 1_000, Some(b"x")));
        for other in
            [fingerprint(8, 1_000, Some(b"x")), fingerprint(7, 1_001, Some(b"x")), fingerprint(7, 1_000, Some(b"y"))]
        {
            assert_ne!(known, other);
        }
        assert_ne!(fingerprint(7, 1_000, Some(b"")), fingerprint(7, 1_000, None));
    }
}

//! Opening: what is in the file must be what was told when it was written. Where it is not, what is whole of it is brought
//! into a new file.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use redb::{Database, DatabaseError, ReadableTable, StorageError, Table, WriteTransaction};

use super::{
    BATCHES, BOUNDS, CACHE_BYTES, COMMIT, COMMITS, TOPICS, Topic, batch, recover,
    witness::{Known, Seen, Witness},
};
use crate::{
    log::{Bounds, Error},
    position::{Offset, Partition},
};

/// More partitions than a topic can have: a number that is read above this is none that was written.
const PARTITIONS_MAX: Partition = 1 << 20;

/// An open log.
pub(super) struct Opened {
    pub(super) database: Database,
    pub(super) witness: Witness,
    pub(super) topics: BTreeMap<String, Topic>,
}

/// Why it cannot be opened.
pub(super) enum Wrong {
    /// It is not what was written.
    Damaged(String),
    /// Something around it.
    Failed(Box<dyn std::error::Error + Send + Sync>),
}

impl From<redb::Error> for Wrong {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Corrupted(reason) => Self::Damaged(reason),
            redb::Error::Io(error) => error.into(),
            // What is in the file is not of the kind that it was made with.
            error @ (redb::Error::TableTypeMismatch { .. }
            | redb::Error::TypeDefinitionChanged { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::UpgradeRequired(_)) => Self::Damaged(error.to_string()),
            error => Self::Failed(error.into()),
        }
    }
}

impl From<std::io::Error> for Wrong {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => Self::Damaged(error.to_string()),
            _ => Self::Failed(error.into()),
        }
    }
}

/// Opens the log in a folder.
pub(super) fn open(folder: &Path, file: &Path) -> Result<Opened, Error> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Unavailable {
        action: format!("open the embedded log `{}`", file.display()),
        source,
    };
    let seen = Witness::read(folder).map_err(|error| failed(error.into()))?;
    let damaged = |reason: &str| {
        Error::Corrupt(format!(
            "the embedded log `{}` is damaged: {reason}; restore its folder from a copy",
            file.display()
        ))
    };
    match open_file(folder, file, seen.as_ref()) {
        Ok(opened) => Ok(opened),
        Err(Wrong::Failed(source)) => Err(failed(source)),
        Err(Wrong::Damaged(reason)) => {
            let Some(seen) = seen else { return Err(damaged(&reason)) };
            recover::recover(folder, file, &seen, &reason)?;
            open_file(folder, file, Some(&seen)).map_err(|wrong| match wrong {
                Wrong::Damaged(reason) => damaged(&reason),
                Wrong::Failed(source) => failed(source),
            })
        }
    }
}

fn open_file(folder: &Path, file: &Path, seen: Option<&Seen>) -> Result<Opened, Wrong> {
    // Some damage makes the database panic.
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(file).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
                Wrong::Failed("another process has it open: stop that one or choose another folder".into())
            }
            DatabaseError::Storage(StorageError::Io(error)) => error.into(),
            error => redb::Error::from(error).into(),
        })?;
        let (topics, commit) = load(&database, seen)?;
        Ok::<_, Wrong>((database, topics, commit))
    }));
    let (database, topics, commit) = opened.map_err(|_| Wrong::Damaged("its pages cannot be read".to_owned()))??;
    let witness = Witness::open(folder)?;
    witness.write(&seen_of(commit, &topics))?;
    Ok(Opened { database, witness, topics })
}

/// What there is to remember of topics.
pub(super) fn seen_of(commit: u64, topics: &BTreeMap<String, Topic>) -> Seen {
    let known = |topic: &Topic| Known {
        id: topic.id,
        bounds: (0..topic.partitions)
            .map(|partition| (partition, (topic.bounds.start.get(partition), topic.bounds.end.get(partition))))
            .collect(),
    };
    Seen { commit, topics: topics.iter().map(|(name, topic)| (name.clone(), known(topic))).collect() }
}

/// The number of a new commit, one more than any before.
pub(super) fn count(transaction: &WriteTransaction) -> Result<u64, redb::Error> {
    let mut commits = transaction.open_table(COMMITS)?;
    let commit = commits.get(COMMIT)?.map_or(0, |commit| commit.value()) + 1;
    commits.insert(COMMIT, commit)?;
    Ok(commit)
}

/// The topics, after a look at whether they are all there, and the number of the commit that this is.
fn load(database: &Database, seen: Option<&Seen>) -> Result<(BTreeMap<String, Topic>, u64), Wrong> {
    let transaction = database.begin_write().map_err(redb::Error::from)?;
    // Nothing is written twice under one number, be it that a commit was under way when the process ended.
    let commit = count(&transaction)?;
    let mut topics = BTreeMap::new();
    {
        let batches = transaction.open_table(BATCHES).map_err(redb::Error::from)?;
        let bounds = transaction.open_table(BOUNDS).map_err(redb::Error::from)?;
        let named = transaction.open_table(TOPICS).map_err(redb::Error::from)?;
        let mut numbers = BTreeMap::new();
        for entry in named.iter().map_err(redb::Error::from)? {
            let (name, topic) = entry.map_err(redb::Error::from)?;
            let (id, partitions) = topic.value();
            if !(1..=PARTITIONS_MAX).contains(&partitions) || numbers.insert(id, partitions).is_some() {
                return Err(Wrong::Damaged(format!("topic `{}` is not as it was created", name.value())));
            }
            let mut known = Bounds::default();
            for partition in 0..partitions {
                let (start, end) =
                    bounds.get((id, partition)).map_err(redb::Error::from)?.map_or((0, 0), |bounds| bounds.value());
                if ends(&batches, id, name.value(), partition)? != (start < end).then_some((start, end)) {
                    let detail =
                        format!("the first or last records of `{}` partition {partition} are gone", name.value());
                    return Err(Wrong::Damaged(detail));
                }
                known.start.set(partition, start);
                known.end.set(partition, end);
            }
            topics.insert(name.value().to_owned(), Topic { id, partitions, bounds: known });
        }
        let is_known = |(id, partition): (u32, Partition)| {
            numbers.get(&id).is_some_and(|&partitions| (0..partitions).contains(&partition))
        };
        for entry in bounds.iter().map_err(redb::Error::from)? {
            let (place, _) = entry.map_err(redb::Error::from)?;
            if !is_known(place.value()) {
                return Err(Wrong::Damaged("it has records of a topic that it does not know".to_owned()));
            }
        }
    }
    if let Some(seen) = seen {
        compare(seen, &seen_of(commit - 1, &topics))?;
    }
    transaction.commit().map_err(redb::Error::from)?;
    Ok((topics, commit))
}

/// The offsets that the batches of a partition stand for, by the first of them and the last.
fn ends(
    batches: &Table<'_, (u32, i32, i64), &'static [u8]>,
    id: u32,
    topic: &str,
    partition: Partition,
) -> Result<Option<(Offset, Offset)>, Wrong> {
    let all = || batches.range((id, partition, i64::MIN)..=(id, partition, i64::MAX)).map_err(redb::Error::from);
    let (first, last) = (all()?.next(), all()?.next_back());
    let (Some(first), Some(last)) = (first, last) else { return Ok(None) };
    let first = first.map_err(redb::Error::from)?.0.value().2;
    let (key, value) = last.map_err(redb::Error::from)?;
    let Some((end, _)) = batch::records(value.value(), topic, partition, key.value().2) else {
        return Err(Wrong::Damaged(format!(
            "the last records of `{topic}` partition {partition} are not what was written"
        )));
    };
    Ok(Some((first, end)))
}

/// Whether all is there that was seen.
fn compare(seen: &Seen, found: &Seen) -> Result<(), Wrong> {
    if found.commit < seen.commit {
        return Err(Wrong::Damaged(format!("its commit {} cannot be read, only {}", seen.commit, found.commit)));
    }
    // A commit that nobody was told of may have followed.
    let is_exact = found.commit == seen.commit;
    for (name, known) in &seen.topics {
        let has_all = found.topics.get(name).is_some_and(|found| {
            let follows = |(partition, (start, end)): (&Partition, &(Offset, Offset))| {
                found.bounds.get(partition).is_some_and(|now| now.0 >= *start && now.1 >= *end)
            };
            found.id == known.id && found.bounds.len() == known.bounds.len() && known.bounds.iter().all(follows)
        });
        if !has_all {
            return Err(Wrong::Damaged(format!("topic `{name}` is not what it was when it was last written")));
        }
    }
    if is_exact && found.topics != seen.topics {
        return Err(Wrong::Damaged("its topics are not what they were when it was last written".to_owned()));
    }
    Ok(())
}

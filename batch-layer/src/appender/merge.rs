//! Small files into large ones: what is archived every few seconds would soon be more files than anyone can read in good
//! time.
//!
//! Files that are about as large as one another are merged, so a row is written again only as often as files grow from
//! one size to the next. It is done between two commits of the appender, by itself: nothing else moves the table then. The
//! rows stay the same, and so does what the transactions say of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use common::{
    fault::chain,
    process::Failure,
    storage::{
        Storage,
        parquet::{File, Layout},
        scan::Scan,
        table::{DataFile, Table},
    },
};
use datafusion::{
    arrow::datatypes::SchemaRef,
    execution::{TaskContext, memory_pool::UnboundedMemoryPool},
};
use futures::StreamExt;

use super::{
    Error, Place,
    commit::{Commit, FILE_BYTES, name, stands_alike},
};

/// A file of this size is left as it is, in bytes.
const LARGE: i64 = 64 << 20;

impl Commit {
    /// Merges files of a table, where there are enough of one size. A failure of that is none of archiving: it is told,
    /// and tried again after the next commit.
    pub(super) async fn merge(&self, at: Place, schema: &SchemaRef) -> Result<Place, Error> {
        let small = due(&at.version.files, self.context.settings.merge_files);
        let cancelled = self.context.supervisor.cancelled();
        if small.is_empty() || cancelled.is_cancelled() {
            return Ok(at);
        }
        let failed = |error: &(dyn std::error::Error + 'static)| {
            tracing::warn!("could not merge {} small files of `{}`: {}", small.len(), at.table.path(), chain(error));
        };
        let (storage, table, schema) = (self.context.storage.clone(), at.table.clone(), schema.clone());
        // Not where queries and the log are waited for: it is work for the processor.
        let (files, compute) = (small.clone(), &self.context.compute);
        let mut merging = compute.spawn(async move { merged(&storage, &table, schema, &files).await });
        let merged = tokio::select! {
            () = cancelled.cancelled() => {
                merging.abort();
                return Ok(at);
            }
            merged = &mut merging => merged.map_err(Failure::from).flatten(),
        };
        let merged = match merged {
            Ok(merged) => merged,
            Err(error) => {
                failed(error.as_ref());
                return Ok(at);
            }
        };
        let removed: BTreeSet<&str> = small.iter().map(|file| file.path.as_str()).collect();
        match at.table.rewrite(&at.snapshot, &merged, &removed, self.context.clock.now_ms()).await {
            Ok(_) => self.metrics.merges.with_label_values(&[&self.dataset.name]).inc(),
            Err(error) => failed(&error),
        }
        // Whether it was committed, and whether somebody else has moved the table: only the table knows.
        let found = self.reload(&at, &mut self.retry()).await?;
        if !stands_alike(&found.version, &at.version) {
            let (from, to) = (at.version.frontier.clone(), found.version.frontier);
            return Err(Error::Moved { table: at.table.path().to_owned(), from, to });
        }
        Ok(found)
    }
}

/// The files to merge: the oldest of `many` that are within four times of one another's size, as many as make a large
/// one.
fn due(files: &[Arc<DataFile>], many: usize) -> Vec<DataFile> {
    let mut by_size: BTreeMap<u32, Vec<&Arc<DataFile>>> = BTreeMap::new();
    for file in files.iter().filter(|file| file.size < LARGE) {
        by_size.entry(file.size.max(1).ilog2() / 2).or_default().push(file);
    }
    let Some(mut alike) = by_size.into_values().find(|alike| alike.len() >= many.max(2)) else { return Vec::new() };
    // Names are in the order of time.
    alike.sort_by(|a, b| a.path.cmp(&b.path));
    let mut bytes = 0;
    let fits = |file: &&Arc<DataFile>| {
        let fits = bytes < FILE_BYTES;
        bytes += usize::try_from(file.size).unwrap_or(0);
        fits
    };
    alike.into_iter().take_while(fits).map(|file| (**file).clone()).collect()
}

/// Stores one file with the rows of all of `files`, in their order. No commit names it yet.
async fn merged(storage: &Storage, table: &Table, schema: SchemaRef, files: &[DataFile]) -> Result<DataFile, Failure> {
    let runtime = storage.runtime(Arc::new(UnboundedMemoryPool::default()))?;
    let scan = Scan::whole(table.path(), schema.clone(), files).plan(&runtime)?;
    let mut rows = scan.execute(0, Arc::new(TaskContext::default().with_runtime(runtime)))?;
    let mut file = File::new(&schema, Layout::Master)?;
    while let Some(batch) = rows.next().await {
        file.write(&batch?)?;
        tokio::task::yield_now().await;
    }
    let wanted: i64 = files.iter().map(|file| file.rows).sum();
    if file.rows() != wanted {
        return Err(format!("they hold {wanted} rows by what their commits say, and {} were read", file.rows()).into());
    }
    let (bytes, file) = file.finish(name())?;
    table.put(&file.path, bytes).await?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_one_size_are_merged_the_oldest_first() {
        let check = |sizes: &[i64], expected: &[usize]| {
            let file =
                |(i, &size): (usize, &i64)| DataFile { path: format!("part-{i}"), size, rows: 1, ranges: [].into() };
            let mut files: Vec<_> = sizes.iter().enumerate().map(file).map(Arc::new).collect();
            files.reverse();
            let due: Vec<String> = due(&files, 3).into_iter().map(|file| file.path).collect();
            let expected: Vec<String> = expected.iter().map(|i| format!("part-{i}")).collect();
            assert_eq!(due, expected, "{sizes:?}");
        };
        check(&[], &[]);
        check(&[1000, 1000], &[]);
        check(&[1000, 1000, 900], &[0, 1, 2]);
        check(&[1000, 100_000, 1000, 9_000_000, 900], &[0, 2, 4]);
        // Large ones are left alone, and what is merged makes one of them, not more.
        check(&[LARGE; 5], &[]);
        check(&[LARGE - 1; 5], &[0, 1, 2]);
    }
}

//! Deletes what nobody can read any more: files of replaced batch view versions, tables of definitions that are not in
//! force, those that a writer left behind without a commit, and the oldest job records.
//!
//! The master dataset and its dead letters are the ground state: no event of theirs is ever deleted. What goes are files
//! whose events are in a larger one, a week after they were merged, so that other engines may read old versions.

use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

use common::{
    catalog::{Catalog, published},
    fault::chain,
    jobs::Jobs,
    master,
    process::Failure,
    storage::{self, Storage},
    view::ViewTable,
};
use futures::TryStreamExt;
use object_store::{ObjectStoreExt, path::Path};

use crate::Context;

const EVERY: Duration = Duration::from_secs(300);
/// Every so many times the master dataset is looked at, too: its files are listed for that.
const MASTER_EVERY: usize = 72;
/// What has been replaced is kept for so long, for those who read it by other means than Lamina's.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// So many versions are looked at first; mostly that is enough.
const HISTORY: usize = 16;

/// Looks now and then, until it is told to stop.
pub(crate) async fn run(context: Arc<Context>) -> Result<(), Infallible> {
    let cancelled = context.supervisor.cancelled();
    for round in 0_usize.. {
        tokio::select! {
            () = cancelled.cancelled() => break,
            () = tokio::time::sleep(EVERY) => {}
        }
        let work = async {
            tidy(&context).await;
            if round.is_multiple_of(MASTER_EVERY) {
                tidy_master(&context).await;
            }
        };
        tokio::select! {
            () = cancelled.cancelled() => break,
            () = work => {}
        }
    }
    Ok(())
}

async fn tidy_master(context: &Context) {
    for dataset in context.catalog.datasets.keys() {
        for table in [master::table(&context.storage, dataset), master::dead_letters(&context.storage, dataset)] {
            let vacuumed = async { table?.vacuum(KEPT).await };
            match vacuumed.await {
                Ok(0) => {}
                Ok(files) => tracing::info!(dataset, files, "deleted files that were merged a week ago"),
                Err(error) => tracing::warn!(dataset, "could not delete old files: {}", chain(&error)),
            }
        }
    }
}

async fn tidy(context: &Context) {
    let retention_ms = i64::try_from(context.settings.retention.as_millis()).unwrap_or(i64::MAX);
    for view in context.catalog.views.values() {
        let oldest_ms = context.clock.now_ms().saturating_sub(retention_ms);
        let swept = async { sweep(&context.storage, &ViewTable::new(&context.storage, view)?, oldest_ms).await };
        if let Err(error) = swept.await {
            tracing::warn!(view = view.name, "could not delete old files: {}", chain(&error));
        }
    }
    let oldest_ms = context.clock.now_ms() - i64::try_from(KEPT.as_millis()).unwrap_or(i64::MAX);
    if let Err(error) = sweep_definitions(&context.storage, &context.catalog, oldest_ms).await {
        tracing::warn!("could not delete tables of old definitions: {}", chain(error.as_ref()));
    }
    let jobs = Jobs::new(context.storage.clone());
    // What a lost job has announced is kept by the speed layer until the job has ended.
    if let Err(error) = jobs.end_abandoned(&context.settings.owner, context.clock.as_ref()).await {
        tracing::warn!("could not end lost jobs: {}", chain(&error));
    }
    if let Err(error) = jobs.prune().await {
        tracing::warn!("could not delete old job records: {}", chain(&error));
    }
}

/// Deletes the files of a view that are older than `oldest_ms`, unless a version names them that was the newest one at
/// that time or later. A recompute gives files up that have waited for half of that, so none that is deleted here is
/// ever committed.
async fn sweep(storage: &Storage, table: &ViewTable, oldest_ms: i64) -> Result<(), storage::Error> {
    if !table.table().exists().await? {
        return Ok(());
    }
    let prefix = Path::from(table.table().path());
    // Listed before the versions are looked at: what is published in between is not in the list.
    let objects = storage.objects();
    let listed: Vec<_> = objects.list(Some(&prefix)).try_collect().await.map_err(failed("list", &prefix))?;
    let named = named(table, oldest_ms).await?;
    for object in listed {
        let Some(name) = object.location.filename() else { continue };
        let is_ours = name.starts_with("part-") || name.starts_with("_failed-");
        let is_data = is_ours && !object.location.as_ref().contains("_delta_log");
        if is_data && !named.contains(name) && object.last_modified.timestamp_millis() < oldest_ms {
            delete(storage, &object.location).await?;
        }
    }
    Ok(())
}

/// Deletes the tables of views' definitions that are not in force, if nothing has been written to them since
/// `oldest_ms`: until then going back to one costs no more than catching up.
async fn sweep_definitions(storage: &Storage, catalog: &Catalog, oldest_ms: i64) -> Result<(), Failure> {
    let known = in_force(storage, catalog).await?;
    let objects = storage.objects();
    let views = Path::from("views");
    for view in objects.list_with_delimiter(Some(&views)).await.map_err(failed("list", &views))?.common_prefixes {
        let definitions = objects.list_with_delimiter(Some(&view)).await.map_err(failed("list", &view))?;
        for table in definitions.common_prefixes.iter().filter(|table| !known.contains(table.as_ref())) {
            let listed: Vec<_> = objects.list(Some(table)).try_collect().await.map_err(failed("list", table))?;
            if listed.iter().any(|object| object.last_modified.timestamp_millis() >= oldest_ms) {
                continue;
            }
            // Somebody may have gone back to it meanwhile.
            if in_force(storage, catalog).await?.contains(table.as_ref()) {
                continue;
            }
            let mut paths: Vec<Path> = listed.into_iter().map(|object| object.location).collect();
            // The table's log last, its newest version first: what is left of a table is one.
            paths.sort_by(|a, b| b.cmp(a));
            for path in paths {
                delete(storage, &path).await?;
            }
            tracing::info!(table = table.as_ref(), "deleted a view's table: its definition is not in force any more");
        }
    }
    Ok(())
}

/// The tables of all views that answer or are about to: of the catalog at work here, of the newest one, and of the one
/// before that answers until the newest has been built.
async fn in_force(storage: &Storage, catalog: &Catalog) -> Result<BTreeSet<String>, Failure> {
    let present = published::present(storage).await?;
    let newest = present.as_ref().map(|present| present.newest.catalog()).transpose()?;
    let before = present.and_then(|present| present.built).map(|(_, before)| before);
    let others = newest.iter().chain(before.as_deref()).flat_map(|other| other.views.values());
    let tables: Result<BTreeSet<String>, storage::Error> = catalog
        .views
        .values()
        .chain(others)
        .map(|view| Ok(ViewTable::new(storage, view)?.table().path().to_owned()))
        .collect();
    Ok(tables?)
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(object_store::Error) -> storage::Error {
    let path = path.to_string();
    move |source| storage::Error::Object { action, path, source }
}

/// Deletes an object, unless another process that is at it too has done so.
async fn delete(storage: &Storage, path: &Path) -> Result<(), storage::Error> {
    match storage.objects().delete(path).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(source) => Err(failed("delete", path)(source)),
    }
}

/// The files of the newest version and of those that were replaced at `oldest_ms` or later: a query that began before
/// may still read them.
async fn named(table: &ViewTable, oldest_ms: i64) -> Result<BTreeSet<String>, storage::Error> {
    let mut limit = HISTORY;
    let history = loop {
        let history = table.history(limit).await?;
        if history.len() < limit || history.last().is_some_and(|version| version.published_at_ms < oldest_ms) {
            break history;
        }
        limit *= 4;
    };
    let newest = table.table().load(None).await?;
    let mut named: BTreeSet<String> = newest.files().into_iter().map(|file| file.path).collect();
    named.extend(table.published(&newest).await?.map(|version| version.failed_file()));
    for version in &history {
        named.extend(version.files.iter().map(|file| file.path.clone()));
        named.insert(version.failed_file());
        if version.published_at_ms < oldest_ms {
            break;
        }
    }
    Ok(named)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use common::{
        clock::{Clock, System},
        fold::{Failed, FailedEvent},
        storage::table::DataFile,
        view::Published,
    };
    use object_store::memory::InMemory;

    use super::*;

    fn files_of(aggregate: &str) -> Vec<(String, String)> {
        let sql = format!(
            "CREATE TABLE sales (id BIGINT NOT NULL);
             CREATE MATERIALIZED VIEW total WITH (refresh = '1 minute') AS
             SELECT id, {aggregate} AS orders FROM sales GROUP BY id;"
        );
        vec![("sales.sql".to_owned(), sql)]
    }

    fn storage() -> Storage {
        Storage::with_store("memory:///lamina/".parse().unwrap(), Arc::new(InMemory::new())).unwrap()
    }

    fn view_table() -> (Storage, ViewTable) {
        let storage = storage();
        let catalog = Catalog::parse(&files_of("count(*)")).unwrap();
        let table = ViewTable::new(&storage, &catalog.views["total"]).unwrap();
        (storage, table)
    }

    /// The clock's time once it has moved on since `ms`.
    async fn later_than(ms: i64) -> i64 {
        let deadline = Instant::now() + Duration::from_secs(10);
        while System.now_ms() <= ms + 1 {
            assert!(Instant::now() < deadline, "the clock stands still");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        System.now_ms()
    }

    async fn publish(table: &ViewTable, batch_version: i64) -> i64 {
        let name = format!("part-{batch_version}.parquet");
        table.table().put(&name, "groups".into()).await.unwrap();
        let file = DataFile { path: name, size: 6, rows: 1, ranges: [].into() };
        let version = Published {
            batch_version,
            master_version: batch_version,
            cut: [(0, batch_version)].into_iter().collect(),
            rows: 1,
            failed_events: 1,
            failed_groups: 0,
            published_at_ms: System.now_ms(),
            files: Arc::new(vec![file]),
        };
        let mut failed = Failed::default();
        failed.add(FailedEvent { timestamp_us: 0, partition: 0, offset: 0, reason: String::new() });
        table.put_failed(&version, &failed).await.unwrap();
        table.publish(&table.open().await.unwrap(), &version).await.unwrap();
        let history = table.history(1).await.unwrap();
        later_than(history[0].published_at_ms).await
    }

    async fn files(storage: &Storage, table: &ViewTable) -> Vec<String> {
        let prefix = Path::from(table.table().path());
        let listed: Vec<_> = storage.objects().list(Some(&prefix)).try_collect().await.unwrap();
        let names = listed.iter().filter_map(|object| object.location.filename());
        let names_of = |what: &str| {
            let mut names: Vec<_> = names.clone().filter(|name| name.starts_with(what)).map(str::to_owned).collect();
            names.sort();
            names
        };
        let (parts, failed) = (names_of("part-"), names_of("_failed-"));
        let versions = parts.iter().filter(|name| !name.contains("abandoned")).count();
        assert_eq!(failed.len(), versions, "what failed goes with its version");
        parts
    }

    #[tokio::test]
    async fn only_what_nobody_can_read_is_deleted() {
        let (storage, table) = view_table();
        let begin = later_than(System.now_ms()).await;
        table.table().put("part-abandoned.parquet", "groups".into()).await.unwrap();
        let mut after = vec![later_than(System.now_ms()).await];
        // More versions than are looked at first.
        let versions = i64::try_from(HISTORY + 4).unwrap();
        for batch_version in 1..=versions {
            after.push(publish(&table, batch_version).await);
        }
        let part = |version: i64| format!("part-{version}.parquet");
        let from = |first: i64| -> Vec<String> {
            let mut names: Vec<_> = (first..=versions).map(part).collect();
            names.sort();
            names
        };
        let with_abandoned = [from(1), vec!["part-abandoned.parquet".to_owned()]].concat();
        let cases = [
            ("nothing is old", begin, with_abandoned),
            ("a file without a commit is", after[0], from(1)),
            ("the first version is old, but was the newest then", after[1], from(1)),
            ("versions replaced before are gone", after[3], from(3)),
            ("the newest stays, however old", after[HISTORY + 4], from(versions)),
        ];
        for (what, oldest_ms, expected) in cases {
            sweep(&storage, &table, oldest_ms).await.unwrap();
            assert_eq!(files(&storage, &table).await, expected, "{what}");
        }
    }

    #[tokio::test]
    async fn tables_of_definitions_that_are_not_in_force_are_deleted() {
        let storage = storage();
        let mut tables = Vec::new();
        // There is an event, so a view is built once it has a batch view version.
        let catalog = Catalog::parse(&files_of("count(*)")).unwrap();
        let master = master::table(&storage, "sales").unwrap();
        master.ensure(&catalog.datasets["sales"].schema).await.unwrap();
        let event = DataFile { path: "part-1.parquet".to_owned(), size: 6, rows: 1, ranges: [].into() };
        let snapshot = master.load(None).await.unwrap();
        master.commit(&snapshot, &[event], Vec::new(), &[].into(), 0).await.unwrap();
        for aggregate in ["count(*)", "sum(id)", "max(id)"] {
            let files = files_of(aggregate);
            published::publish(&storage, &files).await.unwrap();
            let catalog = Catalog::parse(&files).unwrap();
            let table = ViewTable::new(&storage, &catalog.views["total"]).unwrap();
            table.open().await.unwrap();
            tables.push((catalog, table));
        }
        let exist = async || {
            let mut exist = Vec::new();
            for (_, table) in &tables {
                exist.push(table.table().exists().await.unwrap());
            }
            exist
        };
        publish(&tables[1].1, 1).await;
        let newest = &tables[2].0;
        sweep_definitions(&storage, newest, 0).await.unwrap();
        assert_eq!(exist().await, [true, true, true], "nothing is old");
        let now_ms = later_than(System.now_ms()).await;
        sweep_definitions(&storage, newest, now_ms).await.unwrap();
        assert_eq!(exist().await, [false, true, true], "the one before answers until the newest is built");
        let after = publish(&tables[2].1, 1).await;
        sweep_definitions(&storage, newest, after).await.unwrap();
        assert_eq!(exist().await, [false, false, true]);
        // Another process has gone back to it, and this one does not work by it yet.
        tables[0].1.open().await.unwrap();
        published::publish(&storage, &files_of("count(*)")).await.unwrap();
        let after = later_than(System.now_ms()).await;
        sweep_definitions(&storage, newest, after).await.unwrap();
        assert_eq!(exist().await, [true, false, true]);
    }
}

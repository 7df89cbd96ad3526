//! One batch view version: a view's fold over the whole master dataset, up to a cut.

use std::{
    collections::BTreeSet,
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use common::{
    catalog::View,
    fault::chain,
    fold::{Collector, Failed, is_unplaced},
    master::{self, Version},
    position::Partition,
    storage::{self, scan::Scan, table::DataFile},
    view::{Published, ViewTable},
};
use datafusion::{
    arrow::compute::SortOptions,
    error::DataFusionError,
    execution::{TaskContext, memory_pool::FairSpillPool},
    physical_expr::{LexOrdering, PhysicalSortExpr, expressions::Column},
    physical_plan::{
        ExecutionPlan, Partitioning, PhysicalExpr,
        coalesce_partitions::CoalescePartitionsExec,
        repartition::RepartitionExec,
        sorts::{sort::SortExec, sort_preserving_merge::SortPreservingMergeExec},
    },
    prelude::SessionConfig,
};

use crate::Context;

mod write;

use write::Writer;

const MERGE_BYTES: usize = 10 << 20;
const COMMIT_TRIES: u32 = 5;
const COMMIT_PAUSE: Duration = Duration::from_millis(100);

/// Why a recompute has published nothing.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each field is")]
pub(crate) enum Error {
    #[error(transparent)]
    Storage(#[from] storage::Error),
    #[error("could not compute the view")]
    Compute(#[from] DataFusionError),
    #[error("another recompute published batch version {won} of view `{view}` while this one was at work")]
    Overtaken { view: String, won: i64 },
    #[error(
        "master version {version} of `{dataset}` holds {files} rows by its files and {counted} by the appender's count, and \
         {read} were read: nothing is published; if this happens again, the table has been changed by somebody else"
    )]
    Gate { dataset: String, version: u64, files: i64, counted: i64, read: i64 },
    #[error(
        "the files of batch version {wanted} of view `{view}` waited {waited:?} for their commit, more than half of the \
         time after which files without one are deleted: nothing is published; raise `batch.retention`"
    )]
    TooOld { view: String, wanted: i64, waited: Duration },
    #[error("told to stop before it was done")]
    Stopped,
    #[error("the log of dataset `{dataset}` cannot be reached")]
    Log { dataset: String, source: common::log::Error },
    #[error("the recompute's task died")]
    Died(#[from] tokio::task::JoinError),
}

/// What a recompute has come to.
struct Computed {
    files: Vec<DataFile>,
    failed: Failed,
    failed_groups: i64,
}

/// One recompute.
#[derive(Debug)]
pub(crate) struct Recompute {
    context: Arc<Context>,
    view: Arc<View>,
    table: ViewTable,
    at: Version,
    before: storage::table::Snapshot,
    last: Option<Published>,
    read: Arc<AtomicU64>,
    /// When the first file was stored.
    first_put: Arc<OnceLock<Instant>>,
}

impl Recompute {
    /// Chooses the master version to read: the newest.
    pub(crate) async fn begin(context: Arc<Context>, view: Arc<View>) -> Result<Self, Error> {
        let table = ViewTable::new(&context.storage, &view)?;
        let before = table.open().await?;
        let last = table.published(&before).await?;
        let dataset = &view.dataset;
        let partitions: Partition = context
            .log
            .ensure_topic(&dataset.topic, dataset.partitions)
            .await
            .map_err(|source| Error::Log { dataset: dataset.name.clone(), source })?;
        let master = master::table(&context.storage, &dataset.name)?;
        master.ensure(&dataset.schema).await?;
        let snapshot = master.load(None).await?;
        let at = Version::of(&master, &snapshot, &dataset.name, partitions).await?;
        Ok(Self { context, view, table, at, before, last, read: Arc::default(), first_put: Arc::default() })
    }

    /// The cut that it works towards.
    pub(crate) fn at(&self) -> &Version {
        &self.at
    }

    /// Whether the last batch view version is of this cut already; before the first, whether there is nothing to read.
    pub(crate) fn is_current(&self) -> bool {
        self.at.frontier == self.last.as_ref().map(|last| last.cut.clone()).unwrap_or_default()
    }

    /// Whether files of the last batch view version are damaged or gone.
    pub(crate) async fn is_damaged(&self) -> Result<bool, Error> {
        let Some(last) = &self.last else { return Ok(false) };
        let failed = (last.failed_events > 0).then(|| last.failed_file());
        for name in last.files.iter().map(|file| &file.path).chain(failed.iter()) {
            if !self.table.table().is_whole(name).await? {
                tracing::warn!(view = self.view.name, file = name, "damaged: the batch view version is made again");
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// How many rows have been read so far; for progress.
    pub(crate) fn rows_read(&self) -> Arc<AtomicU64> {
        self.read.clone()
    }

    /// Computes, passes the gate, and publishes.
    pub(crate) async fn run(self) -> Result<Published, Error> {
        let Computed { files, failed, failed_groups } = self.compute().await?;
        let version = Published {
            batch_version: self.last.as_ref().map_or(0, |last| last.batch_version) + 1,
            master_version: i64::try_from(self.at.version).unwrap_or(i64::MAX),
            cut: self.at.frontier.clone(),
            rows: files.iter().map(|file| file.rows).sum(),
            failed_events: failed.count(),
            failed_groups,
            published_at_ms: self.context.clock.now_ms(),
            files: Arc::new(files),
        };
        self.table.put_failed(&version, &failed).await?;
        self.publish(version).await
    }

    /// Commits the files against the table as it was when the work began. After an error only the table knows whether
    /// they are in, so it is read before they are committed again.
    async fn publish(&self, version: Published) -> Result<Published, Error> {
        let mut tries = 0;
        loop {
            self.check_age(&version)?;
            let Err(error) = self.table.publish(&self.before, &version).await else { return Ok(version) };
            let mut newest = self.newest().await;
            while newest.is_err() && tries < COMMIT_TRIES {
                tries += 1;
                tokio::time::sleep(COMMIT_PAUSE * tries).await;
                newest = self.newest().await;
            }
            match newest? {
                Some(newest) if is_same(&newest, &version) => return Ok(version),
                Some(newest) if newest.batch_version >= version.batch_version => {
                    return Err(Error::Overtaken { view: self.view.name.clone(), won: newest.batch_version });
                }
                _ if tries < COMMIT_TRIES => {
                    tries += 1;
                    tracing::warn!(view = self.view.name, "publish: {}; trying again", chain(&error));
                    tokio::time::sleep(COMMIT_PAUSE * tries).await;
                }
                _ => return Err(error.into()),
            }
        }
    }

    async fn newest(&self) -> Result<Option<Published>, storage::Error> {
        let snapshot = self.table.table().load(None).await?;
        self.table.published(&snapshot).await
    }

    /// Files that no commit names are deleted after the retention time, by whichever process sees them: a commit must
    /// not come after that.
    fn check_age(&self, version: &Published) -> Result<(), Error> {
        let waited = self.first_put.get().map(Instant::elapsed).unwrap_or_default();
        if waited <= self.context.settings.retention / 2 {
            return Ok(());
        }
        Err(Error::TooOld { view: self.view.name.clone(), wanted: version.batch_version, waited })
    }

    /// Where no event has failed before, none is expected, and positions are not read. Nothing has been written when one
    /// fails all the same.
    async fn compute(&self) -> Result<Computed, Error> {
        let fold = &self.view.fold;
        if self.last.as_ref().is_none_or(|last| last.failed_events == 0) {
            match self.compute_of(fold.unplaced_projection()).await {
                Err(Error::Compute(error)) if is_unplaced(&error) => {}
                outcome => return outcome,
            }
        }
        self.compute_of(fold.projection()).await
    }

    async fn compute_of(&self, projection: &[usize]) -> Result<Computed, Error> {
        let context = self.task_context()?;
        let scan = self.scan(projection, &context)?;
        let failed = Collector::default();
        let plan = self.plan(scan.clone(), &failed)?;
        let (view, table, first_put) = (self.view.clone(), self.table.clone(), self.first_put.clone());
        let (file_rows, parallelism) = (self.context.settings.file_rows, self.context.settings.parallelism);
        let failed_groups = Arc::new(AtomicI64::new(0));
        let writer = Writer { view, table, first_put, file_rows, parallelism, failed_groups: failed_groups.clone() };
        let mut writing = pin!(writer.run(plan.execute(0, context)?));
        let mut ticker = tokio::time::interval(Duration::from_millis(200));
        let files = loop {
            tokio::select! {
                files = &mut writing => break files?,
                _ = ticker.tick() => self.read.store(rows_out(&scan), Ordering::Relaxed),
            }
        };
        // Failed events were read too.
        self.gate(i64::try_from(rows_out(&scan)).unwrap_or(-1))?;
        Ok(Computed { files, failed: failed.failed(), failed_groups: failed_groups.load(Ordering::Relaxed) })
    }

    fn task_context(&self) -> Result<Arc<TaskContext>, DataFusionError> {
        let settings = &self.context.settings;
        let runtime = self.context.storage.runtime(Arc::new(FairSpillPool::new(settings.memory_bytes)))?;
        // A sort sets aside what merging its spilled runs needs: 10 MB unless told, in each partition, which little
        // memory does not have.
        let aside = (settings.memory_bytes / settings.parallelism.max(1) / 8).min(MERGE_BYTES);
        let config =
            SessionConfig::new().with_target_partitions(settings.parallelism).with_sort_spill_reservation_bytes(aside);
        Ok(Arc::new(TaskContext::default().with_session_config(config).with_runtime(runtime)))
    }

    fn scan(&self, projection: &[usize], context: &TaskContext) -> Result<Arc<dyn ExecutionPlan>, Error> {
        let dataset = &self.view.dataset;
        let files: Vec<DataFile> = self.at.files.iter().map(|file| (**file).clone()).collect();
        let table = master::table(&self.context.storage, &dataset.name)?;
        let scan = Scan {
            table: table.path(),
            schema: dataset.schema.clone(),
            files: &files,
            projection: Some(projection.to_vec()),
            // Nothing is skipped, so that what was read can be counted.
            predicate: None,
            limit: None,
            partitions: self.context.settings.parallelism,
        };
        Ok(scan.plan(&context.runtime_env())?)
    }

    /// States, one a group, sorted by group key.
    fn plan(
        &self,
        scan: Arc<dyn ExecutionPlan>,
        failed: &Collector,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let fold = &self.view.fold;
        let partial = fold.partial_plan(scan, failed)?;
        let keys: Vec<Arc<dyn PhysicalExpr>> = (0..fold.keys().len())
            .map(|key| Arc::new(Column::new(fold.state().field(key).name(), key)) as Arc<dyn PhysicalExpr>)
            .collect();
        let Some(ordering) = LexOrdering::new(keys.iter().map(|key| PhysicalSortExpr {
            expr: key.clone(),
            options: SortOptions { descending: false, nulls_first: true },
        })) else {
            return fold.reduce_plan(Arc::new(CoalescePartitionsExec::new(partial)));
        };
        let parallelism = self.context.settings.parallelism;
        let by_key = RepartitionExec::try_new(partial, Partitioning::Hash(keys, parallelism))?;
        let reduced = fold.reduce_plan(Arc::new(by_key))?;
        let sorted = Arc::new(SortExec::new(ordering.clone(), reduced).with_preserve_partitioning(true));
        Ok(Arc::new(SortPreservingMergeExec::new(ordering, sorted)))
    }

    /// What was read must be what the version has, by its files and by the appender's own count.
    fn gate(&self, read: i64) -> Result<(), Error> {
        let (files, counted) = (self.at.rows_in_files(), self.at.rows);
        if files == read && counted == read {
            return Ok(());
        }
        Err(Error::Gate { dataset: self.view.dataset.name.clone(), version: self.at.version, files, counted, read })
    }
}

/// Whether a table's newest version is the one that was to be published: file names are never given twice, and without
/// files the rest says it.
fn is_same(newest: &Published, version: &Published) -> bool {
    let names =
        |version: &Published| -> BTreeSet<String> { version.files.iter().map(|file| file.path.clone()).collect() };
    let head = |version: &Published| (version.batch_version, version.master_version, version.rows);
    head(newest) == head(version) && newest.cut == version.cut && names(newest) == names(version)
}

fn rows_out(scan: &Arc<dyn ExecutionPlan>) -> u64 {
    scan.metrics().and_then(|metrics| metrics.output_rows()).unwrap_or(0) as u64
}

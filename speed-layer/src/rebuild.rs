//! From the master's files to pieces: what a restart, a new view and a lost cut have in common.
//!
//! Rows are chosen by position, never by file: maintenance moves rows between files. Statistics of files and pages only
//! prune, by partition and by offset: a worker that holds a tenth of the partitions reads about a tenth of the master.
//!
//! What it takes beside the states it comes to is bounded in bytes, however wide the rows are and however many partitions
//! and views there are: the rows that wait to be folded, and the states that wait to be reduced.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use common::{
    catalog::{Dataset, View},
    fold::Failed,
    master::{self, Version},
    position::{Frontier, Offset, Partition},
    storage::{Storage, scan::Scan, table::DataFile},
};
use datafusion::{
    arrow::{
        array::{AsArray, Int64Array, RecordBatch},
        compute::{concat_batches, filter_record_batch, kernels::cmp},
        datatypes::{Int32Type, Int64Type, SchemaRef},
    },
    common::ScalarValue,
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    logical_expr::Operator,
    physical_expr::expressions::{BinaryExpr, col, lit},
    physical_plan::{ExecutionPlan, ExecutionPlanProperties, PhysicalExpr},
};
use futures::{StreamExt, TryStreamExt, stream};

use crate::{piece::Piece, track::Track};

/// Rows of a partition that are folded at once.
const FOLD_ROWS: usize = 64 << 10;
/// Bytes of rows that wait in one stream before all of them are folded.
const WAITING_BYTES: usize = 64 << 20;
/// Bytes that a batch of rows is to take at most, as they are in the files.
const BATCH_BYTES: i64 = 8 << 20;
/// Bytes of states that wait to be reduced, of all views, partitions and streams together.
const UNREDUCED_BYTES: usize = 256 << 20;
/// Bytes of states of one view and partition that are worth reducing.
const REDUCE_BYTES_MIN: usize = 64 << 10;
/// So many partitions are told apart while pages are skipped; of more, most pages have some.
const LISTED: usize = 32;
/// So many rows of a partition are read for nothing without a second thought.
const FOR_NOTHING: Offset = 1 << 16;
/// The master is read for so many groups of partitions, at most.
const GROUPS: usize = 8;

/// A view to rebuild, from its cut on.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) view: Arc<View>,
    pub(crate) cut: Frontier,
}

/// What has been folded of one view and partition.
#[derive(Debug, Default)]
struct Folded {
    states: Vec<RecordBatch>,
    failed: Failed,
    /// Bytes of the states.
    bytes: usize,
    /// Bytes of the states when they were last reduced.
    reduced_bytes: usize,
}

/// The same of all partitions; or why it cannot be.
type ByPartition = Result<BTreeMap<Partition, Folded>, String>;

/// The tracks of a rebuilt view, up to the master version's frontier; or why its SQL cannot be computed.
pub(crate) type Rebuilt = Result<BTreeMap<Partition, Track>, String>;

/// Folds the events from each view's cut up to the frontier of `at`, of one master version for all.
pub(crate) async fn rebuild(
    storage: &Storage,
    dataset: &Dataset,
    at: &Version,
    partitions: &BTreeSet<Partition>,
    wanted: &[Wanted],
    context: &Arc<TaskContext>,
) -> Result<Vec<Rebuilt>> {
    let reading = reading(context, &at.files);
    let mut streams = Vec::new();
    for together in groups(at, partitions, wanted) {
        let plan = plan(storage, dataset, at, &together, wanted, context)?;
        let count = plan.output_partitioning().partition_count();
        streams.extend((0..count).map(|stream| (together.clone(), plan.clone(), stream)));
    }
    let count = streams.len();
    let mut folds = Vec::with_capacity(count);
    for (together, plan, stream) in streams {
        let folding = Folding::new(wanted.to_vec(), together, plan.schema(), context.clone(), count);
        folds.push(fold_stream(folding, plan.execute(stream, reading.clone())?));
    }
    let mut folds = stream::iter(folds).buffer_unordered(parallelism());
    let mut all_folded: Vec<ByPartition> = wanted.iter().map(|_| Ok(BTreeMap::new())).collect();
    while let Some(folded) = folds.try_next().await? {
        for (all, mut some) in all_folded.iter_mut().zip(folded) {
            match (all.as_mut(), some.as_mut()) {
                (Ok(all), Ok(some)) => some.iter_mut().for_each(|(&partition, some)| {
                    let all = all.entry(partition).or_default();
                    all.states.append(&mut some.states);
                    all.failed.join(&some.failed);
                }),
                (_, Err(reason)) => *all = Err(reason.clone()),
                _ => {}
            }
        }
    }
    let mut rebuilt = Vec::new();
    for (wanted, folded) in wanted.iter().zip(all_folded) {
        rebuilt.push(match folded {
            Ok(folded) => tracks(wanted, folded, at, partitions, context).await,
            Err(reason) => Err(reason),
        });
    }
    Ok(rebuilt)
}

/// Folds what a stream has.
async fn fold_stream(mut folding: Folding, mut rows: SendableRecordBatchStream) -> Result<Vec<ByPartition>> {
    let runtime = tokio::runtime::Handle::current();
    // Folding is work for the processor: it must not hold up what else the runtime does.
    let folding = tokio::task::spawn_blocking(move || {
        runtime.block_on(async move {
            while let Some(batch) = rows.next().await {
                folding.take(&batch?).await?;
            }
            folding.end().await
        })
    });
    folding.await.map_err(|error| DataFusionError::External(Box::new(error)))?
}

fn parallelism() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The first offset of a partition that any of the views lacks.
fn lowest(wanted: &[Wanted], partition: Partition) -> Offset {
    wanted.iter().map(|wanted| wanted.cut.get(partition)).min().unwrap_or(0)
}

/// Partitions that are read together, from the lowest of their cuts on. Where that would read more of one for nothing than
/// it has to give, it is read with others or by itself.
fn groups(at: &Version, partitions: &BTreeSet<Partition>, wanted: &[Wanted]) -> Vec<BTreeSet<Partition>> {
    let mut by_cut: Vec<(Offset, Partition)> =
        partitions.iter().map(|&partition| (lowest(wanted, partition), partition)).collect();
    by_cut.sort_unstable();
    let mut groups: Vec<(Offset, BTreeSet<Partition>)> = Vec::new();
    for (cut, partition) in by_cut {
        let gives = (at.frontier.get(partition) - cut).max(FOR_NOTHING);
        let is_last = groups.len() >= GROUPS;
        match groups.last_mut() {
            Some((first, together)) if is_last || cut - *first <= gives => {
                together.insert(partition);
            }
            _ => groups.push((cut, [partition].into())),
        }
    }
    groups.into_iter().map(|(_, together)| together).collect()
}

async fn tracks(
    wanted: &Wanted,
    mut folded: BTreeMap<Partition, Folded>,
    at: &Version,
    partitions: &BTreeSet<Partition>,
    context: &Arc<TaskContext>,
) -> Rebuilt {
    let mut tracks = BTreeMap::new();
    for &partition in partitions {
        let (from, to) = (wanted.cut.get(partition), at.frontier.get(partition));
        let mut track = Track::new(from);
        if to > from {
            let Folded { states, failed, .. } = folded.remove(&partition).unwrap_or_default();
            let states = wanted.view.fold.reduce(states, context).await.map_err(|error| error.strip_backtrace())?;
            track.push(Piece { from, to, states, failed, level: 1 });
        }
        tracks.insert(partition, track);
    }
    Ok(tracks)
}

/// A context whose batches have fewer rows where rows are wide.
fn reading(context: &Arc<TaskContext>, files: &[Arc<DataFile>]) -> Arc<TaskContext> {
    let widest = files.iter().map(|file| file.size / file.rows.max(1)).max().unwrap_or(0);
    let rows = usize::try_from(BATCH_BYTES / widest.max(1)).unwrap_or(usize::MAX);
    let config = context.session_config().clone();
    let rows = rows.clamp(16, config.batch_size());
    Arc::new(
        TaskContext::default().with_session_config(config.with_batch_size(rows)).with_runtime(context.runtime_env()),
    )
}

fn plan(
    storage: &Storage,
    dataset: &Dataset,
    at: &Version,
    partitions: &BTreeSet<Partition>,
    wanted: &[Wanted],
    context: &Arc<TaskContext>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let lowest = |partition| lowest(wanted, partition);
    let files: Vec<DataFile> =
        at.files.iter().filter(|file| may_hold(file, partitions, lowest)).map(|file| (**file).clone()).collect();
    let positions = [dataset.schema.index_of("_partition")?, dataset.schema.index_of("_offset")?];
    let mut projection: Vec<usize> =
        wanted.iter().flat_map(|wanted| wanted.view.fold.projection()).copied().chain(positions).collect();
    projection.sort_unstable();
    projection.dedup();
    let first = partitions.iter().copied().map(lowest).min().unwrap_or(0);
    let compare = |column: &str, operator: Operator, value: ScalarValue| -> Result<Arc<dyn PhysicalExpr>> {
        Ok(Arc::new(BinaryExpr::new(col(column, &dataset.schema)?, operator, lit(value))))
    };
    let both = |operator: Operator, left: Arc<dyn PhysicalExpr>, right| -> Arc<dyn PhysicalExpr> {
        Arc::new(BinaryExpr::new(left, operator, right))
    };
    // Pages are skipped by conditions on one column each.
    let mut predicate = compare("_offset", Operator::GtEq, first.into())?;
    if partitions.len() <= LISTED {
        let mut listed: Option<Arc<dyn PhysicalExpr>> = None;
        for &partition in partitions {
            let is_it = compare("_partition", Operator::Eq, partition.into())?;
            listed = Some(match listed {
                Some(others) => both(Operator::Or, others, is_it),
                None => is_it,
            });
        }
        predicate = listed.map_or(predicate.clone(), |listed| both(Operator::And, listed, predicate));
    }
    let table = master::table(storage, &dataset.name).map_err(|error| DataFusionError::External(Box::new(error)))?;
    Scan {
        table: table.path(),
        schema: dataset.schema.clone(),
        files: &files,
        projection: Some(projection),
        predicate: Some(predicate),
        limit: None,
        partitions: parallelism(),
    }
    .plan(&context.runtime_env())
}

/// Whether a file may hold a row at or after the cuts.
fn may_hold(file: &DataFile, partitions: &BTreeSet<Partition>, lowest: impl Fn(Partition) -> Offset) -> bool {
    let Some(&(_, last)) = file.ranges.get("_offset") else { return true };
    let (low, high) = file.ranges.get("_partition").copied().unwrap_or((i64::MIN, i64::MAX));
    let within = partitions.iter().filter(|&&partition| (low..=high).contains(&i64::from(partition)));
    within.copied().any(|partition| last >= lowest(partition))
}

/// Folds one stream of the master's rows, partition by partition.
struct Folding {
    wanted: Vec<Wanted>,
    /// Others are skipped.
    partitions: BTreeSet<Partition>,
    context: Arc<TaskContext>,
    schema: SchemaRef,
    partition: usize,
    offset: usize,
    /// For each view, where its input columns are in the rows.
    inputs: Vec<Vec<usize>>,
    waiting: BTreeMap<Partition, Vec<RecordBatch>>,
    /// Bytes of the batches that what waits is part of.
    waiting_bytes: usize,
    /// Bytes of states of a view and partition that are reduced.
    reduce_bytes: usize,
    folded: Vec<ByPartition>,
}

impl Folding {
    fn new(
        wanted: Vec<Wanted>,
        partitions: BTreeSet<Partition>,
        schema: SchemaRef,
        context: Arc<TaskContext>,
        streams: usize,
    ) -> Self {
        let place = |name: &str| schema.index_of(name).unwrap_or_default();
        let inputs = wanted
            .iter()
            .map(|wanted| wanted.view.fold.input().fields().iter().map(|field| place(field.name())).collect())
            .collect();
        let folded = wanted.iter().map(|_| Ok(BTreeMap::new())).collect();
        let reduced = wanted.len() * partitions.len() * streams;
        Self {
            partition: place("_partition"),
            offset: place("_offset"),
            inputs,
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            reduce_bytes: (UNREDUCED_BYTES / reduced.max(1)).max(REDUCE_BYTES_MIN),
            folded,
            wanted,
            partitions,
            context,
            schema,
        }
    }

    async fn take(&mut self, batch: &RecordBatch) -> Result<()> {
        for (partition, rows) in by_partition(batch, self.partition) {
            if !self.partitions.contains(&partition) {
                continue;
            }
            let waiting = self.waiting.entry(partition).or_default();
            waiting.push(rows);
            if waiting.iter().map(RecordBatch::num_rows).sum::<usize>() >= FOLD_ROWS {
                let rows = std::mem::take(waiting);
                self.fold(partition, rows).await?;
            }
        }
        self.waiting_bytes += batch.get_array_memory_size();
        if self.waiting_bytes >= WAITING_BYTES {
            self.fold_all().await?;
        }
        Ok(())
    }

    async fn fold_all(&mut self) -> Result<()> {
        self.waiting_bytes = 0;
        for (partition, rows) in std::mem::take(&mut self.waiting) {
            self.fold(partition, rows).await?;
        }
        Ok(())
    }

    async fn end(mut self) -> Result<Vec<ByPartition>> {
        self.fold_all().await?;
        Ok(self.folded)
    }

    async fn fold(&mut self, partition: Partition, rows: Vec<RecordBatch>) -> Result<()> {
        let rows = concat_batches(&self.schema, &rows)?;
        let offsets = rows.column(self.offset).as_primitive::<Int64Type>();
        let lowest = offsets.values().iter().min().copied().unwrap_or(0);
        for ((wanted, inputs), folded) in self.wanted.iter().zip(&self.inputs).zip(&mut self.folded) {
            let Ok(by_partition) = folded.as_mut() else { continue };
            let cut = wanted.cut.get(partition);
            let after = if lowest >= cut {
                rows.clone()
            } else {
                filter_record_batch(&rows, &cmp::gt_eq(offsets, &Int64Array::new_scalar(cut))?)?
            };
            if after.num_rows() == 0 {
                continue;
            }
            let fold = &wanted.view.fold;
            let input = RecordBatch::try_new(fold.input().clone(), after.project(inputs)?.columns().to_vec())?;
            let known = by_partition.entry(partition).or_default();
            let folding = async {
                let (states, some) = fold.partial(vec![input], &self.context).await?;
                known.bytes += states.get_array_memory_size();
                known.states.push(states);
                known.failed.join(&some);
                // States that do not become fewer are reduced again only once there are twice as many.
                if known.states.len() > 1 && known.bytes > self.reduce_bytes.max(2 * known.reduced_bytes) {
                    let reduced = fold.reduce(std::mem::take(&mut known.states), &self.context).await?;
                    known.bytes = reduced.get_array_memory_size();
                    known.reduced_bytes = known.bytes;
                    known.states.push(reduced);
                }
                Ok::<(), DataFusionError>(())
            };
            if let Err(error) = folding.await {
                *folded = Err(error.strip_backtrace());
            }
        }
        Ok(())
    }
}

/// The runs of rows of one partition each: the appender writes partition by partition, so there are few.
fn by_partition(batch: &RecordBatch, column: usize) -> Vec<(Partition, RecordBatch)> {
    let partitions = batch.column(column).as_primitive::<Int32Type>().values();
    let mut runs = Vec::new();
    let mut start = 0;
    for end in 1..=partitions.len() {
        if end == partitions.len() || partitions[end] != partitions[start] {
            runs.push((partitions[start], batch.slice(start, end - start)));
            start = end;
        }
    }
    runs
}

#[cfg(test)]
mod tests;

//! Running the fold: as plans over files, and at once over batches in memory.

use std::{panic::AssertUnwindSafe, sync::Arc};

use datafusion::{
    arrow::{
        array::{ArrayRef, RecordBatch, RecordBatchOptions},
        compute::concat_batches,
        datatypes::SchemaRef,
    },
    datasource::memory::MemorySourceConfig,
    error::Result,
    execution::TaskContext,
    physical_expr::{LexOrdering, PhysicalSortExpr},
    physical_plan::{
        ExecutionPlan,
        aggregates::{AggregateExec, AggregateMode},
        collect,
        sorts::sort::SortExec,
    },
};
use futures::FutureExt;

use super::{
    Collector, Failed, Fold,
    rows::{RowsExec, is_of_values, panicked},
};

impl Fold {
    /// Rows → states; a group may come out more than once. `input` has the columns of [`Fold::projection`], or of
    /// [`Fold::unplaced_projection`]. Failed events go to `failed` while the plan runs.
    pub fn partial_plan(&self, input: Arc<dyn ExecutionPlan>, failed: &Collector) -> Result<Arc<dyn ExecutionPlan>> {
        self.aggregated(Arc::new(RowsExec::new(self.rows.clone(), input, failed.clone())))
    }

    /// Computed rows → states.
    fn aggregated(&self, rows: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        let partial = self.aggregate(AggregateMode::Partial, rows.clone())?;
        // An aggregate with an order of its own may count on sorted input, which nobody else would sort here.
        let required = partial.required_input_ordering().into_iter().next().flatten();
        let Some(required) = required.map(|ordering| ordering.into_single()) else { return Ok(Arc::new(partial)) };
        let Some(ordering) = LexOrdering::new(required.into_iter().map(PhysicalSortExpr::from)) else {
            return Ok(Arc::new(partial));
        };
        let sorted = SortExec::new(ordering, rows).with_preserve_partitioning(true);
        Ok(Arc::new(self.aggregate(AggregateMode::Partial, Arc::new(sorted))?))
    }

    /// States → states, one a group (in each partition of `input`).
    pub fn reduce_plan(&self, input: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(self.aggregate(AggregateMode::PartialReduce, input)?))
    }

    fn aggregate(&self, mode: AggregateMode, input: Arc<dyn ExecutionPlan>) -> Result<AggregateExec> {
        let (group_by, filters) = match mode {
            AggregateMode::Partial => (self.group_by.clone(), self.filters.clone()),
            _ => (Arc::new(self.group_by.as_final()), vec![None; self.aggregates.len()]),
        };
        AggregateExec::try_new(mode, group_by, self.aggregates.clone(), filters, input, self.rows.output.clone())
    }

    /// Rows → states, and the failed events, of batches in memory.
    pub async fn partial(&self, rows: Vec<RecordBatch>, context: &Arc<TaskContext>) -> Result<(RecordBatch, Failed)> {
        caught(async {
            let mut failed = Failed::default();
            let computed: Result<Vec<RecordBatch>> =
                rows.iter().map(|rows| self.rows.compute(rows, &mut failed)).collect();
            let source = MemorySourceConfig::try_new_exec(&[computed?], self.rows.output.clone(), None)?;
            let states = collect(self.aggregated(source)?, context.clone()).await?;
            Ok((self.one_batch(&states, &self.state)?, failed))
        })
        .await
    }

    /// States → states, one a group, of batches in memory.
    pub async fn reduce(&self, states: Vec<RecordBatch>, context: &Arc<TaskContext>) -> Result<RecordBatch> {
        caught(async {
            let source = MemorySourceConfig::try_new_exec(&[states], self.state.clone(), None)?;
            let reduced = collect(self.reduce_plan(source)?, context.clone()).await?;
            self.one_batch(&reduced, &self.state)
        })
        .await
    }

    /// States → answer rows: the columns of [`Fold::finished`]. Without group keys there is always one row.
    pub async fn finish(&self, states: Vec<RecordBatch>, context: &Arc<TaskContext>) -> Result<RecordBatch> {
        let results = caught(async {
            let source = MemorySourceConfig::try_new_exec(std::slice::from_ref(&states), self.state.clone(), None)?;
            let plan = self.aggregate(AggregateMode::Final, source)?;
            let results = collect(Arc::new(plan), context.clone()).await?;
            self.one_batch(&results, &self.result)
        });
        match results.await {
            Ok(results) => self.outputs(&results, &[]),
            // Some group has no value: which one is found where each has a row of its own.
            Err(error) if is_of_values(&error) && states.iter().any(|states| states.num_rows() > 0) => {
                self.complete(&self.reduce(states, context).await?)
            }
            Err(error) => Err(error),
        }
    }

    /// One batch in `schema`: plans name and mark their columns in their own way.
    fn one_batch(&self, batches: &[RecordBatch], schema: &SchemaRef) -> Result<RecordBatch> {
        let whole = match batches {
            [] => return Ok(RecordBatch::new_empty(schema.clone())),
            [one] => one.clone(),
            many => concat_batches(&many[0].schema(), many)?,
        };
        let rows = whole.num_rows();
        batch(schema, whole.columns().to_vec(), rows)
    }
}

/// A panic in a view's own work is an error of that view.
async fn caught<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let outcome = AssertUnwindSafe(work).catch_unwind().await;
    outcome.unwrap_or_else(|panic| Err(panicked(panic.as_ref())))
}

pub(super) fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

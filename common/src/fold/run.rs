//! Running the fold: as plans over files, and at once over batches in memory.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, RecordBatch, RecordBatchOptions},
        compute::concat_batches,
        datatypes::SchemaRef,
    },
    datasource::memory::MemorySourceConfig,
    error::Result,
    execution::TaskContext,
    logical_expr::{EmitTo, GroupsAccumulator},
    physical_expr::{GroupsAccumulatorAdapter, LexOrdering, PhysicalSortExpr},
    physical_plan::{
        ExecutionPlan,
        aggregates::{AggregateExec, AggregateMode},
        collect,
        filter::FilterExec,
        sorts::sort::SortExec,
        udaf::AggregateFunctionExpr,
    },
};

use super::{Fold, stored::convert_column};

impl Fold {
    /// Rows → states; a group may come out more than once. `input` has the columns of [`Fold::input`].
    pub fn partial_plan(&self, input: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        let filtered: Arc<dyn ExecutionPlan> = match &self.predicate {
            Some(predicate) => Arc::new(FilterExec::try_new(predicate.clone(), input)?),
            None => input,
        };
        let partial = self.aggregate(AggregateMode::Partial, filtered.clone())?;
        // An aggregate with an order of its own may count on sorted input, which nobody else would sort here.
        let required = partial.required_input_ordering().into_iter().next().flatten();
        let Some(required) = required.map(|ordering| ordering.into_single()) else { return Ok(Arc::new(partial)) };
        let Some(ordering) = LexOrdering::new(required.into_iter().map(PhysicalSortExpr::from)) else {
            return Ok(Arc::new(partial));
        };
        let sorted = SortExec::new(ordering, filtered).with_preserve_partitioning(true);
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
        AggregateExec::try_new(mode, group_by, self.aggregates.clone(), filters, input, self.input.clone())
    }

    /// Rows → states, of batches in memory.
    pub async fn partial(&self, rows: Vec<RecordBatch>, context: &Arc<TaskContext>) -> Result<RecordBatch> {
        let source = MemorySourceConfig::try_new_exec(&[rows], self.input.clone(), None)?;
        let states = collect(self.partial_plan(source)?, context.clone()).await?;
        self.one_batch(&states, &self.state)
    }

    /// States → states, one a group, of batches in memory.
    pub async fn reduce(&self, states: Vec<RecordBatch>, context: &Arc<TaskContext>) -> Result<RecordBatch> {
        let source = MemorySourceConfig::try_new_exec(&[states], self.state.clone(), None)?;
        let reduced = collect(self.reduce_plan(source)?, context.clone()).await?;
        self.one_batch(&reduced, &self.state)
    }

    /// States → answer rows: the columns of [`Fold::finished`]. Without group keys there is always one row.
    pub async fn finish(&self, states: Vec<RecordBatch>, context: &Arc<TaskContext>) -> Result<RecordBatch> {
        let source = MemorySourceConfig::try_new_exec(&[states], self.state.clone(), None)?;
        let plan = self.aggregate(AggregateMode::Final, source)?;
        let results = collect(Arc::new(plan), context.clone()).await?;
        let results = self.one_batch(&results, &self.result)?;
        self.outputs(&results)
    }

    /// States, one a group → the groups' answer rows, row by row beside them. No hashing: each row is its own group.
    pub fn complete(&self, states: &RecordBatch) -> Result<RecordBatch> {
        let rows = states.num_rows();
        if rows == 0 {
            return Ok(RecordBatch::new_empty(self.finished.clone()));
        }
        let groups: Vec<usize> = (0..rows).collect();
        let mut columns: Vec<ArrayRef> = states.columns()[..self.keys.len()].to_vec();
        let mut at = self.keys.len();
        for aggregate in &self.aggregates {
            let width = aggregate.state_fields()?.len();
            let mut accumulator = accumulator(aggregate)?;
            accumulator.merge_batch(&states.columns()[at..at + width], &groups, rows)?;
            columns.push(accumulator.evaluate(EmitTo::All)?);
            at += width;
        }
        self.outputs(&batch(&self.result, columns, rows)?)
    }

    /// Group keys and aggregates → finished columns.
    fn outputs(&self, results: &RecordBatch) -> Result<RecordBatch> {
        let columns: Result<Vec<ArrayRef>> = self
            .outputs
            .iter()
            .zip(self.finished.fields())
            .map(|(output, field)| {
                let column = output.evaluate(results)?.into_array(results.num_rows())?;
                convert_column(&column, field.data_type())
            })
            .collect();
        batch(&self.finished, columns?, results.num_rows())
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

fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

fn accumulator(aggregate: &Arc<AggregateFunctionExpr>) -> Result<Box<dyn GroupsAccumulator>> {
    if aggregate.groups_accumulator_supported() {
        return aggregate.create_groups_accumulator();
    }
    let aggregate = aggregate.clone();
    Ok(Box::new(GroupsAccumulatorAdapter::new(move || aggregate.create_accumulator())))
}

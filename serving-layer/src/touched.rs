//! The batch states of groups that the speed layer has touched: read once from the batch view, when first touched, and
//! kept for as long as that version serves.

use std::{collections::HashSet, sync::Arc};

use common::{
    catalog::View,
    fold::from_stored,
    speed::KeyFilter,
    storage::{parquet::range, scan::Scan, table::DataFile},
};
use datafusion::{
    arrow::{
        array::{ArrayRef, BooleanArray, RecordBatch},
        compute::concat_batches,
        datatypes::SchemaRef,
        row::{OwnedRow, RowConverter, SortField},
    },
    common::{JoinType, NullEquality, ScalarValue},
    datasource::memory::MemorySourceConfig,
    error::{DataFusionError, Result},
    execution::TaskContext,
    logical_expr::Operator,
    physical_expr::expressions::{BinaryExpr, Column, lit},
    physical_plan::{
        ExecutionPlan, PhysicalExpr, collect,
        joins::{HashJoinExec, PartitionMode},
    },
};
use tokio::sync::Mutex;

/// DataFusion prunes by the single values of a list up to this long.
const LISTED: usize = 20;

/// States of touched groups, of one batch view version.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The groups that have been looked up, whether the batch view has them or not.
    known: HashSet<OwnedRow>,
    /// The states of those that it has, in the fold's `state` schema.
    states: Option<RecordBatch>,
}

/// Where to read.
pub(crate) struct Source<'a> {
    pub(crate) view: &'a View,
    pub(crate) table: &'a str,
    pub(crate) stored: &'a SchemaRef,
    pub(crate) files: &'a [DataFile],
    pub(crate) context: &'a Arc<TaskContext>,
}

impl Touched {
    /// The batch states of all groups looked up so far, after those in `keys` (the group key columns, a row a group)
    /// have been.
    pub(crate) async fn states(&self, keys: &[ArrayRef], source: &Source<'_>) -> Result<RecordBatch> {
        let fold = &source.view.fold;
        let mut inner = self.inner.lock().await;
        if keys.is_empty() {
            // Without group keys there is one group, and it is always touched.
            if inner.states.is_none() {
                inner.states = Some(read_all(source).await?);
            }
        } else if let Some(missing) = inner.missing(keys)? {
            let found = read(&missing.keys, source).await?;
            inner.add(fold.state(), found, missing.rows)?;
        }
        Ok(inner.states.clone().unwrap_or_else(|| RecordBatch::new_empty(fold.state().clone())))
    }
}

struct Missing {
    keys: Vec<ArrayRef>,
    rows: Vec<OwnedRow>,
}

impl Inner {
    /// Adds the states that were found of groups that were missing. All of it or, after an error, nothing: a group that
    /// is known without its states would lose them in every later answer.
    fn add(&mut self, schema: &SchemaRef, found: RecordBatch, groups: Vec<OwnedRow>) -> Result<()> {
        let states = match &self.states {
            Some(states) => concat_batches(schema, [states, &found])?,
            None => found,
        };
        self.states = Some(states);
        self.known.extend(groups);
        Ok(())
    }

    fn missing(&self, keys: &[ArrayRef]) -> Result<Option<Missing>> {
        let fields = keys.iter().map(|key| SortField::new(key.data_type().clone())).collect();
        let rows = RowConverter::new(fields)?.convert_columns(keys)?;
        let new: Vec<Option<OwnedRow>> = rows
            .iter()
            .map(|row| {
                let row = row.owned();
                (!self.known.contains(&row)).then_some(row)
            })
            .collect();
        if new.iter().all(Option::is_none) {
            return Ok(None);
        }
        let mask = BooleanArray::from(new.iter().map(Option::is_some).collect::<Vec<bool>>());
        let keys: Result<Vec<ArrayRef>, _> =
            keys.iter().map(|key| datafusion::arrow::compute::filter(key, &mask)).collect();
        Ok(Some(Missing { keys: keys?, rows: new.into_iter().flatten().collect() }))
    }
}

/// Where the state columns are in a batch view's files: the group keys among the finished columns, the rest behind them.
fn state_columns(source: &Source<'_>) -> Vec<usize> {
    let fold = &source.view.fold;
    let behind = fold.finished().fields().len()..source.stored.fields().len();
    fold.keys().iter().copied().chain(behind).collect()
}

async fn read_all(source: &Source<'_>) -> Result<RecordBatch> {
    let scan = scan(source, source.files, None)?;
    take(scan, source).await
}

/// The stored states of the groups in `keys`.
async fn read(keys: &[ArrayRef], source: &Source<'_>) -> Result<RecordBatch> {
    let first = source.stored.field(source.view.fold.keys()[0]).name();
    let wanted = range(&keys[0]);
    let may_hold = |file: &&DataFile| wanted.is_none_or(|(low, high)| file.may_hold(first, low, high));
    let files: Vec<DataFile> = source.files.iter().filter(may_hold).cloned().collect();
    let scan = scan(source, &files, predicate(&keys[0], source)?)?;
    let schema = scan.schema();
    let fields: Vec<_> = keys.iter().enumerate().map(|(i, key)| (format!("key{i}"), key.clone())).collect();
    let wanted = RecordBatch::try_from_iter_with_nullable(fields.into_iter().map(|(name, key)| (name, key, true)))?;
    let on = (0..keys.len())
        .map(|i| {
            let left: Arc<dyn PhysicalExpr> = Arc::new(Column::new(wanted.schema().field(i).name(), i));
            let right: Arc<dyn PhysicalExpr> = Arc::new(Column::new(schema.field(i).name(), i));
            (left, right)
        })
        .collect();
    let wanted = MemorySourceConfig::try_new_exec(&[vec![wanted.clone()]], wanted.schema(), None)?;
    let join = HashJoinExec::try_new(
        wanted,
        scan,
        on,
        None,
        &JoinType::RightSemi,
        None,
        PartitionMode::CollectLeft,
        NullEquality::NullEqualsNull,
        false,
    )?;
    take(Arc::new(join), source).await
}

async fn take(plan: Arc<dyn ExecutionPlan>, source: &Source<'_>) -> Result<RecordBatch> {
    let stored = source.view.fold.stored_state();
    let batches = collect(plan, source.context.clone()).await?;
    let batches: Result<Vec<RecordBatch>, _> =
        batches.iter().map(|batch| RecordBatch::try_new(stored.clone(), batch.columns().to_vec())).collect();
    from_stored(&concat_batches(stored, &batches?)?, source.view.fold.state())
}

fn scan(
    source: &Source<'_>,
    files: &[DataFile],
    predicate: Option<Arc<dyn PhysicalExpr>>,
) -> Result<Arc<dyn ExecutionPlan>> {
    Scan {
        table: source.table,
        schema: source.stored.clone(),
        files,
        projection: Some(state_columns(source)),
        predicate,
        limit: None,
        partitions: source.context.session_config().target_partitions(),
    }
    .plan(&source.context.runtime_env())
}

/// What lets pages be skipped: the first key's values, or their range.
fn predicate(key: &ArrayRef, source: &Source<'_>) -> Result<Option<Arc<dyn PhysicalExpr>>> {
    if key.null_count() > 0 || key.is_empty() {
        return Ok(None);
    }
    let place = source.view.fold.keys()[0];
    if key.len() <= LISTED {
        return Ok(Some(KeyFilter::new(place, key).predicate(source.stored)?));
    }
    let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(source.stored.field(place).name(), place));
    let order = datafusion::arrow::compute::sort_to_indices(key, None, None)?;
    let at = |i: usize| -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
        let row = usize::try_from(order.value(i)).map_err(|error| DataFusionError::External(Box::new(error)))?;
        Ok(lit(ScalarValue::try_from_array(key, row)?))
    };
    let low = Arc::new(BinaryExpr::new(column.clone(), Operator::GtEq, at(0)?));
    let high = Arc::new(BinaryExpr::new(column, Operator::LtEq, at(key.len() - 1)?));
    Ok(Some(Arc::new(BinaryExpr::new(low, Operator::And, high))))
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{Int32Array, Int64Array, StringArray};

    use super::*;

    #[test]
    fn after_an_error_the_groups_are_still_missing() {
        let groups = |keys: &[i64]| -> Vec<ArrayRef> { vec![Arc::new(Int64Array::from(keys.to_vec()))] };
        let states = |states: ArrayRef| RecordBatch::try_from_iter([("n", states)]).unwrap();
        let found: ArrayRef = Arc::new(Int32Array::from(vec![7]));
        let broken: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
        let mut inner = Inner::default();
        let schema = states(found.clone()).schema();
        let first = inner.missing(&groups(&[1])).unwrap().unwrap();
        inner.add(&schema, states(found.clone()), first.rows).unwrap();
        let both = || groups(&[1, 2]);
        let second = inner.missing(&both()).unwrap().unwrap();
        inner.add(&schema, states(broken), second.rows).unwrap_err();
        assert_eq!(inner.states.as_ref().map(RecordBatch::num_rows), Some(1), "what was known stays");
        let again = inner.missing(&both()).unwrap().unwrap();
        assert_eq!(again.rows.len(), 1, "the second group is still missing");
        inner.add(&schema, states(found), again.rows).unwrap();
        assert_eq!(inner.states.as_ref().map(RecordBatch::num_rows), Some(2));
        assert!(inner.missing(&both()).unwrap().is_none());
    }
}

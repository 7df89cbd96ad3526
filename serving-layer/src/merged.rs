//! A view as a table, at one head: `finish(batch(C) ∪ speed[C, H))`.
//!
//! The batch view keeps finished columns beside the states, so most groups are read as they are. A group that the speed
//! layer has touched replaces its batch row: its batch state and its speed states are finished together, and an
//! anti-join hides the old row. Only filters on group keys go below that, all others run on the merged rows.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use async_trait::async_trait;
use common::{
    catalog::View,
    fold::FAILED,
    speed::{KeyFilter, States, keep},
    storage::{parquet::range, scan::Scan, table::DataFile},
};
use datafusion::{
    arrow::{
        array::RecordBatch,
        datatypes::{Schema, SchemaRef},
    },
    catalog::{Session, TableProvider},
    common::{Column as LogicalColumn, DFSchema, JoinType, NullEquality, cast::as_boolean_array},
    datasource::memory::MemorySourceConfig,
    error::{DataFusionError, Result},
    execution::TaskContext,
    logical_expr::{Expr, TableProviderFilterPushDown, TableType, lit, utils::conjunction},
    physical_expr::expressions::Column,
    physical_plan::{
        ExecutionPlan, PhysicalExpr, collect,
        filter::FilterExec,
        joins::{HashJoinExec, PartitionMode},
        projection::ProjectionExec,
        union::UnionExec,
    },
};

use crate::{published::Version, touched::Source};

mod keys;
mod plain;

use keys::Equality;
pub(crate) use plain::PlainExec;

/// A view at one head.
#[derive(Debug)]
pub(crate) struct MergedView {
    pub(crate) view: Arc<View>,
    pub(crate) schema: SchemaRef,
    /// `None` while the view is only known by name, in queries that do not read it.
    pub(crate) at: Option<At>,
}

/// What a merged view is made from.
#[derive(Clone, Debug)]
pub(crate) struct At {
    /// The batch view version.
    pub(crate) version: Arc<Version>,
    /// The states from its cut to the head.
    pub(crate) states: Arc<dyn States>,
    /// The columns of the batch view's files.
    pub(crate) stored: SchemaRef,
    /// Where those files are.
    pub(crate) table: String,
    /// What states are read and finished in.
    pub(crate) context: Arc<TaskContext>,
    /// Of how many of the groups that were asked for something could not be computed: of the scan with the most.
    pub(crate) failed_groups: Arc<AtomicI64>,
}

/// The columns that a view has by its SQL.
pub(crate) fn visible(view: &View) -> SchemaRef {
    Arc::new(Schema::new(view.fold.finished().fields()[..view.fold.visible()].to_vec()))
}

#[async_trait]
impl TableProvider for MergedView {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn get_table_definition(&self) -> Option<&str> {
        Some(&self.view.sql)
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let below = |filter: &&Expr| match self.is_on_keys(filter) {
            true => TableProviderFilterPushDown::Inexact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(below).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(at) = &self.at else {
            return Err(DataFusionError::Internal(format!("view `{}` was not frozen for this query", self.view.name)));
        };
        let filters: Vec<Expr> = filters.iter().filter(|filter| self.is_on_keys(filter)).cloned().collect();
        let equalities = Equality::all(&self.view, &filters)?;
        let merge = Merge { view: &self.view, at, state, filters, equalities };
        let wanted: Vec<usize> = projection.cloned().unwrap_or_else(|| (0..self.view.fold.visible()).collect());
        merge.plan(&wanted, limit).await
    }
}

impl MergedView {
    /// Whether a filter is over group keys alone: only then it says the same of a batch row and of the merged row.
    fn is_on_keys(&self, filter: &Expr) -> bool {
        let keys = self.view.fold.keys();
        let on_keys = filter
            .column_refs()
            .iter()
            .all(|column| self.schema.index_of(&column.name).is_ok_and(|place| keys.contains(&place)));
        on_keys && !filter.is_volatile()
    }
}

/// One scan of a merged view.
struct Merge<'a> {
    view: &'a View,
    at: &'a At,
    state: &'a dyn Session,
    /// Filters on group keys.
    filters: Vec<Expr>,
    /// What they say of single keys.
    equalities: Vec<Equality>,
}

impl Merge<'_> {
    async fn plan(&self, wanted: &[usize], limit: Option<usize>) -> Result<Arc<dyn ExecutionPlan>> {
        // The speed layer then need not show all its groups.
        let key_filter = self.equalities.first().map(Equality::of_states);
        let states = self.at.states.read(key_filter.as_ref()).await;
        let states = states.map_err(|error| DataFusionError::External(Box::new(error)))?;
        let mut touched = self.touched(states, key_filter.as_ref()).await?;
        if self.is_pinned() {
            touched = self.asked_for(&touched)?;
        }
        self.count_failed(&touched).await?;
        let keys = self.view.fold.keys();
        // What is above needs the wanted columns, what is here also the keys and who passes `HAVING`.
        let mut columns: Vec<usize> = wanted.to_vec();
        columns.extend(keys);
        if self.view.fold.has_having() {
            columns.push(self.view.fold.finished().fields().len() - 1);
        }
        columns.sort_unstable();
        columns.dedup();
        let merged = match &self.at.version.published {
            Some(published) if !published.files.is_empty() && !keys.is_empty() && !self.is_one_group(&touched) => {
                let limit = limit.filter(|_| touched.num_rows() == 0 && !self.view.fold.has_having());
                let batch = self.batch(&published.files, &columns, limit)?;
                if touched.num_rows() == 0 { batch } else { self.substituted(batch, &touched, &columns)? }
            }
            _ => memory(&touched.project(&columns)?)?,
        };
        self.projected(self.having(merged, &columns)?, &columns, wanted)
    }

    /// Finished rows of the groups that the speed layer has touched (and of some that it touched before: their rows
    /// are the same either way).
    async fn touched(&self, states: Vec<RecordBatch>, filter: Option<&KeyFilter>) -> Result<RecordBatch> {
        let fold = &self.view.fold;
        let keyless = fold.keys().is_empty();
        if states.is_empty() && !keyless {
            return Ok(RecordBatch::new_empty(fold.finished().clone()));
        }
        let Some(published) = self.at.version.published.as_ref().filter(|published| !published.files.is_empty()) else {
            return fold.finish(states, &self.at.context).await.map_err(|error| self.failed(error));
        };
        let mut states = states;
        let keys = match keyless {
            true => Vec::new(),
            false => {
                states = vec![fold.reduce(states, &self.at.context).await.map_err(|error| self.failed(error))?];
                states[0].columns()[..fold.keys().len()].to_vec()
            }
        };
        let source = Source {
            view: self.view,
            table: &self.at.table,
            stored: &self.at.stored,
            files: &published.files,
            context: &self.at.context,
        };
        let mut batch = self.at.version.touched.states(&keys, &source).await?;
        if let Some(filter) = filter {
            batch = keep(&batch, filter.predicate(&batch.schema())?.as_ref())?;
        }
        states.push(batch);
        fold.finish(states, &self.at.context).await.map_err(|error| self.failed(error))
    }

    /// That the view cannot be computed is not the fault of whoever asks.
    fn failed(&self, error: DataFusionError) -> DataFusionError {
        if !common::fold::is_of_values(&error) {
            return error;
        }
        let (view, reason) = (self.view.name.clone(), error.strip_backtrace());
        DataFusionError::External(Box::new(common::speed::Error::Failed { view, reason }))
    }

    /// Counts the groups, of those that the filters ask for, of which something could not be computed. Mostly there are
    /// none, and the batch view version says so of its own.
    async fn count_failed(&self, touched: &RecordBatch) -> Result<()> {
        let fold = &self.view.fold;
        let published = self.at.version.published.as_ref();
        let of_touched = as_boolean_array(touched.column(fold.failed()))?.true_count();
        if of_touched == 0 && published.is_none_or(|published| published.failed_groups == 0) {
            return Ok(());
        }
        let mut columns: Vec<usize> = fold.keys().iter().copied().chain([fold.failed()]).collect();
        columns.sort_unstable();
        columns.dedup();
        let failed = Expr::Column(LogicalColumn::new_unqualified(FAILED));
        let filters: Vec<Expr> = self.filters.iter().cloned().chain([failed]).collect();
        let equalities = self.equalities.clone();
        let counted = Merge { view: self.view, at: self.at, state: self.state, filters, equalities };
        let merged = match published {
            Some(published) if !published.files.is_empty() && !fold.keys().is_empty() => {
                let batch = counted.batch(&published.files, &columns, None)?;
                counted.substituted(batch, touched, &columns)?
            }
            _ => memory(&touched.project(&columns)?)?,
        };
        let schema = DFSchema::try_from(merged.schema())?;
        let filter = conjunction(counted.filters).unwrap_or_else(|| lit(true));
        let filtered = FilterExec::try_new(self.state.create_physical_expr(filter, &schema)?, merged)?;
        let failed = collect(Arc::new(filtered), self.at.context.clone()).await?;
        let count: usize = failed.iter().map(RecordBatch::num_rows).sum();
        self.at.failed_groups.fetch_max(i64::try_from(count).unwrap_or(i64::MAX), Ordering::Relaxed);
        Ok(())
    }

    /// The touched rows that the filters ask for. Those left out need not hide their batch rows: the same filters stand
    /// above, and say the same of both. Only equalities are applied here: they cannot fail on a row that another filter
    /// leaves out.
    fn asked_for(&self, touched: &RecordBatch) -> Result<RecordBatch> {
        let mut asked_for = touched.clone();
        for equality in &self.equalities {
            let filter = equality.of_finished().predicate(&touched.schema())?;
            asked_for = keep(&asked_for, filter.as_ref())?;
        }
        Ok(asked_for)
    }

    /// Whether the filters name one group, all keys of it, and that group is among the touched rows that they ask for:
    /// then no batch row is of interest.
    fn is_one_group(&self, touched: &RecordBatch) -> bool {
        touched.num_rows() == 1 && self.is_pinned()
    }

    /// Whether the filters name one group: a value for each key.
    fn is_pinned(&self) -> bool {
        let pinned = |place| self.equalities.iter().any(|one| one.place == place && one.values.len() == 1);
        self.view.fold.keys().iter().all(|&place| pinned(place))
    }

    /// The batch view's finished rows.
    fn batch(&self, files: &[DataFile], columns: &[usize], limit: Option<usize>) -> Result<Arc<dyn ExecutionPlan>> {
        let predicate = match conjunction(self.filters.clone()) {
            Some(filter) => {
                let schema = DFSchema::try_from(self.at.stored.clone())?;
                Some(self.state.create_physical_expr(filter, &schema)?)
            }
            None => None,
        };
        let files = self.files(files);
        Scan {
            table: &self.at.table,
            schema: self.at.stored.clone(),
            files: &files,
            projection: Some(columns.to_vec()),
            predicate,
            limit,
            // One group is a page or two: handing those around between threads would cost more than reading them.
            partitions: if self.is_pinned() { 1 } else { self.state.config().target_partitions() },
        }
        .plan(self.state.runtime_env())
    }

    /// The files that may hold what the filters ask for: each has a range of the group keys.
    fn files(&self, files: &[DataFile]) -> Vec<DataFile> {
        let name = |place| self.view.fold.finished().field(place).name();
        let wanted: Vec<(&String, (i64, i64))> =
            self.equalities.iter().filter_map(|one| Some((name(one.place), range(&one.values)?))).collect();
        let may_hold = |file: &&DataFile| wanted.iter().all(|(column, (low, high))| file.may_hold(column, *low, *high));
        files.iter().filter(may_hold).cloned().collect()
    }

    /// Touched rows, and the batch rows of all other groups. NULL is a key like any other.
    fn substituted(
        &self,
        batch: Arc<dyn ExecutionPlan>,
        touched: &RecordBatch,
        columns: &[usize],
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let touched = touched.project(columns)?;
        let schema = touched.schema();
        let places = self.view.fold.keys().iter().map(|key| columns.iter().position(|column| column == key));
        let places: Option<Vec<usize>> = places.collect();
        let places = places.ok_or_else(|| DataFusionError::Internal("a group key was not read".to_owned()))?;
        let on = places
            .iter()
            .enumerate()
            .map(|(i, &place)| {
                let name = schema.field(place).name();
                let left: Arc<dyn PhysicalExpr> = Arc::new(Column::new(name, i));
                let right: Arc<dyn PhysicalExpr> = Arc::new(Column::new(name, place));
                (left, right)
            })
            .collect();
        let untouched = HashJoinExec::try_new(
            memory(&touched.project(&places)?)?,
            batch,
            on,
            None,
            &JoinType::RightAnti,
            None,
            PartitionMode::CollectLeft,
            NullEquality::NullEqualsNull,
            false,
        )?;
        let merged = UnionExec::try_new(vec![memory(&touched)?, Arc::new(untouched)])?;
        Ok(Arc::new(PlainExec::new(merged)))
    }

    fn having(&self, merged: Arc<dyn ExecutionPlan>, columns: &[usize]) -> Result<Arc<dyn ExecutionPlan>> {
        if !self.view.fold.has_having() {
            return Ok(merged);
        }
        let passes = Arc::new(Column::new(common::fold::HAVING, columns.len() - 1));
        Ok(Arc::new(PlainExec::closed(Arc::new(FilterExec::try_new(passes, merged)?))))
    }

    fn projected(
        &self,
        merged: Arc<dyn ExecutionPlan>,
        columns: &[usize],
        wanted: &[usize],
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if columns == wanted {
            return Ok(merged);
        }
        let schema = merged.schema();
        let places = wanted.iter().filter_map(|column| columns.iter().position(|other| other == column));
        let outputs: Vec<(Arc<dyn PhysicalExpr>, String)> = places
            .map(|place| {
                let name = schema.field(place).name();
                (Arc::new(Column::new(name, place)) as Arc<dyn PhysicalExpr>, name.clone())
            })
            .collect();
        Ok(Arc::new(ProjectionExec::try_new(outputs, merged)?))
    }
}

fn memory(batch: &RecordBatch) -> Result<Arc<dyn ExecutionPlan>> {
    // Over a batch without rows a constant would be computed all the same, and may fail.
    let batches = if batch.num_rows() == 0 { Vec::new() } else { vec![batch.clone()] };
    Ok(MemorySourceConfig::try_new_exec(&[batches], batch.schema(), None)?)
}

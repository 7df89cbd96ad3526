//! From a view's query to the expressions of its fold.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::{DataType, Field, Schema, SchemaRef},
    common::{
        Column, DFSchema, DataFusionError, Diagnostic, Result,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    datasource::empty::EmptyTable,
    execution::{
        context::{SessionConfig, SessionContext},
        session_state::SessionState,
    },
    logical_expr::{
        Aggregate, Expr, ExprSchemable, LogicalPlan, Volatility, expr::AggregateFunction,
        physical_planning_context::PhysicalPlanningContext, utils::expr_to_columns,
    },
    physical_expr::{aggregate::LoweredAggregateBuilder, create_physical_expr, utils::collect_columns},
    physical_plan::{
        ExecutionPlan, PhysicalExpr,
        aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy},
        empty::EmptyExec,
    },
    sql::parser::Statement,
};
use futures::FutureExt;
use sqlparser::ast::{Query, Statement as Sql};

use super::{
    FAILED, Fold, HAVING, Refusal,
    prepare::{Prepared, PreparedColumn, parts_of},
    refuse,
    rows::{Computed, Rows},
    stored::stored_type,
};
use crate::{
    catalog::Dataset,
    sql::{self, row_may_fail},
};

/// Where an event is, and when it was logged.
const POSITION: [&str; 3] = ["_partition", "_offset", "_timestamp"];

/// A session whose settings decide what a view's SQL means: nothing in it comes from the environment.
pub(super) fn session() -> SessionContext {
    let config = SessionConfig::new().with_target_partitions(1).with_information_schema(false);
    SessionContext::new_with_state(sql::session(config).build())
}

/// Plans the fold of a query that `refuse::check` has let through.
pub(super) fn plan(dataset: &Arc<Dataset>, query: &Query) -> Result<Fold, Refusal> {
    let context = session();
    let logical = logical_plan(&context, dataset, query).map_err(refusal)?;
    let parts = Parts::of(&logical)?;
    parts.check_names()?;
    parts.check_functions()?;
    let aggregate = parts.aggregate.clone();
    let mut planned = sql::analyze(&context.state(), logical).map_err(refusal)?;
    // Simplifying keeps the plan's shape; the expressions are what is wanted of it.
    let parts = loop {
        match Parts::of(&planned) {
            Ok(parts) => break parts,
            Err(_) if planned.inputs().len() == 1 => planned = planned.inputs()[0].clone(),
            Err(refusal) => return Err(refusal),
        }
    };
    debug_assert_eq!(aggregate.aggr_expr.len(), parts.aggregate.aggr_expr.len());
    Lowering { dataset, state: context.state(), parts }.fold().map_err(refusal)?
}

fn logical_plan(context: &SessionContext, dataset: &Arc<Dataset>, query: &Query) -> Result<LogicalPlan> {
    context.register_table(dataset.name.as_str(), Arc::new(EmptyTable::new(dataset.schema.clone())))?;
    let mut query = query.clone();
    sql::prepare(&mut query);
    let statement = Statement::Statement(Box::new(Sql::Query(Box::new(query))));
    let planned = context.state().statement_to_plan(statement).now_or_never();
    planned.unwrap_or_else(|| Err(DataFusionError::Internal("planning waited for something".to_owned())))
}

fn refusal(error: DataFusionError) -> Refusal {
    let at = error.diagnostic().and_then(|Diagnostic { span, .. }| *span).and_then(|span| {
        let spans = datafusion::common::Spans(vec![span]);
        refuse::first_location(&spans)
    });
    Refusal {
        reason: error.strip_backtrace(),
        hint: "see the columns of the dataset and DataFusion's SQL reference".to_owned(),
        at,
    }
}

fn refused(reason: impl Into<String>, hint: impl Into<String>) -> Refusal {
    Refusal { reason: reason.into(), hint: hint.into(), at: None }
}

/// The parts of a view's plan: outputs over `HAVING` over the aggregate over `WHERE` over the dataset.
struct Parts {
    outputs: Vec<Expr>,
    names: Vec<String>,
    having: Option<Expr>,
    aggregate: Aggregate,
    predicate: Option<Expr>,
}

impl Parts {
    fn of(plan: &LogicalPlan) -> Result<Self, Refusal> {
        let no_aggregate = || {
            refused(
                "a view needs group keys or aggregates",
                "write `SELECT key, count(*) AS n FROM … GROUP BY key`; to read single events, query the dataset",
            )
        };
        let LogicalPlan::Projection(projection) = plan else { return Err(no_aggregate()) };
        let names = projection.schema.fields().iter().map(|field| field.name().clone()).collect();
        let (having, below) = match projection.input.as_ref() {
            LogicalPlan::Filter(filter) => (Some(filter.predicate.clone()), filter.input.as_ref()),
            other => (None, other),
        };
        let LogicalPlan::Aggregate(aggregate) = below else { return Err(no_aggregate()) };
        let predicate = match aggregate.input.as_ref() {
            LogicalPlan::Filter(filter) => Some(filter.predicate.clone()),
            _ => None,
        };
        Ok(Self { outputs: projection.expr.clone(), names, having, aggregate: aggregate.clone(), predicate })
    }

    /// Delta has its own idea of a column's name, and a name that nobody chose is no name to query by.
    fn check_names(&self) -> Result<(), Refusal> {
        let mut seen = std::collections::BTreeSet::new();
        for (name, output) in self.names.iter().zip(&self.outputs) {
            let plain = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
            if !plain {
                return Err(refused(
                    format!("column `{name}` has no name of its own"),
                    format!("write `{output} AS some_name`"),
                ));
            }
            if name.starts_with('_') {
                return Err(refused(
                    format!("column `{name}`: names that begin with `_` are Lamina's own"),
                    "choose another name",
                ));
            }
            if !seen.insert(name.to_lowercase()) {
                return Err(refused(format!("column `{name}` is there twice"), "give one of them another name"));
            }
        }
        Ok(())
    }

    fn expressions(&self) -> impl Iterator<Item = &Expr> {
        let aggregate = self.aggregate.group_expr.iter().chain(&self.aggregate.aggr_expr);
        self.outputs.iter().chain(&self.having).chain(&self.predicate).chain(aggregate)
    }

    /// Only what gives the same value wherever and whenever it is computed can be folded.
    fn check_functions(&self) -> Result<(), Refusal> {
        let mut fault = None;
        for expression in self.expressions() {
            let visited = expression.apply(|part| {
                fault = check_function(part);
                Ok(if fault.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            });
            visited.map_err(refusal)?;
            if let Some(fault) = fault {
                return Err(fault);
            }
        }
        Ok(())
    }
}

fn check_function(part: &Expr) -> Option<Refusal> {
    match part {
        Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => Some(refused(
            format!("`{}` gives another value each time: each layer would fold its own", call.func.name()),
            "use the event's own columns, such as `created_at` or `_timestamp`",
        )),
        Expr::AggregateFunction(call) if !refuse::is_known(call.func.name()) => Some(refused(
            format!("`{}` is not known to merge exactly", call.func.name()),
            "use another aggregate, or compute it when you query the view",
        )),
        Expr::WindowFunction(_) => {
            Some(refused("windows are not allowed in a view", "compute them when you query the view"))
        }
        Expr::Placeholder(_) => Some(refused("a view has no parameters", "write the value")),
        Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) => {
            Some(refused("subqueries are not allowed in a view", "combine views when you query them"))
        }
        _ => None,
    }
}

/// Turns a view's logical expressions into physical ones over just the columns that they need.
struct Lowering<'a> {
    dataset: &'a Arc<Dataset>,
    state: SessionState,
    parts: Parts,
}

impl Lowering<'_> {
    fn fold(&self) -> Result<Result<Fold, Refusal>> {
        let aggr_exprs = self.aggregates()?;
        let projection = self.projection(&aggr_exprs)?;
        let input: SchemaRef = Arc::new(self.dataset.schema.project(&projection)?);
        let from = self.input_schema(&input)?;
        let mut prepared = Prepared::new(&from);
        let mut groups = Vec::new();
        for group in &self.parts.aggregate.group_expr {
            groups.push((prepared.add(group, None)?, group.schema_name().to_string()));
        }
        let aggr_exprs: Vec<Expr> =
            aggr_exprs.iter().map(|aggregate| prepared.aggregate(aggregate)).collect::<Result<_>>()?;
        let rows = Arc::new(self.rows(&prepared.columns, &input, &from)?);
        let over = DFSchema::try_from(rows.output.clone())?;
        let groups = groups.into_iter().map(|(place, name)| {
            let column = datafusion::physical_expr::expressions::Column::new(rows.output.field(place).name(), place);
            (Arc::new(column) as Arc<dyn PhysicalExpr>, name)
        });
        let group_by = Arc::new(PhysicalGroupBy::new_single(groups.collect()));
        let (mut aggregates, mut filters) = (Vec::new(), Vec::new());
        for aggregate in &aggr_exprs {
            let props = self.state.execution_props();
            let context = PhysicalPlanningContext::default();
            let lowered = LoweredAggregateBuilder::new(aggregate, &over, &rows.output, props, &context).build()?;
            aggregates.push(lowered.aggregate);
            filters.push(lowered.filter);
        }
        let none = vec![None; aggregates.len()];
        let source: Arc<dyn ExecutionPlan> = Arc::new(EmptyExec::new(rows.output.clone()));
        let aggregate = |mode, group_by: Arc<PhysicalGroupBy>, source| {
            AggregateExec::try_new(mode, group_by, aggregates.clone(), none.clone(), source, rows.output.clone())
        };
        let partial = Arc::new(aggregate(AggregateMode::Partial, group_by.clone(), source)?);
        let state = nullable(&partial.schema());
        let result = aggregate(AggregateMode::Final, Arc::new(group_by.as_final()), partial)?.schema();
        let keys = group_by.expr().len();
        let outputs = match self.outputs(keys, &result)? {
            Ok(outputs) => outputs,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let stored_state = match self.stored_state(keys, &state, &aggregates, &outputs)? {
            Ok(stored) => stored,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let failed = outputs.fields.len() - 1 - usize::from(self.parts.having.is_some());
        Ok(Ok(Fold {
            projection,
            input,
            rows,
            group_by,
            aggregates,
            filters,
            state,
            stored_state,
            finished: Arc::new(Schema::new(outputs.fields)),
            outputs: outputs.expressions,
            visible: self.parts.outputs.len(),
            keys: outputs.keys,
            failed,
            result: nullable(&result),
            having: self.parts.having.is_some(),
        }))
    }

    /// The row stage over `input`, which computes `columns`.
    fn rows(&self, columns: &[PreparedColumn], input: &SchemaRef, from: &DFSchema) -> Result<Rows> {
        let computed = |expr: &Expr, only_where| -> Result<Computed> {
            Ok(Computed { expr: self.physical(expr, from)?, sql: expr.human_display().to_string(), only_where })
        };
        let conditions = self.parts.predicate.as_ref().map(|predicate| parts_of(predicate, from)).transpose()?;
        let conditions: Result<Vec<Computed>> =
            conditions.iter().flatten().map(|condition| computed(condition, None)).collect();
        let mut fields = Vec::new();
        let mut expressions = Vec::new();
        for (place, column) in columns.iter().enumerate() {
            let column = computed(&column.expr, column.only_where)?;
            let field = column.expr.return_field(input)?;
            // Functions are not always right about whether they give NULL.
            let is_nullable = field.is_nullable() || !matches!(columns[place].expr, Expr::Column(_));
            fields.push(Field::new(Prepared::name(place), field.data_type().clone(), is_nullable));
            expressions.push(column);
        }
        if fields.is_empty() {
            // Rows that have no column are easily lost on the way.
            let field = input.field(0);
            let expr = Arc::new(datafusion::physical_expr::expressions::Column::new(field.name(), 0));
            fields.push(field.as_ref().clone().with_name(Prepared::name(0)));
            expressions.push(Computed { expr, sql: field.name().clone(), only_where: None });
        }
        let place = |name: &str| input.index_of(name);
        let position = match POSITION.map(place) {
            [Ok(partition), Ok(offset), Ok(timestamp)] => Some([partition, offset, timestamp]),
            _ => None,
        };
        let conditions = conditions?;
        let read = conditions.iter().chain(&expressions).flat_map(|computed| collect_columns(&computed.expr));
        let width = read.map(|column| column.index() + 1).max().unwrap_or(1);
        Ok(Rows { conditions, columns: expressions, width, output: Arc::new(Schema::new(fields)), position })
    }

    fn physical(&self, expr: &Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
        create_physical_expr(expr, schema, self.state.execution_props(), &PhysicalPlanningContext::default())
    }

    fn aggregates(&self) -> Result<Vec<Expr>> {
        let relation = self.relation();
        self.parts.aggregate.aggr_expr.iter().map(|expr| with_last_sort_keys(expr, &relation)).collect()
    }

    /// Which columns of the dataset everything below the aggregates reads. Where a row can fail, its position is among
    /// them: it is said which ones did.
    fn projection(&self, aggr_exprs: &[Expr]) -> Result<Vec<usize>> {
        let schema = self.dataset.schema.as_ref();
        let whole = self.input_schema(&self.dataset.schema)?;
        let mut names = std::collections::BTreeSet::new();
        for expr in self.parts.aggregate.group_expr.iter().chain(aggr_exprs).chain(&self.parts.predicate) {
            let mut columns = std::collections::HashSet::new();
            expr_to_columns(expr, &mut columns)?;
            names.extend(columns.into_iter().map(|column| column.name));
            if row_may_fail(expr, &whole)? {
                names.extend(POSITION.map(str::to_owned));
            }
        }
        let mut projection: Vec<usize> = names.iter().map(|name| schema.index_of(name)).collect::<Result<_, _>>()?;
        projection.sort_unstable();
        if projection.is_empty() {
            // `count(*)` reads no column, but rows that have none are easily lost on the way.
            projection.push(schema.index_of("_partition")?);
        }
        Ok(projection)
    }

    /// By which name the query calls the dataset.
    fn relation(&self) -> Option<datafusion::common::TableReference> {
        self.parts.aggregate.input.schema().iter().next().and_then(|(relation, _)| relation.cloned())
    }

    fn input_schema(&self, input: &SchemaRef) -> Result<DFSchema> {
        match self.relation() {
            Some(relation) => DFSchema::try_from_qualified_schema(relation, input),
            None => DFSchema::try_from(input.clone()),
        }
    }

    fn outputs(&self, keys: usize, result: &Schema) -> Result<Result<Outputs, Refusal>> {
        let over = self.parts.aggregate.schema.as_ref();
        let mut outputs =
            Outputs { fields: Vec::new(), expressions: Vec::new(), keys: Vec::new(), sources: Vec::new() };
        for (name, output) in self.parts.names.iter().zip(&self.parts.outputs) {
            let data_type = output.get_type(over)?;
            let Some(stored) = stored_type(&data_type) else {
                return Ok(Err(cannot_store(name, &data_type)));
            };
            let expression = self.physical(output, over)?;
            outputs.add(name, stored, expression);
        }
        for key in 0..keys {
            let field = result.field(key);
            let exact = stored_type(field.data_type()).is_some_and(|stored| is_key(field.data_type(), &stored));
            if !exact {
                return Ok(Err(refused(
                    format!(
                        "group key `{}` is of type `{}`, by which a view cannot group",
                        field.name(),
                        field.data_type()
                    ),
                    "cast it: for a time, `arrow_cast(x, 'Timestamp(Microsecond, None)')`",
                )));
            }
            let place = outputs.sources.iter().position(|source| *source == Some(key)).unwrap_or_else(|| {
                let column = datafusion::physical_expr::expressions::Column::new(field.name(), key);
                outputs.add(&format!("__key{key}"), field.data_type().clone(), Arc::new(column));
                outputs.fields.len() - 1
            });
            outputs.keys.push(place);
        }
        outputs.add(FAILED, DataType::Boolean, datafusion::physical_expr::expressions::lit(false));
        if let Some(having) = &self.parts.having {
            let expression = self.physical(having, over)?;
            outputs.add(HAVING, DataType::Boolean, expression);
        }
        Ok(Ok(outputs))
    }

    /// The states' columns as a batch view names and stores them: `<column>__<state>`.
    fn stored_state(
        &self,
        keys: usize,
        state: &Schema,
        aggregates: &[Arc<datafusion::physical_plan::udaf::AggregateFunctionExpr>],
        outputs: &Outputs,
    ) -> Result<Result<SchemaRef, Refusal>> {
        let mut fields: Vec<Field> = outputs.keys.iter().map(|&place| outputs.fields[place].clone()).collect();
        let mut taken: std::collections::BTreeSet<String> =
            outputs.fields.iter().map(|field| field.name().to_lowercase()).collect();
        let mut at = keys;
        for (index, aggregate) in aggregates.iter().enumerate() {
            let column = outputs.sources.iter().position(|source| *source == Some(keys + index));
            let base =
                column.map_or_else(|| format!("aggregate{index}"), |column| outputs.fields[column].name().clone());
            for part in 0..aggregate.state_fields()?.len() {
                let field = state.field(at);
                let Some(stored) = stored_type(field.data_type()) else {
                    return Ok(Err(cannot_store(aggregate.name(), field.data_type())));
                };
                let mut name = format!("{base}__{}", short_name(field.name(), part));
                while !taken.insert(name.to_lowercase()) {
                    name = format!("{name}_{part}");
                }
                fields.push(Field::new(name, stored, true));
                at += 1;
            }
        }
        Ok(Ok(Arc::new(Schema::new(fields))))
    }
}

/// The finished columns while they are being found.
struct Outputs {
    fields: Vec<Field>,
    expressions: Vec<Arc<dyn PhysicalExpr>>,
    /// For each group key, the column that holds it.
    keys: Vec<usize>,
    /// For each column that is just a group key or an aggregate, which one.
    sources: Vec<Option<usize>>,
}

impl Outputs {
    fn add(&mut self, name: &str, data_type: DataType, expression: Arc<dyn PhysicalExpr>) {
        let source = expression.downcast_ref::<datafusion::physical_expr::expressions::Column>();
        self.sources.push(source.map(datafusion::physical_expr::expressions::Column::index));
        self.fields.push(Field::new(name, data_type, true));
        self.expressions.push(expression);
    }
}

/// Whether groups stay apart when a key is stored, and files can be sorted by it.
fn is_key(data_type: &DataType, stored: &DataType) -> bool {
    data_type == stored && !data_type.is_nested()
}

fn cannot_store(name: &str, data_type: &DataType) -> Refusal {
    refused(format!("`{name}` is of type `{data_type}`, which a view cannot hold"), "cast it to a type of the catalog")
}

/// The last word of DataFusion's name for a state column, such as `sum` of `avg(x)[sum]`.
fn short_name(name: &str, part: usize) -> String {
    let inner = name.rsplit_once('[').map_or(name, |(_, inner)| inner.trim_end_matches(']'));
    let plain = !inner.is_empty() && inner.len() <= 24 && inner.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if plain { inner.to_lowercase() } else { format!("state{part}") }
}

fn nullable(schema: &Schema) -> SchemaRef {
    Arc::new(Schema::new(
        schema
            .fields()
            .iter()
            .map(|field| Field::new(field.name(), field.data_type().clone(), true))
            .collect::<Vec<_>>(),
    ))
}

/// An ordered aggregate gets the position as its last sort keys: then its order is total, and no two layers can see it
/// differently.
fn with_last_sort_keys(expr: &Expr, relation: &Option<datafusion::common::TableReference>) -> Result<Expr> {
    let ordered = |call: &AggregateFunction| {
        refuse::ORDERED.contains(&call.func.name()) && !call.params.distinct && !call.params.order_by.is_empty()
    };
    let transformed = expr.clone().transform(|part| match part {
        Expr::AggregateFunction(mut call) if ordered(&call) => {
            for column in ["_partition", "_offset"] {
                let column = Expr::Column(Column::new(relation.clone(), column));
                call.params.order_by.push(column.sort(true, false));
            }
            Ok(datafusion::common::tree_node::Transformed::yes(Expr::AggregateFunction(call)))
        }
        other => Ok(datafusion::common::tree_node::Transformed::no(other)),
    })?;
    // The name stays as the outputs know it.
    Ok(transformed.data.alias(expr.schema_name().to_string()))
}

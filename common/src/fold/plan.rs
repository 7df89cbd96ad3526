//! From a view's query to the expressions of its fold.

use std::{collections::HashMap, sync::Arc};

use datafusion::{
    arrow::datatypes::{DataType, Field, Schema, SchemaRef},
    common::{
        DFSchema, DataFusionError, Diagnostic, Result,
        tree_node::{Transformed, TreeNode},
    },
    datasource::empty::EmptyTable,
    execution::{
        context::{SessionConfig, SessionContext},
        session_state::SessionState,
    },
    logical_expr::{
        Expr, ExprSchemable, LogicalPlan, cast, physical_planning_context::PhysicalPlanningContext,
        utils::expr_to_columns,
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
    aggregates::Aggregates,
    planned,
    prepare::{Prepared, PreparedColumn, parts_of},
    refuse,
    rows::{Computed, Rows},
    shape::{self, Shape},
    stored::stored_type,
    types::{column_type, key_type},
};
use crate::{
    calls,
    catalog::Dataset,
    sql::{self, row_may_fail},
    values::sql_type_name,
};

/// Where an event is, and when it was logged.
const POSITION: [&str; 3] = ["_partition", "_offset", "_timestamp"];

/// A session whose settings decide what a view's SQL means: nothing in it comes from the environment.
pub(super) fn session() -> SessionContext {
    let config = SessionConfig::new().with_target_partitions(1).with_information_schema(false);
    SessionContext::new_with_state(sql::session(config).build())
}

/// Plans the fold of a query that `refuse::check` has let through: as it is written, and in words that DataFusion has.
pub(super) fn plan(dataset: &Arc<Dataset>, written: &Query, query: &Query) -> Result<Fold, Refusal> {
    let context = session();
    let logical = logical_plan(&context, dataset, query).map_err(refusal)?;
    let shape = Shape::of(&logical)?;
    planned::check_names(&shape, written)?;
    planned::check_functions(&shape)?;
    let optimized = sql::analyze(&context.state(), logical).map_err(refusal)?;
    let shape = Shape::of(&optimized)?;
    Lowering { dataset, state: context.state(), shape }.fold().map_err(refusal)?
}

/// The plan of a query as it is written. Where casts make two names the same, they become part of the names.
pub(super) fn logical_plan(context: &SessionContext, dataset: &Arc<Dataset>, query: &Query) -> Result<LogicalPlan> {
    context.register_table(dataset.name.as_str(), Arc::new(EmptyTable::new(dataset.schema.clone())))?;
    context.register_udf(calls::typed(true));
    let mut query = query.clone();
    let plan = |query: Query| {
        let statement = Statement::Statement(Box::new(Sql::Query(Box::new(query))));
        let planned = context.state().statement_to_plan(statement).now_or_never();
        planned.unwrap_or_else(|| Err(DataFusionError::Internal("planning waited for something".to_owned())))
    };
    plan(query.clone()).or_else(|error| {
        calls::name_casts(&mut query);
        plan(query).map_err(|_| error)
    })
}

pub(super) fn refusal(error: DataFusionError) -> Refusal {
    let at = error.diagnostic().and_then(|Diagnostic { span, .. }| *span).and_then(|span| {
        let spans = datafusion::common::Spans(vec![span]);
        refuse::first_location(&spans)
    });
    let (reason, hint) = said(&error.strip_backtrace());
    Refusal { reason, hint, at }
}

/// DataFusion's message as we would say it, and what to write instead.
fn said(message: &str) -> (String, String) {
    let message = message.split("\nThis issue was likely caused by a bug").next().unwrap_or(message);
    let quoted = |after: &str| message.split_once(after).and_then(|(_, rest)| rest.split('\'').next());
    if let Some(unknown) = calls::unknown(message) {
        return unknown;
    }
    if let Some(function) = quoted("a call to '") {
        let hint = match function {
            "avg" | "sum" | "median" | "stddev" | "var" => {
                "cast it to a number: `CAST(x AS INT)` for a BOOLEAN, `date_part('epoch', x)` for a time"
            }
            _ => "cast its arguments: `CAST(x AS …)`",
        };
        return (format!("`{function}` does not take arguments of these types"), hint.to_owned());
    }
    if message.contains("NULLS are not permitted") {
        let reason = message.strip_prefix("Error during planning: ").unwrap_or(message).to_owned();
        return (reason, "write `FILTER (WHERE x IS NOT NULL)` after it".to_owned());
    }
    let reason = message.strip_prefix("Error during planning: ").unwrap_or(message).to_owned();
    (reason, "see the columns of the dataset and DataFusion's SQL reference".to_owned())
}

pub(super) fn refused(reason: impl Into<String>, hint: impl Into<String>) -> Refusal {
    Refusal { reason: reason.into(), hint: hint.into(), at: None }
}

/// Turns a view's logical expressions into physical ones over just the columns that they need.
struct Lowering<'a> {
    dataset: &'a Arc<Dataset>,
    state: SessionState,
    shape: Shape,
}

impl Lowering<'_> {
    fn fold(&self) -> Result<Result<Fold, Refusal>> {
        let whole = DFSchema::try_from(self.dataset.schema.clone())?;
        let over = match self.over(&whole)? {
            Ok(over) => over,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let projection = self.projection(&over, &whole)?;
        let input: SchemaRef = Arc::new(self.dataset.schema.project(&projection)?);
        let from = DFSchema::try_from(input.clone())?;
        let mut prepared = Prepared::new(&from);
        let groups: Vec<usize> = over.keys.iter().map(|key| prepared.add(key, None)).collect::<Result<_>>()?;
        let aggr_exprs: Vec<Expr> =
            over.folded.iter().map(|aggregate| prepared.aggregate(aggregate)).collect::<Result<_>>()?;
        let rows = Arc::new(self.rows(&prepared.columns, &input, &from)?);
        let computed = DFSchema::try_from(rows.output.clone())?;
        let groups = groups.into_iter().enumerate().map(|(index, place)| {
            let column = datafusion::physical_expr::expressions::Column::new(rows.output.field(place).name(), place);
            (Arc::new(column) as Arc<dyn PhysicalExpr>, shape::key_name(index))
        });
        let group_by = Arc::new(PhysicalGroupBy::new_single(groups.collect()));
        let (mut aggregates, mut filters) = (Vec::new(), Vec::new());
        for (index, aggregate) in aggr_exprs.iter().enumerate() {
            let props = self.state.execution_props();
            let context = PhysicalPlanningContext::default();
            let lowered = LoweredAggregateBuilder::new(aggregate, &computed, &rows.output, props, &context);
            let lowered = lowered.with_name(shape::aggregate_name(index)).build()?;
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
        let keys = over.keys.len();
        let outputs = match self.outputs(&over, &result)? {
            Ok(outputs) => outputs,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let stored_state = match self.stored_state(keys, &state, &aggregates, &outputs)? {
            Ok(stored) => stored,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let failed = outputs.fields.len() - 1 - usize::from(self.shape.having.is_some());
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
            visible: self.shape.outputs.len(),
            keys: outputs.keys,
            failed,
            result: nullable(&result),
            having: self.shape.having.is_some(),
        }))
    }

    /// The row stage over `input`, which computes `columns`.
    fn rows(&self, columns: &[PreparedColumn], input: &SchemaRef, from: &DFSchema) -> Result<Rows> {
        let computed = |expr: &Expr, only_where| -> Result<Computed> {
            Ok(Computed { expr: self.physical(expr, from)?, sql: expr.human_display().to_string(), only_where })
        };
        let conditions = self.shape.predicate.as_ref().map(|predicate| parts_of(predicate, from)).transpose()?;
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
        let expr = sql::counted_constants(expr.clone())?.data;
        create_physical_expr(&expr, schema, self.state.execution_props(), &PhysicalPlanningContext::default())
    }

    /// What keys and aggregates are made of.
    fn over(&self, whole: &DFSchema) -> Result<Result<Over, Refusal>> {
        let physical = |expr: &Expr| self.physical(expr, whole);
        let mut over = Over { keys: Vec::new(), folded: Vec::new(), results: HashMap::new() };
        for (index, expression) in self.shape.keys.iter().enumerate() {
            let data_type = expression.get_type(whole)?;
            let stored = match key_type(&expression.human_display().to_string(), &data_type) {
                Ok(stored) => stored,
                Err(refusal) => return Ok(Err(refusal)),
            };
            if stored == data_type {
                over.keys.push(expression.clone());
                continue;
            }
            over.keys.push(cast(expression.clone(), stored));
            over.results.insert(shape::key_name(index), cast(shape::key(index), data_type));
        }
        let mut aggregates = Aggregates { rows: whole, physical: &physical, folded: Vec::new() };
        for (index, aggregate) in self.shape.aggregates.iter().enumerate() {
            match aggregates.add(aggregate)? {
                Ok(result) => over.results.insert(shape::aggregate_name(index), result),
                Err(refusal) => return Ok(Err(refusal)),
            };
        }
        over.folded = aggregates.folded;
        Ok(Ok(over))
    }

    /// Which columns of the dataset everything below the aggregates reads. Where a row can fail, its position is among
    /// them: it is said which ones did.
    fn projection(&self, over: &Over, whole: &DFSchema) -> Result<Vec<usize>> {
        let schema = self.dataset.schema.as_ref();
        let mut names = std::collections::BTreeSet::new();
        for expr in over.keys.iter().chain(&over.folded).chain(&self.shape.predicate) {
            let mut columns = std::collections::HashSet::new();
            expr_to_columns(expr, &mut columns)?;
            names.extend(columns.into_iter().map(|column| column.name));
            if row_may_fail(expr, whole)? {
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

    fn outputs(&self, over: &Over, result: &Schema) -> Result<Result<Outputs, Refusal>> {
        let schema = DFSchema::try_from(result.clone())?;
        let mut outputs =
            Outputs { fields: Vec::new(), expressions: Vec::new(), keys: Vec::new(), sources: Vec::new() };
        for (name, output) in &self.shape.outputs {
            let output = over.output(output)?;
            let data_type = match column_type(name, &output.get_type(&schema)?) {
                Ok(data_type) => data_type,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let expression = self.physical(&output, &schema)?;
            outputs.add(name, data_type, expression);
        }
        for key in 0..over.keys.len() {
            let field = result.field(key);
            let place = outputs.sources.iter().position(|source| *source == Some(key)).unwrap_or_else(|| {
                let column = datafusion::physical_expr::expressions::Column::new(field.name(), key);
                outputs.add(&format!("__key{key}"), field.data_type().clone(), Arc::new(column));
                outputs.fields.len() - 1
            });
            outputs.keys.push(place);
        }
        outputs.add(FAILED, DataType::Boolean, datafusion::physical_expr::expressions::lit(false));
        if let Some(having) = &self.shape.having {
            let expression = self.physical(&over.output(having)?, &schema)?;
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
            let column = outputs.first_over(keys + index);
            let base =
                column.map_or_else(|| format!("aggregate{index}"), |column| outputs.fields[column].name().clone());
            for part in 0..aggregate.state_fields()?.len() {
                let field = state.field(at);
                let Some(stored) = stored_type(field.data_type()) else {
                    return Ok(Err(cannot_store(&base, field.data_type())));
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

/// What is folded, over the dataset's columns.
struct Over {
    /// The group keys, in the types that they are stored in.
    keys: Vec<Expr>,
    folded: Vec<Expr>,
    /// What the names that the view's columns have for keys and aggregates stand for, where it is something else.
    results: HashMap<String, Expr>,
}

impl Over {
    /// A column of the view over the stored keys and the folded aggregates.
    fn output(&self, output: &Expr) -> Result<Expr> {
        if matches!(output, Expr::Column(column) if column.name.starts_with(shape::KEY)) {
            return Ok(output.clone());
        }
        let over = output.clone().transform_up(|part| match &part {
            Expr::Column(column) => match self.results.get(&column.name) {
                Some(result) => Ok(Transformed::yes(result.clone())),
                None => Ok(Transformed::no(part)),
            },
            _ => Ok(Transformed::no(part)),
        });
        Ok(over?.data)
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

    /// The first column that is computed of a key or an aggregate.
    fn first_over(&self, source: usize) -> Option<usize> {
        let is_over = |expression: &Arc<dyn PhysicalExpr>| {
            collect_columns(expression).iter().any(|column| column.index() == source)
        };
        self.expressions.iter().position(is_over)
    }
}

fn cannot_store(column: &str, data_type: &DataType) -> Refusal {
    refused(
        format!(
            "column `{column}` is computed of values of type {}, which a view cannot keep",
            sql_type_name(data_type)
        ),
        "cast what it is computed of to a type of the catalog",
    )
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

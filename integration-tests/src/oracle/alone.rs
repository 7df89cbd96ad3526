//! A view over events of which some cannot be computed: row by row, and group by group.
//!
//! An event whose keys, conditions or arguments have no value is left out of the view, and a column that has no value for a
//! group is NULL. Here every row and every group is computed alone from the start, by plain DataFusion.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray, BooleanArray, RecordBatch, new_null_array},
        compute::{cast, concat, concat_batches, filter_record_batch},
        datatypes::{Field, Schema, SchemaRef},
    },
    datasource::MemTable,
    logical_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder, ident, lit, when},
    prelude::SessionContext,
};

/// A view's plan: outputs over `HAVING` over an aggregate.
struct Parts {
    outputs: Vec<Expr>,
    having: Option<Expr>,
    aggregate: Aggregate,
}

impl Parts {
    async fn of(context: &SessionContext, sql: &str) -> Result<Self> {
        let LogicalPlan::Projection(projection) = context.state().create_logical_plan(sql).await? else {
            bail!("`{sql}` is no view")
        };
        let (having, below) = match projection.input.as_ref() {
            LogicalPlan::Filter(filter) => (Some(filter.predicate.clone()), filter.input.as_ref()),
            other => (None, other),
        };
        let LogicalPlan::Aggregate(aggregate) = below else { bail!("`{sql}` is no view") };
        Ok(Self { outputs: projection.expr.clone(), having, aggregate: aggregate.clone() })
    }

    /// What is computed of each event, and the group keys and aggregates over that.
    fn of_a_row(&self) -> Result<(Vec<Expr>, Vec<Expr>, Vec<Expr>)> {
        let mut computed = vec![lit(0).alias("c0")];
        let mut column = |expr: Expr| {
            let name = format!("c{}", computed.len());
            computed.push(expr.alias(&name));
            ident(name)
        };
        let keys: Vec<Expr> = self.aggregate.group_expr.iter().cloned().map(&mut column).collect();
        let mut aggregates = Vec::new();
        for expr in &self.aggregate.aggr_expr {
            let Expr::AggregateFunction(mut call) = expr.clone().unalias() else { bail!("`{expr}` is no aggregate") };
            let filter = call.params.filter.take();
            // Only where the filter is true something is asked of a row.
            let mut asked = |expr: &mut Expr| -> Result<()> {
                if !expr.column_refs().is_empty() {
                    let own = std::mem::replace(expr, lit(0));
                    *expr = column(match &filter {
                        Some(filter) => when(filter.as_ref().clone(), own).end()?,
                        None => own,
                    });
                }
                Ok(())
            };
            call.params.args.iter_mut().try_for_each(&mut asked)?;
            call.params.order_by.iter_mut().try_for_each(|key| asked(&mut key.expr))?;
            call.params.filter = filter.map(|filter| Box::new(column(*filter)));
            aggregates.push(Expr::AggregateFunction(call).alias(format!("a{}", aggregates.len())));
        }
        Ok((computed, keys, aggregates))
    }
}

/// The events of a table that `context` has one of, as one plan computes them.
async fn computed(context: &SessionContext, sql: &str) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let parts = Parts::of(context, sql).await?;
    let plan = LogicalPlanBuilder::from(parts.aggregate.input.as_ref().clone()).project(parts.of_a_row()?.0)?;
    let frame = context.execute_logical_plan(plan.build()?).await?;
    let schema = frame.clone().create_physical_plan().await?.schema();
    let fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    Ok((Arc::new(Schema::new(fields)), frame.collect().await?))
}

/// The rows of the view `sql` over `events` of `table`, which `context` does not have yet.
pub(super) async fn rows(
    context: &SessionContext,
    table: &str,
    events: &RecordBatch,
    sql: &str,
    schema: &Arc<Schema>,
) -> Result<RecordBatch> {
    context.register_batch(table, events.slice(0, 0))?;
    let (columns, _) = computed(context, sql).await?;
    let mut good = Vec::new();
    for row in (0..events.num_rows()).map(|row| events.slice(row, 1)) {
        context.deregister_table(table)?;
        context.register_batch(table, row)?;
        for batch in computed(context, sql).await.map(|(_, batches)| batches).unwrap_or_default() {
            good.push(RecordBatch::try_new(columns.clone(), batch.columns().to_vec())?);
        }
    }
    let parts = Parts::of(context, sql).await?;
    let (_, keys, aggregates) = parts.of_a_row()?;
    let Parts { outputs, having, aggregate } = parts;
    let over = aggregate.schema.clone();
    context.register_table("computed", Arc::new(MemTable::try_new(columns, vec![good])?))?;
    let plan = LogicalPlanBuilder::from(context.table("computed").await?.into_unoptimized_plan());
    let frame = context.execute_logical_plan(plan.aggregate(keys, aggregates)?.build()?).await?;
    let grouped = frame.clone().create_physical_plan().await?.schema();
    let groups = concat_batches(&grouped, &frame.collect().await?)?;
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (expr, field) in outputs.iter().chain(&having).zip(schema.fields().iter().map(Some).chain([None])) {
        let expr = context.create_physical_expr(expr.clone().unalias(), &over)?;
        let own = expr.data_type(over.as_arrow())?;
        let wanted = field.map_or(&own, |field| field.data_type());
        let mut values = vec![new_null_array(wanted, 0)];
        for group in (0..groups.num_rows()).map(|row| groups.slice(row, 1)) {
            let value = expr.evaluate(&group).and_then(|value| Ok(cast(&value.into_array(1)?, wanted)?));
            values.push(value.unwrap_or_else(|_| new_null_array(wanted, 1)));
        }
        columns.push(concat(&values.iter().map(AsRef::as_ref).collect::<Vec<_>>())?);
    }
    let passes: Option<BooleanArray> = match having {
        Some(_) => Some(columns.pop().context("HAVING")?.as_boolean().clone()),
        None => None,
    };
    let rows = RecordBatch::try_new(schema.clone(), columns)?;
    Ok(match passes {
        Some(passes) => filter_record_batch(&rows, &passes)?,
        None => rows,
    })
}

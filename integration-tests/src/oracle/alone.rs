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
        datatypes::Schema,
    },
    logical_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder, when},
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

    /// What is computed of each event.
    fn of_a_row(&self) -> Result<Vec<Expr>> {
        let mut wanted = self.aggregate.group_expr.clone();
        for expr in &self.aggregate.aggr_expr {
            let Expr::AggregateFunction(call) = expr.clone().unalias() else { bail!("`{expr}` is no aggregate") };
            let sorted = call.params.order_by.into_iter().map(|key| key.expr);
            for argument in call.params.args.into_iter().chain(sorted) {
                wanted.push(match &call.params.filter {
                    Some(filter) => when(filter.as_ref().clone(), argument).end()?,
                    None => argument,
                });
            }
        }
        Ok(wanted.into_iter().enumerate().map(|(i, expr)| expr.alias(format!("c{i}"))).collect())
    }
}

/// The rows of the view `sql` over `events` of `table`, which `context` does not have yet.
pub(super) async fn rows(
    context: &SessionContext,
    table: &str,
    events: &RecordBatch,
    sql: &str,
    schema: &Arc<Schema>,
) -> Result<RecordBatch> {
    let mut good = vec![events.slice(0, 0)];
    for row in (0..events.num_rows()).map(|row| events.slice(row, 1)) {
        context.deregister_table(table)?;
        context.register_batch(table, row.clone())?;
        let parts = Parts::of(context, sql).await?;
        let computed = LogicalPlanBuilder::from(parts.aggregate.input.as_ref().clone()).project(parts.of_a_row()?)?;
        if context.execute_logical_plan(computed.build()?).await?.collect().await.is_ok() {
            good.push(row);
        }
    }
    context.deregister_table(table)?;
    context.register_batch(table, concat_batches(&events.schema(), &good)?)?;
    let Parts { outputs, having, aggregate } = Parts::of(context, sql).await?;
    let over = aggregate.schema.clone();
    let groups = context.execute_logical_plan(LogicalPlan::Aggregate(aggregate)).await?.collect().await?;
    let first = groups.first().map(RecordBatch::schema).unwrap_or_else(|| over.inner().clone());
    let groups = concat_batches(&first, &groups)?;
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (expr, field) in outputs.iter().chain(&having).zip(schema.fields().iter().map(Some).chain([None])) {
        let expr = context.create_physical_expr(expr.clone().unalias(), &over)?;
        let own = expr.data_type(groups.schema_ref())?;
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

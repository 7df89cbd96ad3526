//! Where filters go: DataFusion's rules for logical plans, as far as they keep what a query means, and ours.

use std::sync::Arc;

use datafusion::{
    common::{
        ScalarValue,
        tree_node::{Transformed, TreeNode},
    },
    error::Result,
    logical_expr::{Expr, Filter, LogicalPlan, Operator, expr::BinaryExpr, lit},
    optimizer::{ApplyOrder, Optimizer, OptimizerConfig, OptimizerRule, push_down_filter::PushDownFilter},
};

use super::{conditions, meaning::is_comparison};

/// Filters that the optimizer has put together decide row by row again.
#[derive(Debug)]
struct Guarded;

impl OptimizerRule for Guarded {
    fn name(&self) -> &'static str {
        "lamina_guarded"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Filter(filter) = plan else { return Ok(Transformed::no(plan)) };
        let guarded = conditions::guard(filter.predicate, filter.input.schema())?;
        let transformed = guarded.transformed;
        let filter = LogicalPlan::Filter(Filter::try_new(guarded.data, filter.input)?);
        Ok(if transformed { Transformed::yes(filter) } else { Transformed::no(filter) })
    }
}

/// DataFusion's rule, but that no filter goes below an aggregate without keys, which has a row whatever there is below it,
/// and that literals stand on the right: `'A' = x AND x = 'A'` is never true for it otherwise.
#[derive(Debug)]
struct Down(PushDownFilter);

impl OptimizerRule for Down {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        // Filters one above the other are pushed together.
        let mut below = &plan;
        while let LogicalPlan::Filter(filter) = below {
            below = &filter.input;
        }
        let is_kept = matches!(below, LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty());
        match is_kept && matches!(plan, LogicalPlan::Filter(_)) {
            true => Ok(Transformed::no(plan)),
            false => literals_right(plan)?.transform_data(|plan| self.0.rewrite(plan, config)),
        }
    }
}

/// DataFusion's rules for logical plans, as far as they keep what a query means, and ours.
pub(super) fn optimizer_rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let mut rules = Optimizer::new().rules;
    for rule in &mut rules {
        if rule.name() == PushDownFilter::new().name() {
            *rule = Arc::new(Down(PushDownFilter::new()));
        }
    }
    rules.push(Arc::new(Guarded));
    rules
}

/// A node's conditions with comparisons whose literals stand on the right, and are not NULL.
fn literals_right(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    match plan {
        LogicalPlan::Filter(mut filter) => {
            std::mem::take(&mut filter.predicate).transform_up(turned)?.map_data(|predicate| {
                filter.predicate = predicate;
                Ok(LogicalPlan::Filter(filter))
            })
        }
        LogicalPlan::Join(mut join) => match join.filter.take() {
            Some(filter) => filter.transform_up(turned)?.map_data(|filter| {
                join.filter = Some(filter);
                Ok(LogicalPlan::Join(join))
            }),
            None => Ok(Transformed::no(LogicalPlan::Join(join))),
        },
        plan => Ok(Transformed::no(plan)),
    }
}

fn turned(expr: Expr) -> Result<Transformed<Expr>> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else { return Ok(Transformed::no(expr)) };
    let is_null = |side: &Expr| side.as_literal().is_some_and(ScalarValue::is_null);
    let is_distinct = matches!(op, Operator::IsDistinctFrom | Operator::IsNotDistinctFrom);
    if is_comparison(op) && !is_distinct && (is_null(&left) || is_null(&right)) {
        return Ok(Transformed::yes(lit(ScalarValue::Boolean(None))));
    }
    Ok(match op.swap().filter(|_| is_comparison(op) && left.as_literal().is_some() && right.as_literal().is_none()) {
        Some(op) => Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(right, op, left))),
        None => Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })),
    })
}

//! `CROSS JOIN unnest(column)`: the items of a row's own list beside the row.
//!
//! DataFusion can only unnest what stands in a table's place when it does not depend on the tables before it. Where it
//! does, and reads nothing else, what is computed there is computed of the rows of those tables.

use std::sync::Arc;

use datafusion::{
    common::{
        NullHandling, ScalarValue,
        tree_node::{Transformed, TransformedResult, TreeNode},
    },
    error::Result,
    logical_expr::{
        EmptyRelation, Expr, Filter, Join, JoinType, LogicalPlan, LogicalPlanBuilder, Projection, Subquery, Unnest,
        expr_rewriter::NamePreserver,
    },
};

pub(super) fn unnested(join: Join) -> Result<Transformed<LogicalPlan>> {
    let subquery = match join.right.as_ref() {
        LogicalPlan::Subquery(subquery) => Some(subquery),
        LogicalPlan::SubqueryAlias(alias) => match alias.input.as_ref() {
            LogicalPlan::Subquery(subquery) => Some(subquery),
            _ => None,
        },
        _ => None,
    };
    let is_plain = join.on.is_empty() && join.filter.as_ref().is_none_or(is_true);
    let (Some(Subquery { subquery, .. }), true) = (subquery, is_plain) else {
        return Ok(Transformed::no(LogicalPlan::Join(join)));
    };
    let lift = match join.join_type {
        JoinType::Inner => Lift { left: &join.left, keeps_all: false },
        JoinType::Left => Lift { left: &join.left, keeps_all: true },
        _ => return Ok(Transformed::no(LogicalPlan::Join(join))),
    };
    let Some(lifted) = lift.of(subquery)? else { return Ok(Transformed::no(LogicalPlan::Join(join))) };
    let count = join.left.schema().fields().len();
    let columns = lifted.schema().columns().into_iter().zip(join.schema.iter()).enumerate();
    let columns: Vec<Expr> = columns
        .map(|(place, (column, (table, field)))| match place < count {
            true => Expr::Column(column),
            false => Expr::Column(column).alias_qualified(table.cloned(), field.name()),
        })
        .collect();
    Ok(Transformed::yes(LogicalPlanBuilder::from(lifted).project(columns)?.build()?))
}

struct Lift<'a> {
    left: &'a Arc<LogicalPlan>,
    /// Whether a row without items stays.
    keeps_all: bool,
}

impl Lift<'_> {
    /// The plan over the rows on the left, whose columns come first; `None` if it reads something else.
    fn of(&self, plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
        match plan {
            LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: true, .. }) => {
                Ok(Some(self.left.as_ref().clone()))
            }
            LogicalPlan::Projection(Projection { expr, input, .. }) => {
                let Some(input) = self.of(input)? else { return Ok(None) };
                let names = NamePreserver::new_for_projection();
                let mut columns: Vec<Expr> = self.left.schema().columns().into_iter().map(Expr::Column).collect();
                for expression in expr {
                    let name = names.save(expression);
                    let own = name.restore(own(expression.clone())?);
                    if columns.contains(&own) {
                        return Ok(None);
                    }
                    columns.push(own);
                }
                LogicalPlanBuilder::from(input).project(columns)?.build().map(Some)
            }
            LogicalPlan::Unnest(Unnest { input, exec_columns, options, .. }) => {
                let Some(input) = self.of(input)? else { return Ok(None) };
                let options = match self.keeps_all {
                    true => options.clone().with_null_handling(NullHandling::PreserveAndExpandEmpty),
                    false => options.clone(),
                };
                let unnested =
                    LogicalPlanBuilder::from(input).unnest_columns_with_options(exec_columns.clone(), options)?;
                unnested.build().map(Some)
            }
            LogicalPlan::Filter(Filter { predicate, input, .. }) if !self.keeps_all => {
                let Some(input) = self.of(input)? else { return Ok(None) };
                LogicalPlanBuilder::from(input).filter(own(predicate.clone())?)?.build().map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// An expression with the columns of the tables before it as its own.
fn own(expression: Expr) -> Result<Expr> {
    let own = expression.transform_up(|part| match part {
        Expr::OuterReferenceColumn(_, column) => Ok(Transformed::yes(Expr::Column(column))),
        part => Ok(Transformed::no(part)),
    });
    own.data()
}

fn is_true(condition: &Expr) -> bool {
    matches!(condition, Expr::Literal(ScalarValue::Boolean(Some(true)), _))
}

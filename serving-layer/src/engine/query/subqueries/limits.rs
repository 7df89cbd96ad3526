//! `LIMIT` in a subquery that refers to the outer query: so many rows for each of its rows.

use std::collections::HashMap;

use datafusion::{
    common::{Column, tree_node::Transformed},
    error::Result,
    functions_window::expr_fn::row_number,
    logical_expr::{
        Expr, ExprFunctionExt, FetchType, Filter, Limit, LogicalPlan, LogicalPlanBuilder, Projection, SkipType, Sort,
        SortExpr, SubqueryAlias, lit, utils::split_conjunction,
    },
    optimizer::push_down_filter::replace_cols_by_name,
};

use super::{equal_column, is_by_equality, is_correlated, refuse};

/// A limit becomes a condition on the places of rows among those that the outer query's row is compared with.
pub(super) fn within_groups(limit: Limit) -> Result<Transformed<LogicalPlan>> {
    if !is_correlated(&limit.input) {
        return Ok(Transformed::no(LogicalPlan::Limit(limit)));
    }
    let (SkipType::Literal(skip), FetchType::Literal(fetch)) = (limit.get_skip_type()?, limit.get_fetch_type()?) else {
        return refuse("`LIMIT` of a subquery that refers to the outer query must be a number");
    };
    let mut ranked = Ranked { keys: Vec::new(), skip, fetch };
    match is_by_equality(&limit.input)? {
        true => match ranked.below(&limit.input)? {
            Some(plan) => Ok(Transformed::yes(plan)),
            None => unsupported(limit, skip),
        },
        false => unsupported(limit, skip),
    }
}

/// `EXISTS` needs no limit that lets a row pass; others with a limit are refused by DataFusion.
fn unsupported(limit: Limit, skip: usize) -> Result<Transformed<LogicalPlan>> {
    match skip {
        0 => Ok(Transformed::no(LogicalPlan::Limit(limit))),
        _ => {
            refuse("`OFFSET` of a subquery that refers to the outer query needs `column = outer.column` in its `WHERE`")
        }
    }
}

/// What is ranked by, said with the columns of the node that is looked at.
struct Ranked {
    keys: Vec<SortExpr>,
    skip: usize,
    fetch: Option<usize>,
}

impl Ranked {
    /// The plan with its rows ranked right above the condition that refers to the outer query.
    fn below(&mut self, plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
        match plan {
            LogicalPlan::Sort(Sort { expr, input, fetch: None }) => {
                self.keys.extend(expr.iter().cloned());
                self.below(input)
            }
            LogicalPlan::Projection(projection) => {
                let Projection { expr, input, schema, .. } = projection;
                let of_column = schema.columns().into_iter().map(|column| column.flat_name()).zip(expr.iter().cloned());
                self.rename(&of_column.map(|(name, expr)| (name, expr.unalias())).collect())?;
                let Some(input) = self.below(input)? else { return Ok(None) };
                LogicalPlanBuilder::from(input).project(expr.clone())?.build().map(Some)
            }
            LogicalPlan::SubqueryAlias(SubqueryAlias { input, alias, schema, .. }) => {
                let of_column = schema.columns().into_iter().map(|column| column.flat_name());
                let columns = input.schema().columns().into_iter().map(Expr::Column);
                self.rename(&of_column.zip(columns).collect())?;
                let Some(input) = self.below(input)? else { return Ok(None) };
                LogicalPlanBuilder::from(input).alias(alias.clone())?.build().map(Some)
            }
            LogicalPlan::Filter(filter) if is_correlated_here(filter) => self.above(filter).map(Some),
            LogicalPlan::Filter(filter) => {
                let Some(input) = self.below(&filter.input)? else { return Ok(None) };
                LogicalPlanBuilder::from(input).filter(filter.predicate.clone())?.build().map(Some)
            }
            _ => Ok(None),
        }
    }

    fn above(&self, filter: &Filter) -> Result<LogicalPlan> {
        let groups: Vec<Expr> =
            split_conjunction(&filter.predicate).into_iter().filter_map(equal_column).cloned().collect();
        // Rows in no order have a place too, and a window wants to be told one.
        let keys = match self.keys.as_slice() {
            [] => groups.iter().map(|group| group.clone().sort(true, false)).collect(),
            keys => keys.to_vec(),
        };
        let place = row_number().partition_by(groups).order_by(keys).build()?;
        let first = u64::try_from(self.skip).unwrap_or(u64::MAX);
        let rank = Expr::Column(Column::from_name(place.schema_name().to_string()));
        let mut wanted = rank.clone().gt(lit(first));
        if let Some(fetch) = self.fetch {
            let last = first.saturating_add(u64::try_from(fetch).unwrap_or(u64::MAX));
            wanted = wanted.and(rank.lt_eq(lit(last)));
        }
        let columns: Vec<Expr> = filter.input.schema().columns().into_iter().map(Expr::Column).collect();
        let ranked = LogicalPlanBuilder::from(LogicalPlan::Filter(filter.clone()));
        let ranked = LogicalPlanBuilder::window_plan(ranked.build()?, vec![place])?;
        LogicalPlanBuilder::from(ranked).filter(wanted)?.project(columns)?.build()
    }

    fn rename(&mut self, columns: &HashMap<String, Expr>) -> Result<()> {
        for key in &mut self.keys {
            key.expr = replace_cols_by_name(key.expr.clone(), columns)?;
        }
        Ok(())
    }
}

fn is_correlated_here(filter: &Filter) -> bool {
    filter.predicate.contains_outer()
}

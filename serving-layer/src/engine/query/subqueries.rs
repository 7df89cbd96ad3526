//! Subqueries mean what SQL says, wherever they stand.
//!
//! DataFusion makes joins of them, which know no NULL: right is only `x IN (…)` as a condition of its own in `WHERE`,
//! and `EXISTS` anywhere in `WHERE`. Every other subquery is a list of its values here. `IN`, `ANY` and `ALL` look for a
//! value in it, a subquery as a value is its only item, and `EXISTS` counts. What does not refer to the outer query is
//! computed once; the rest is grouped by what it is compared with, and joined.

use std::sync::Arc;

use datafusion::{
    common::{
        Column, Spans,
        tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion},
    },
    error::{DataFusionError, Result},
    functions_aggregate::expr_fn::{array_agg, count},
    functions_nested::expr_fn::make_array,
    logical_expr::{
        Expr, ExprSchemable, Filter, LogicalPlan, LogicalPlanBuilder, Operator, ScalarUDF, Subquery, SubqueryAlias,
        expr::{Exists, InSubquery, SetComparison, SetQuantifier},
        expr_rewriter::NamePreserver,
        lit, not,
        utils::{conjunction, split_conjunction, split_conjunction_owned},
    },
};

use super::lists::{AnyOf, OnlyOf};

mod lateral;
mod limits;
#[cfg(test)]
mod tests;

/// Rewrites a query's plan.
pub(super) fn rewrite(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(of_node).data()
}

fn of_node(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    match node {
        LogicalPlan::Limit(limit) => limits::within_groups(limit),
        LogicalPlan::SubqueryAlias(alias) => of_alias(alias),
        LogicalPlan::Join(join) => lateral::unnested(join)?.transform_data(of_expressions),
        LogicalPlan::Filter(filter) if has_subquery(&filter.predicate) => of_filter(filter),
        node => of_expressions(node),
    }
}

/// DataFusion lets the columns that are compared with the outer query's through a table's alias only if it has them; it
/// takes the alias for narrower than it is otherwise, and panics. As a projection it lets them through.
fn of_alias(alias: SubqueryAlias) -> Result<Transformed<LogicalPlan>> {
    let has = alias.input.schema();
    let hides = |condition: &&Expr| {
        condition.contains_outer() && condition.column_refs().into_iter().any(|column| !has.has_column(column))
    };
    let hides_one = visit(&alias.input, |node| match node {
        LogicalPlan::Filter(filter) => split_conjunction(&filter.predicate).iter().any(hides),
        _ => false,
    })?;
    if !hides_one {
        return Ok(Transformed::no(LogicalPlan::SubqueryAlias(alias)));
    }
    let columns = has.columns().into_iter().zip(alias.schema.iter());
    let columns: Vec<Expr> = columns
        .map(|(column, (table, field))| Expr::Column(column).alias_qualified(table.cloned(), field.name()))
        .collect();
    Ok(Transformed::yes(LogicalPlanBuilder::from(alias.input.clone()).project(columns)?.build()?))
}

/// A condition that is false and one that is NULL are the same to a filter, if they are conditions of their own.
fn of_filter(filter: Filter) -> Result<Transformed<LogicalPlan>> {
    let Filter { predicate, input, .. } = filter;
    let conditions = split_conjunction_owned(predicate).into_iter().map(|condition| {
        if is_semi_join(&condition, &input)? {
            return Ok(condition);
        }
        condition.transform_up(|expression| of_expression(expression, true)).data()
    });
    let conditions: Result<Vec<Expr>> = conditions.collect();
    let predicate = conjunction(conditions?).unwrap_or_else(|| lit(true));
    Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(predicate, input)?)))
}

fn of_expressions(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let mut found = false;
    node.apply_expressions(|expression| {
        found |= has_subquery(expression);
        Ok(TreeNodeRecursion::Continue)
    })?;
    if !found {
        return Ok(Transformed::no(node));
    }
    let joined = matches!(node, LogicalPlan::Projection(_));
    let names = NamePreserver::new(&node);
    let rewritten = node.map_expressions(|expression| {
        let name = names.save(&expression);
        let rewritten = expression.transform_up(|expression| {
            if let (false, Some(subquery)) = (joined, subquery_of(&expression))
                && is_correlated(&subquery.subquery)
            {
                return refuse(
                    "a subquery that refers to the outer query is only supported in the `SELECT` list and in `WHERE`",
                );
            }
            of_expression(expression, false)
        })?;
        Ok(rewritten.update_data(|expression| name.restore(expression)))
    })?;
    rewritten.map_data(LogicalPlan::recompute_schema)
}

/// Whether an error says that a subquery could not be made a join of.
pub(super) fn is_left_over(error: &DataFusionError) -> bool {
    let said = error.strip_backtrace();
    ["OuterReferenceColumn", "undecorrelated Subquery", "logical expression Exists", "logical expression InSubquery"]
        .iter()
        .any(|part| said.contains(part))
}

/// Whether DataFusion's semi-join says what the condition says.
fn is_semi_join(condition: &Expr, input: &LogicalPlan) -> Result<bool> {
    let Expr::InSubquery(InSubquery { expr, subquery, negated: false }) = condition else { return Ok(false) };
    let plan = &subquery.subquery;
    // Joins compare floating-point numbers by their bits.
    let is_float = expr.get_type(input.schema())?.is_floating()
        || plan.schema().fields().iter().any(|field| field.data_type().is_floating());
    Ok(!is_float && (!is_correlated(plan) || aggregates_nothing(plan)? && !has_subquery(expr)))
}

fn of_expression(expression: Expr, in_filter: bool) -> Result<Transformed<Expr>> {
    match expression {
        Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
            let found = any_of(*expr, Operator::Eq, subquery, in_filter)?;
            Ok(Transformed::yes(if negated { not(found) } else { found }))
        }
        Expr::SetComparison(SetComparison { expr, subquery, op, quantifier }) if AnyOf::knows(op) => {
            match (quantifier, op.negate()) {
                (SetQuantifier::All, Some(opposite)) => {
                    Ok(Transformed::yes(not(any_of(*expr, opposite, subquery, in_filter)?)))
                }
                _ => Ok(Transformed::yes(any_of(*expr, op, subquery, in_filter)?)),
            }
        }
        Expr::Exists(Exists { subquery, negated }) => exists(subquery, negated, in_filter),
        Expr::ScalarSubquery(subquery) if is_correlated(&subquery.subquery) => {
            compares_well(&subquery.subquery)?;
            match is_one_row(&subquery.subquery) {
                true => Ok(Transformed::no(Expr::ScalarSubquery(subquery))),
                false => {
                    let values = list(Arc::unwrap_or_clone(subquery.subquery))?;
                    Ok(Transformed::yes(ScalarUDF::from(OnlyOf::new()).call(vec![values])))
                }
            }
        }
        expression => Ok(Transformed::no(expression)),
    }
}

fn any_of(left: Expr, operator: Operator, subquery: Subquery, in_filter: bool) -> Result<Expr> {
    let plan = subquery.subquery.clone();
    let values = match is_correlated(&plan) {
        false => list(LogicalPlanBuilder::from(plan).distinct()?.build()?)?,
        // An aggregate of no rows is a row too, which joins forget.
        true if is_one_row(&plan) => {
            compares_well(&plan)?;
            make_array(vec![Expr::ScalarSubquery(subquery)])
        }
        true if in_filter && !is_by_equality(&plan)? && aggregates_nothing(&plan)? => {
            let left = Box::new(left);
            return Ok(Expr::SetComparison(SetComparison::new(left, subquery, operator, SetQuantifier::Any)));
        }
        true => {
            compares_well(&plan)?;
            list(Arc::unwrap_or_clone(plan))?
        }
    };
    Ok(ScalarUDF::from(AnyOf::new(operator)).call(vec![left, values]))
}

fn exists(subquery: Subquery, negated: bool, in_filter: bool) -> Result<Transformed<Expr>> {
    let plan = &subquery.subquery;
    let correlated = is_correlated(plan);
    if correlated && is_one_row(plan) {
        return Ok(Transformed::yes(lit(!negated)));
    }
    if correlated && !aggregates_nothing(plan)? {
        return refuse(NO_HAVING);
    }
    if in_filter {
        return Ok(Transformed::no(Expr::Exists(Exists { subquery, negated })));
    }
    let plan = match correlated {
        true => {
            compares_well(plan)?;
            LogicalPlanBuilder::from(plan.clone())
        }
        false => LogicalPlanBuilder::from(plan.clone()).limit(0, Some(1))?,
    };
    let rows = plan.aggregate(Vec::<Expr>::new(), vec![count(lit(1_i64)).alias("rows")])?.build()?;
    let rows = value(rows);
    Ok(Transformed::yes(if negated { rows.eq(lit(0_i64)) } else { rows.gt(lit(0_i64)) }))
}

/// All values of a subquery, NULL when there are none.
fn list(plan: LogicalPlan) -> Result<Expr> {
    let column = Expr::Column(Column::from(plan.schema().qualified_field(0)));
    let values = vec![array_agg(column).alias("values")];
    Ok(value(LogicalPlanBuilder::from(plan).aggregate(Vec::<Expr>::new(), values)?.build()?))
}

fn value(plan: LogicalPlan) -> Expr {
    let outer_ref_columns = plan.all_out_ref_exprs();
    Expr::ScalarSubquery(Subquery { subquery: Arc::new(plan), outer_ref_columns, spans: Spans::new() })
}

const NO_HAVING: &str = "a subquery that refers to the outer query aggregates all its rows below its top: write the \
                         aggregate as a subquery of its own, and compare with its value";
const NO_EQUALITY: &str = "a subquery refers to the outer query otherwise than by `column = outer.column` in its \
                           `WHERE`: write it as a join";

/// Refuses a subquery that DataFusion cannot group by what it is compared with.
fn compares_well(plan: &LogicalPlan) -> Result<()> {
    if !is_by_equality(plan)? {
        return refuse(NO_EQUALITY);
    }
    match is_one_row(plan) || aggregates_nothing(plan)? {
        true => Ok(()),
        false => refuse(NO_HAVING),
    }
}

fn refuse<T>(reason: &str) -> Result<T> {
    Err(DataFusionError::Plan(reason.to_owned()))
}

fn has_subquery(expression: &Expr) -> bool {
    expression.exists(|part| Ok(subquery_of(part).is_some())).unwrap_or(true)
}

fn subquery_of(expression: &Expr) -> Option<&Subquery> {
    match expression {
        Expr::InSubquery(InSubquery { subquery, .. })
        | Expr::Exists(Exists { subquery, .. })
        | Expr::SetComparison(SetComparison { subquery, .. })
        | Expr::ScalarSubquery(subquery) => Some(subquery),
        _ => None,
    }
}

/// Looks at a subquery's nodes, but for those of a subquery in its `FROM`, which refer to others.
fn visit(plan: &LogicalPlan, mut look: impl FnMut(&LogicalPlan) -> bool) -> Result<bool> {
    let mut found = false;
    plan.apply(|node| {
        if matches!(node, LogicalPlan::Subquery(_)) {
            return Ok(TreeNodeRecursion::Jump);
        }
        found = look(node);
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

fn is_correlated(plan: &LogicalPlan) -> bool {
    visit(plan, LogicalPlan::contains_outer_reference).unwrap_or(true)
}

/// Whether the plan is one row, whatever it reads: an aggregate without groups.
fn is_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => is_one_row(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => is_one_row(&alias.input),
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        _ => false,
    }
}

/// Whether no aggregate without groups is over rows that depend on the outer query: of no rows it is a row, which is
/// forgotten when it is grouped.
fn aggregates_nothing(plan: &LogicalPlan) -> Result<bool> {
    let aggregates = visit(plan, |node| match node {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty() && is_correlated(&aggregate.input),
        _ => false,
    })?;
    Ok(!aggregates)
}

/// Whether the plan refers to the outer query in conditions `column = …` alone.
fn is_by_equality(plan: &LogicalPlan) -> Result<bool> {
    let otherwise = visit(plan, |node| match node {
        LogicalPlan::Filter(filter) => split_conjunction(&filter.predicate)
            .into_iter()
            .any(|condition| condition.contains_outer() && equal_column(condition).is_none()),
        node => node.contains_outer_reference(),
    })?;
    Ok(!otherwise)
}

/// The column of a condition `column = …` whose other side is the outer query's.
fn equal_column(condition: &Expr) -> Option<&Expr> {
    let Expr::BinaryExpr(binary) = condition else { return None };
    let is_column = |side: &Expr| match side {
        Expr::Cast(cast) => matches!(cast.expr.as_ref(), Expr::Column(_)),
        side => matches!(side, Expr::Column(_)),
    };
    let (left, right) = (binary.left.as_ref(), binary.right.as_ref());
    match binary.op {
        Operator::Eq if is_column(left) && !right.any_column_refs() => Some(left),
        Operator::Eq if is_column(right) && !left.any_column_refs() => Some(right),
        _ => None,
    }
}

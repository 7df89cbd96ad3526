//! After types are coerced: what would wrap, cut, compare bits, or depend on how rows are batched is replaced.

use datafusion::{
    arrow::datatypes::DataType,
    common::{
        Column, DFSchema,
        config::ConfigOptions,
        tree_node::{Transformed, TransformedResult, TreeNode},
    },
    error::Result,
    logical_expr::{
        Aggregate, Expr, ExprSchemable, LogicalPlan, Operator,
        expr::{AggregateFunction, Between, BinaryExpr, Cast, InList, Sort, TryCast, WindowFunction},
    },
    optimizer::AnalyzerRule,
};

use super::{
    arithmetic, bounded, casts, conditions,
    fallible::{is_constant, is_widening},
    floats,
    meaning::{column, is_comparison, rewrite},
    times,
};

/// The rule.
#[derive(Debug)]
pub(super) struct Exact;

impl AnalyzerRule for Exact {
    fn name(&self) -> &'static str {
        "lamina_exact"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(exact).data()
    }
}

fn exact(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let inputs: Vec<LogicalPlan> = plan.inputs().into_iter().cloned().collect();
    // What a node gives out, or puts in order or in groups, is compared somewhere above it or by itself.
    let compared_whole = matches!(plan, LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_) | LogicalPlan::Sort(_));
    let is_canonical = |column: &Column| inputs.iter().any(|input| holds_canonical(input, column));
    rewrite(plan, &|expr, schema| {
        let mut expr = expr.transform_up(|part| exact_part(part, schema, &is_canonical))?;
        if compared_whole && !matches!(expr.data.clone().unalias(), Expr::AggregateFunction(_)) {
            expr = expr.transform_data(|expr| whole(expr, schema, &is_canonical))?;
        }
        expr.transform_data(|expr| conditions::guard(expr, schema))
    })
}

type IsCanonical<'a> = &'a dyn Fn(&Column) -> bool;

fn exact_part(expr: Expr, schema: &DFSchema, is_canonical: IsCanonical<'_>) -> Result<Transformed<Expr>> {
    let one = |expr: Expr| comparable(expr, schema, is_canonical);
    Ok(match expr {
        Expr::BinaryExpr(binary) if is_arithmetic(binary.op) => return arithmetic(binary, schema),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right }) => {
            Transformed::yes(bounded::pasted(*left, *right))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(op) => {
            let (left, right) = (one(*left)?, one(*right)?);
            Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right))))
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            let (expr, low, high) = (one(*expr)?, one(*low)?, one(*high)?);
            Transformed::yes(Expr::Between(Between::new(Box::new(expr), negated, Box::new(low), Box::new(high))))
        }
        Expr::InList(InList { expr, list, negated }) => {
            let list: Result<Vec<Expr>> = list.into_iter().map(one).collect();
            Transformed::yes(Expr::InList(InList::new(Box::new(one(*expr)?), list?, negated)))
        }
        Expr::Negative(expr) if expr.get_type(schema).is_ok_and(|of| arithmetic::wraps(&of)) => {
            Transformed::yes(arithmetic::negated(*expr))
        }
        Expr::Cast(Cast { expr, field }) => {
            let from = expr.get_type(schema)?;
            let rounded = casts::rounded(&expr, &from, field.data_type());
            let expr = rounded.unwrap_or(*expr);
            Transformed::yes(match is_constant(&expr)? && !is_text(&expr) && !is_widening(&from, field.data_type()) {
                true => casts::late(expr, field.data_type()),
                false => Expr::Cast(Cast { expr: Box::new(expr), field }),
            })
        }
        Expr::TryCast(TryCast { expr, field }) => {
            let from = expr.get_type(schema)?;
            let rounded = casts::rounded(&expr, &from, field.data_type());
            let expr = rounded.unwrap_or(*expr);
            Transformed::yes(Expr::TryCast(TryCast { expr: Box::new(expr), field }))
        }
        Expr::ScalarFunction(mut call) if matches!(call.func.name(), "nullif" | "greatest" | "least") => {
            let compared: Result<Vec<Expr>> =
                call.args.into_iter().map(|argument| canonical(argument, schema, is_canonical)).collect();
            call.args = compared?;
            Transformed::yes(Expr::ScalarFunction(call))
        }
        Expr::AggregateFunction(call) => Transformed::yes(aggregate(call, schema, is_canonical)?),
        Expr::WindowFunction(window) => {
            let WindowFunction { fun, mut params } = *window;
            let keys: Result<Vec<Expr>> = params.partition_by.into_iter().map(one).collect();
            params.partition_by = keys?;
            params.order_by = sorted(params.order_by, schema, is_canonical)?;
            Transformed::yes(Expr::from(WindowFunction { fun, params }))
        }
        other => bounded::bounded_call(other),
    })
}

/// Whether an expression is a text that stands in the statement: what it cannot be cast to is known when it is read.
fn is_text(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(value, _) if value.data_type().is_string())
}

fn is_arithmetic(op: Operator) -> bool {
    matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide | Operator::Modulo)
}

fn arithmetic(binary: BinaryExpr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    // The type of a long chain is not looked for again at each of its links.
    let wraps = |side: &Expr| Ok(arithmetic::is_checked(side) || arithmetic::wraps(&side.get_type(schema)?));
    let both: Result<bool> = wraps(&binary.right).and_then(|right| Ok(right && wraps(&binary.left)?));
    Ok(match both? {
        true => Transformed::yes(arithmetic::checked(*binary.left, binary.op, *binary.right)),
        false => Transformed::no(Expr::BinaryExpr(binary)),
    })
}

fn aggregate(call: AggregateFunction, schema: &DFSchema, is_canonical: IsCanonical<'_>) -> Result<Expr> {
    let AggregateFunction { func, mut params } = call;
    if params.distinct || matches!(func.name(), "array_agg" | "approx_distinct" | "median") {
        let arguments: Result<Vec<Expr>> =
            params.args.into_iter().map(|argument| canonical(argument, schema, is_canonical)).collect();
        params.args = arguments?;
    }
    params.order_by = sorted(params.order_by, schema, is_canonical)?;
    if let Some(filter) = &params.filter {
        let only = |argument: Expr| conditions::filtered(argument, filter, schema);
        let arguments: Result<Vec<Expr>> = params.args.into_iter().map(only).collect();
        params.args = arguments?;
        let keys: Result<Vec<Sort>> =
            params.order_by.into_iter().map(|key| Ok(Sort { expr: only(key.expr)?, ..key })).collect();
        params.order_by = keys?;
    }
    Ok(Expr::AggregateFunction(AggregateFunction { func, params }))
}

fn sorted(keys: Vec<Sort>, schema: &DFSchema, is_canonical: IsCanonical<'_>) -> Result<Vec<Sort>> {
    keys.into_iter().map(|key| Ok(Sort { expr: comparable(key.expr, schema, is_canonical)?, ..key })).collect()
}

/// A whole expression of a node, under its alias if it has one.
fn whole(expr: Expr, schema: &DFSchema, is_canonical: IsCanonical<'_>) -> Result<Transformed<Expr>> {
    if let Expr::Alias(mut alias) = expr {
        let inner = whole(*alias.expr, schema, is_canonical)?;
        let transformed = inner.transformed;
        alias.expr = Box::new(inner.data);
        return Ok(Transformed::new(
            Expr::Alias(alias),
            transformed,
            datafusion::common::tree_node::TreeNodeRecursion::Continue,
        ));
    }
    let one = canonical(expr, schema, is_canonical)?;
    Ok(Transformed::yes(one))
}

/// `expr` as it is compared: an interval by its length, and a number as [`canonical`] has it.
fn comparable(expr: Expr, schema: &DFSchema, is_canonical: IsCanonical<'_>) -> Result<Expr> {
    match expr.get_type(schema) {
        Ok(DataType::Interval(_) | DataType::Duration(_)) => Ok(times::length(expr)),
        _ => canonical(expr, schema, is_canonical),
    }
}

/// `expr` with one zero and one NaN, if it is a floating-point number that may have more.
fn canonical(expr: Expr, schema: &DFSchema, is_canonical: IsCanonical<'_>) -> Result<Expr> {
    if matches!(expr, Expr::GroupingSet(_)) || floats::is_canonical(&expr) && !matches!(expr, Expr::Literal(..)) {
        return Ok(expr);
    }
    if !matches!(expr.get_type(schema), Ok(DataType::Float32 | DataType::Float64)) {
        return Ok(expr);
    }
    Ok(match column(&expr) {
        Some(column) if is_canonical(column) => expr,
        _ => floats::canonical(expr),
    })
}

/// Whether a column of a plan's is known to have one zero and one NaN: events have, and so has whatever a projection or
/// a group key gives out.
fn holds_canonical(plan: &LogicalPlan, column: &Column) -> bool {
    plan.schema().maybe_index_of_column(column).is_some_and(|place| holds_at(plan, place))
}

fn holds_at(plan: &LogicalPlan, place: usize) -> bool {
    match plan {
        LogicalPlan::TableScan(_) | LogicalPlan::Projection(_) => true,
        LogicalPlan::Aggregate(Aggregate { group_expr, .. }) => {
            place < group_expr.len() && !group_expr.iter().any(|key| matches!(key, Expr::GroupingSet(_)))
        }
        LogicalPlan::Filter(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Subquery(_)
        | LogicalPlan::Repartition(_)
        | LogicalPlan::Distinct(_) => plan.inputs().first().is_some_and(|input| holds_at(input, place)),
        LogicalPlan::Union(union) => union.inputs.iter().all(|input| holds_at(input, place)),
        LogicalPlan::Join(join) => {
            let left = join.left.schema().fields().len();
            let only_left = plan.schema().fields().len() <= left;
            match place < left || only_left {
                true => holds_at(&join.left, place),
                false => holds_at(&join.right, place - left),
            }
        }
        _ => false,
    }
}

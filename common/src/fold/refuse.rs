//! What a view's query may not have, said in its own words and at its own place.

use datafusion::common::Spans;
use sqlparser::{
    ast::{
        Distinct, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArguments, GroupByExpr,
        Query, Select, SelectItem, SetExpr, Spanned, TableFactor, Visit, Visitor,
    },
    tokenizer::{Location, Span},
};

use super::Refusal;
use crate::catalog::Dataset;

/// Aggregates whose states merge exactly (digests: within their error bound), each proven by a test.
const AGGREGATES: &[&str] = &[
    "approx_distinct",
    "approx_median",
    "approx_percentile_cont",
    "approx_percentile_cont_with_weight",
    "array_agg",
    "avg",
    "mean",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar",
    "covar_pop",
    "covar_samp",
    "first_value",
    "last_value",
    "max",
    "median",
    "min",
    "nth_value",
    "percentile_cont",
    "quantile_cont",
    "regr_avgx",
    "regr_avgy",
    "regr_count",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "string_agg",
    "sum",
    "var",
    "var_pop",
    "var_population",
    "var_samp",
    "var_sample",
];

/// Aggregates whose result depends on the order of their input.
pub(super) const ORDERED: &[&str] = &["array_agg", "string_agg", "first_value", "last_value", "nth_value"];

/// Whether an aggregate of this name can be folded exactly.
pub(super) fn is_known(aggregate: &str) -> bool {
    AGGREGATES.contains(&aggregate)
}

/// Refuses what is wrong by the look of the query alone.
pub(super) fn check(dataset: &Dataset, query: &Query) -> Result<(), Refusal> {
    let whole = query.span();
    if query.with.is_some() {
        return refuse(whole, "a view cannot have `WITH`", "write the view directly over its dataset");
    }
    if query.order_by.is_some() {
        return refuse(
            whole,
            "a view has no order: `ORDER BY` is not allowed",
            "order the rows when you query the view",
        );
    }
    if query.limit_clause.is_some() || query.fetch.is_some() {
        return refuse(
            whole,
            "a view holds all its groups: `LIMIT` is not allowed",
            "limit the rows when you query the view",
        );
    }
    if !query.locks.is_empty()
        || query.for_clause.is_some()
        || query.settings.is_some()
        || query.format_clause.is_some()
    {
        return refuse(whole, "a view's query ends after `HAVING`", "remove what follows");
    }
    match query.body.as_ref() {
        SetExpr::Select(select) => check_select(dataset, select),
        SetExpr::SetOperation { op, .. } => refuse(
            whole,
            &format!("a view is one `SELECT`: `{op}` is not allowed"),
            "make a view of each part and combine them when you query",
        ),
        _ => refuse(
            whole,
            "a view is one `SELECT` with group keys and aggregates",
            "write `SELECT … FROM dataset GROUP BY …`",
        ),
    }
}

fn check_select(dataset: &Dataset, select: &Select) -> Result<(), Refusal> {
    let span = select.span();
    if let Some(distinct) = &select.distinct {
        let what = if matches!(distinct, Distinct::On(_)) { "DISTINCT ON" } else { "DISTINCT" };
        return refuse(span, &format!("`{what}` is not allowed in a view"), "list the columns in `GROUP BY`");
    }
    check_from(dataset, select)?;
    if !select.named_window.is_empty() || select.qualify.is_some() {
        return refuse(span, "a view cannot have windows", "compute them when you query the view");
    }
    let unusual = select.top.is_some()
        || select.into.is_some()
        || !select.lateral_views.is_empty()
        || select.prewhere.is_some()
        || !select.cluster_by.is_empty()
        || !select.distribute_by.is_empty()
        || !select.sort_by.is_empty();
    if unusual {
        return refuse(
            span,
            "a view's query is `SELECT … FROM … WHERE … GROUP BY … HAVING`",
            "remove the other clauses",
        );
    }
    match &select.group_by {
        GroupByExpr::All(_) => return refuse(span, "`GROUP BY ALL` is not allowed in a view", "list the group keys"),
        GroupByExpr::Expressions(keys, modifiers) => {
            let sets = keys.iter().find(|key| matches!(key, Expr::GroupingSets(_) | Expr::Cube(_) | Expr::Rollup(_)));
            if let Some(sets) = sets {
                return refuse(sets.span(), "grouping sets are not allowed in a view", "make a view of each grouping");
            }
            if !modifiers.is_empty() {
                return refuse(span, "`GROUP BY` has modifiers that a view cannot have", "list the group keys only");
            }
        }
    }
    for item in &select.projection {
        if matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)) {
            return refuse(span, "`*` is not allowed in a view", "list the group keys and the aggregates");
        }
    }
    match Visit::visit(select, &mut Inside) {
        std::ops::ControlFlow::Break(refusal) => Err(refusal),
        std::ops::ControlFlow::Continue(()) => Ok(()),
    }
}

fn check_from(dataset: &Dataset, select: &Select) -> Result<(), Refusal> {
    let hint = format!("write `FROM {}`; views can be joined when you query them", dataset.name);
    let [from] = select.from.as_slice() else {
        return refuse(select.span(), "a view is over one dataset", &hint);
    };
    if let Some(join) = from.joins.first() {
        return refuse(join.span(), "a view is over one dataset: joins are not allowed", &hint);
    }
    match &from.relation {
        TableFactor::Table { args: None, with_hints, version: None, sample: None, .. } if with_hints.is_empty() => {
            Ok(())
        }
        other => refuse(other.span(), "a view is over one dataset", &hint),
    }
}

/// Looks at every expression of the query.
struct Inside;

impl Visitor for Inside {
    type Break = Refusal;

    fn pre_visit_query(&mut self, query: &Query) -> std::ops::ControlFlow<Refusal> {
        stop(query.span(), "subqueries are not allowed in a view", "combine views when you query them")
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> std::ops::ControlFlow<Refusal> {
        match expr {
            Expr::Function(function) => check_function(function),
            _ => std::ops::ControlFlow::Continue(()),
        }
    }
}

fn check_function(function: &Function) -> std::ops::ControlFlow<Refusal> {
    let name = function.name.to_string().to_lowercase();
    let span = function.name.span();
    if function.over.is_some() {
        return stop(
            span,
            &format!("`{name}` over a window is not allowed in a view"),
            "compute windows when you query the view",
        );
    }
    if ORDERED.contains(&name.as_str()) && !is_ordered(function) {
        let argument = match &function.args {
            FunctionArguments::List(list) => match list.args.first() {
                Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))) => argument.to_string(),
                _ => "x".to_owned(),
            },
            _ => "x".to_owned(),
        };
        return stop(
            span,
            &format!("`{name}` depends on the order of its input"),
            &format!("give it one: `{name}({argument} ORDER BY …)`"),
        );
    }
    std::ops::ControlFlow::Continue(())
}

fn is_ordered(function: &Function) -> bool {
    let clause = match &function.args {
        FunctionArguments::List(list) => list
            .clauses
            .iter()
            .any(|clause| matches!(clause, FunctionArgumentClause::OrderBy(keys) if !keys.is_empty())),
        _ => false,
    };
    clause || !function.within_group.is_empty()
}

fn refuse<T>(span: Span, reason: &str, hint: &str) -> Result<T, Refusal> {
    Err(Refusal { reason: reason.to_owned(), hint: hint.to_owned(), at: location(span) })
}

fn stop(span: Span, reason: &str, hint: &str) -> std::ops::ControlFlow<Refusal> {
    std::ops::ControlFlow::Break(Refusal { reason: reason.to_owned(), hint: hint.to_owned(), at: location(span) })
}

fn location(span: Span) -> Option<Location> {
    (span.start.line > 0).then_some(span.start)
}

/// The place that DataFusion's own message points at.
pub(super) fn first_location(spans: &Spans) -> Option<Location> {
    spans.first().map(|span| Location { line: span.start.line, column: span.start.column })
}

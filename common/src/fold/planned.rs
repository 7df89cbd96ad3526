//! What a view may not have by its plan, whatever its text calls it.

use datafusion::{
    common::tree_node::{TreeNode, TreeNodeRecursion},
    logical_expr::{Expr, Volatility, expr::AggregateFunction},
};
use sqlparser::ast::{Query, SelectItem, SetExpr};

use super::{
    Refusal,
    plan::{refusal, refused},
    shape::Shape,
};
use crate::catalog::quoted;

/// Aggregates whose states merge exactly (digests: within their error bound), each proven by a test.
pub const AGGREGATES: &[&str] = &[
    "any_value",
    "approx_distinct",
    "approx_median",
    "approx_percentile_cont",
    "approx_percentile_cont_with_weight",
    "array_agg",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "first_value",
    "last_value",
    "max",
    "median",
    "min",
    "nth_value",
    "percentile_cont",
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
    "string_agg",
    "sum",
    "var",
    "var_pop",
];

/// Aggregates whose result depends on the order of their input.
pub(super) const ORDERED: &[&str] = &["array_agg", "string_agg", "first_value", "last_value", "nth_value"];

/// Those of them that sort distinct values by themselves.
pub(super) const SORTED: &[&str] = &["array_agg", "string_agg"];

/// Delta has its own idea of a column's name, and a name that nobody chose is no name to query by.
pub(super) fn check_names(shape: &Shape, query: &Query) -> Result<(), Refusal> {
    let items = match query.body.as_ref() {
        SetExpr::Select(select) if select.projection.len() == shape.outputs.len() => select.projection.as_slice(),
        _ => &[],
    };
    let mut seen = std::collections::BTreeSet::new();
    for (index, (name, _)) in shape.outputs.iter().enumerate() {
        let is_plain = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
        if !is_plain {
            return Err(no_name(name, items.get(index)));
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

fn no_name(name: &str, item: Option<&SelectItem>) -> Refusal {
    match item {
        Some(SelectItem::ExprWithAlias { expr, alias }) => {
            let plain: String = alias.value.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect();
            let plain = quoted(plain.trim_matches('_'));
            let plain = if plain == "\"\"" { "some_name".to_owned() } else { plain };
            refused(
                format!("column `{alias}`: a view's names have letters, digits and `_` only"),
                format!("write `{expr} AS {plain}`"),
            )
        }
        Some(SelectItem::UnnamedExpr(expr)) => {
            refused(format!("column `{expr}` has no name of its own"), format!("write `{expr} AS some_name`"))
        }
        _ => refused(format!("column `{name}` has no name of its own"), "write `… AS some_name` after its expression"),
    }
}

/// Only what gives the same value wherever and whenever it is computed can be folded.
pub(super) fn check_functions(shape: &Shape) -> Result<(), Refusal> {
    let mut fault = None;
    for expression in shape.expressions() {
        let visited = expression.apply(|part| {
            fault = check_part(part);
            Ok(if fault.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        });
        visited.map_err(refusal)?;
        if let Some(fault) = fault {
            return Err(fault);
        }
    }
    Ok(())
}

fn check_part(part: &Expr) -> Option<Refusal> {
    match part {
        Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => Some(refused(
            format!("`{}` gives another value each time: each layer would fold its own", call.func.name()),
            "use the event's own columns, such as `created_at` or `_timestamp`",
        )),
        Expr::AggregateFunction(call) => check_aggregate(call),
        Expr::WindowFunction(_) => {
            Some(refused("windows are not allowed in a view", "compute them when you query the view"))
        }
        Expr::Placeholder(_) => Some(refused("a view has no parameters", "write the value")),
        Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_) => {
            Some(refused("subqueries are not allowed in a view", "combine views when you query them"))
        }
        Expr::Unnest(_) => Some(refused(
            "a view has one row for each event, and `unnest` would give several",
            "keep the array, or `array_to_string(x, ',')` as a key, and unnest it when you query the view",
        )),
        _ => None,
    }
}

fn check_aggregate(call: &AggregateFunction) -> Option<Refusal> {
    let (name, params) = (call.func.name(), &call.params);
    if !AGGREGATES.contains(&name) {
        return Some(refused(
            format!("`{name}` is not known to merge exactly"),
            "use another aggregate, or compute it when you query the view",
        ));
    }
    let is_sorted = params.distinct && SORTED.contains(&name);
    if ORDERED.contains(&name) && params.order_by.is_empty() && !is_sorted {
        let arguments: Vec<String> = params.args.iter().map(|argument| argument.human_display().to_string()).collect();
        return Some(refused(
            format!("`{name}` depends on the order of its input"),
            format!("give it one: `{name}({} ORDER BY …)`", arguments.join(", ")),
        ));
    }
    None
}

//! What a view's query may not have by the look of it, said in its own words and at its own place.

use std::ops::ControlFlow;

use datafusion::common::Spans;
use sqlparser::{
    ast::{
        Distinct, Expr, Function, FunctionArg, FunctionArgumentClause, FunctionArguments, GroupByExpr, Query, Select,
        SelectItem, SetExpr, Spanned, TableFactor, Visit, Visitor, With,
    },
    tokenizer::{Location, Span},
};

use super::{Refusal, planned};
use crate::catalog::{Dataset, folded, quoted};

/// Refuses what is wrong by the look of the query alone.
pub(super) fn check(dataset: &Dataset, query: &Query) -> Result<(), Refusal> {
    let names = query.with.as_ref().map(|with| check_with(dataset, with)).transpose()?.unwrap_or_default();
    let mut used = Vec::new();
    check_query(dataset, query, &names, &mut used)?;
    if let Some(With { cte_tables, .. }) = &query.with {
        for (index, table) in cte_tables.iter().enumerate() {
            let mut inner = Vec::new();
            check_query(dataset, &table.query, &names[..index], &mut inner)?;
            used.extend(inner);
        }
        if let Some(unused) = names.iter().find(|name| !used.contains(name)) {
            return refuse(
                query.span(),
                &format!("`WITH {}` is not read", quoted(unused)),
                &format!("remove it, or write `FROM {}`", quoted(unused)),
            );
        }
    }
    Ok(())
}

/// The names of a `WITH`.
fn check_with(dataset: &Dataset, with: &With) -> Result<Vec<String>, Refusal> {
    if with.recursive {
        return refuse(with.span(), "a view cannot be recursive", &from_hint(dataset));
    }
    Ok(with.cte_tables.iter().map(|table| folded(&table.alias.name)).collect())
}

/// Refuses what is wrong with a query, or a query in its `FROM`, where `names` are those of its `WITH`.
fn check_query(dataset: &Dataset, query: &Query, names: &[String], used: &mut Vec<String>) -> Result<(), Refusal> {
    let whole = query.span();
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
    let has_more = !query.locks.is_empty()
        || query.for_clause.is_some()
        || query.settings.is_some()
        || query.format_clause.is_some()
        || !query.pipe_operators.is_empty();
    if has_more {
        return refuse(whole, "a view's query ends after `HAVING`", "remove what follows");
    }
    match query.body.as_ref() {
        SetExpr::Select(select) => check_select(dataset, select, names, used),
        SetExpr::Query(inner) if inner.with.is_none() => check_query(dataset, inner, names, used),
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

fn check_select(dataset: &Dataset, select: &Select, names: &[String], used: &mut Vec<String>) -> Result<(), Refusal> {
    let span = select.span();
    if let Some(Distinct::On(_)) = &select.distinct {
        return refuse(
            span,
            "`DISTINCT ON` is not allowed in a view",
            "group by those columns, and write `first_value(x ORDER BY …)` for each of the others",
        );
    }
    let before = used.len();
    check_from(dataset, select, names, used)?;
    let is_over_dataset = used.len() == before && matches!(&select.from[0].relation, TableFactor::Table { .. });
    if !select.named_window.is_empty() || select.qualify.is_some() {
        return refuse(span, "a view cannot have windows", "compute them when you query the view");
    }
    let unusual = select.top.is_some()
        || select.into.is_some()
        || !select.lateral_views.is_empty()
        || select.prewhere.is_some()
        || !select.connect_by.is_empty()
        || !select.cluster_by.is_empty()
        || !select.distribute_by.is_empty()
        || !select.sort_by.is_empty()
        || select.exclude.is_some()
        || select.value_table_mode.is_some()
        || select.select_modifiers.is_some();
    if unusual {
        return refuse(
            span,
            "a view's query is `SELECT … FROM … WHERE … GROUP BY … HAVING`",
            "remove the other clauses",
        );
    }
    check_group_by(span, &select.group_by)?;
    let is_grouped = !matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty());
    for item in &select.projection {
        let is_all = matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
        if is_all && is_grouped && is_over_dataset {
            return refuse(span, "`*` is not allowed in a view", "list the group keys and the aggregates");
        }
        check_expressions(item)?;
    }
    check_expressions(&select.selection)?;
    check_expressions(&select.group_by)?;
    check_expressions(&select.having)
}

fn check_group_by(span: Span, group_by: &GroupByExpr) -> Result<(), Refusal> {
    let modifiers = match group_by {
        GroupByExpr::All(modifiers) => modifiers,
        GroupByExpr::Expressions(keys, modifiers) => {
            let sets = keys.iter().find(|key| matches!(key, Expr::GroupingSets(_) | Expr::Cube(_) | Expr::Rollup(_)));
            if let Some(sets) = sets {
                return refuse(sets.span(), "grouping sets are not allowed in a view", "make a view of each grouping");
            }
            modifiers
        }
    };
    match modifiers.is_empty() {
        true => Ok(()),
        false => refuse(span, "`GROUP BY` has modifiers that a view cannot have", "list the group keys only"),
    }
}

fn from_hint(dataset: &Dataset) -> String {
    format!("write `FROM {}`; views can be joined when you query them", quoted(&dataset.name))
}

fn check_from(dataset: &Dataset, select: &Select, names: &[String], used: &mut Vec<String>) -> Result<(), Refusal> {
    let hint = from_hint(dataset);
    let [from] = select.from.as_slice() else {
        return refuse(select.span(), "a view is over one dataset", &hint);
    };
    if let Some(join) = from.joins.first() {
        return refuse(join.span(), "a view is over one dataset: joins are not allowed", &hint);
    }
    match &from.relation {
        TableFactor::Table {
            name,
            alias: _,
            args: None,
            with_hints,
            version: None,
            with_ordinality: false,
            partitions,
            json_path: None,
            sample: None,
            index_hints,
        } if with_hints.is_empty() && partitions.is_empty() && index_hints.is_empty() => {
            if let Some(ident) = name.0.last().and_then(|part| part.as_ident()) {
                used.extend(names.iter().find(|name| **name == folded(ident)).cloned());
            }
            Ok(())
        }
        TableFactor::Table { sample: Some(_), .. } => refuse(
            from.relation.span(),
            "a view counts every event: samples are not allowed",
            "write `WHERE` for the events that you want",
        ),
        TableFactor::Derived { lateral: false, subquery, sample: None, .. } if subquery.with.is_none() => {
            check_query(dataset, subquery, names, used)
        }
        other => refuse(other.span(), "a view is over one dataset", &hint),
    }
}

fn check_expressions(part: &impl Visit) -> Result<(), Refusal> {
    match Visit::visit(part, &mut Inside) {
        ControlFlow::Break(refusal) => Err(refusal),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Looks at every expression of the query.
struct Inside;

impl Visitor for Inside {
    type Break = Refusal;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Refusal> {
        stop(query.span(), "subqueries are not allowed in a view", "combine views when you query them")
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Refusal> {
        match expr {
            Expr::Function(function) => check_function(function),
            _ => ControlFlow::Continue(()),
        }
    }
}

fn check_function(function: &Function) -> ControlFlow<Refusal> {
    let name = function.name.0.last().and_then(|part| part.as_ident()).map(folded).unwrap_or_default();
    let span = function.name.span();
    if function.over.is_some() {
        return stop(
            span,
            &format!("`{name}` over a window is not allowed in a view"),
            "compute windows when you query the view",
        );
    }
    let FunctionArguments::List(list) = &function.args else { return ControlFlow::Continue(()) };
    let is_ordered = !function.within_group.is_empty()
        || list.clauses.iter().any(|clause| matches!(clause, FunctionArgumentClause::OrderBy(_)))
        || (list.duplicate_treatment.is_some() && planned::SORTED.contains(&name.as_str()));
    if planned::ORDERED.contains(&name.as_str()) && !is_ordered && !list.args.is_empty() {
        let arguments: Vec<String> = list.args.iter().map(FunctionArg::to_string).collect();
        return stop(
            span,
            &format!("`{name}` depends on the order of its input"),
            &format!("give it one: `{name}({} ORDER BY …)`", arguments.join(", ")),
        );
    }
    ControlFlow::Continue(())
}

fn refuse<T>(span: Span, reason: &str, hint: &str) -> Result<T, Refusal> {
    Err(Refusal { reason: reason.to_owned(), hint: hint.to_owned(), at: location(span) })
}

fn stop(span: Span, reason: &str, hint: &str) -> ControlFlow<Refusal> {
    ControlFlow::Break(Refusal { reason: reason.to_owned(), hint: hint.to_owned(), at: location(span) })
}

fn location(span: Span) -> Option<Location> {
    (span.start.line > 0).then_some(span.start)
}

/// The place that DataFusion's own message points at.
pub(super) fn first_location(spans: &Spans) -> Option<Location> {
    spans.first().map(|span| Location { line: span.start.line, column: span.start.column })
}

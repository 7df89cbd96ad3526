//! What stands around a `SELECT`.

use sqlparser::{
    ast::{
        Cte, ExprWithAliasAndOrderBy, Fetch, LimitClause, Offset, OrderBy, OrderByExpr, OrderByKind, OrderByOptions,
        PipeOperator, Query, SetExpr, SetOperator, SetQuantifier, Spanned, TableAlias, TableAliasColumnDef, With,
    },
    tokenizer::Span,
};

use super::{Found, none_of, refuse, relation, select};

pub(super) fn check(query: &Query) -> Found {
    let Query { with, body, order_by, limit_clause, fetch, locks, for_clause, settings, format_clause, pipe_operators } =
        query;
    let at = query.span();
    none_of(
        at,
        &[
            (
                !locks.is_empty(),
                "FOR UPDATE",
                "an answer is over one prefix of the log and locks nothing: leave it out",
            ),
            (for_clause.is_some(), "FOR XML, JSON or BROWSE", "ask for a format with `Accept` or `format`"),
            (settings.is_some(), "SETTINGS", "leave it out: a query sets nothing"),
            (format_clause.is_some(), "FORMAT", "ask for a format with `Accept` or `format`"),
        ],
    )?;
    combined(body)?;
    if let Some(With { with_token: _, recursive, cte_tables }) = with {
        cte_tables.iter().try_for_each(|cte| common_table(cte, *recursive))?;
    }
    if let Some(order) = order_by {
        order_of(order, body)?;
    }
    if let Some(limit) = limit_clause {
        limited(query, limit)?;
    }
    if let Some(Fetch { with_ties, percent, quantity: _ }) = fetch {
        let has_limit = matches!(limit_clause, Some(LimitClause::LimitOffset { limit: Some(_), .. }));
        none_of(
            at,
            &[
                (*with_ties, "WITH TIES", "write `QUALIFY rank() OVER (ORDER BY …) <= n`"),
                (*percent, "FETCH … PERCENT", "write a number of rows"),
                (has_limit, "FETCH beside LIMIT", "write one of them"),
            ],
        )?;
    }
    pipe_operators.iter().try_for_each(|operator| piped(query, operator))
}

/// Joins keep every row of the left side that the right side has, or has not, however many they are.
fn combined(body: &SetExpr) -> Found {
    let SetExpr::SetOperation { op, set_quantifier, left, right } = body else { return Ok(()) };
    counted(body.span(), *op, *set_quantifier)?;
    combined(left)?;
    combined(right)
}

fn counted(at: Span, op: SetOperator, quantifier: SetQuantifier) -> Found {
    let is_all = matches!(quantifier, SetQuantifier::All | SetQuantifier::AllByName);
    match op {
        SetOperator::Union => Ok(()),
        SetOperator::Intersect | SetOperator::Except | SetOperator::Minus => {
            let hint = "write it without `ALL`, or number the rows of both sides with `row_number() OVER (…)`";
            none_of(at, &[(is_all, &format!("{op} ALL"), hint)])
        }
    }
}

fn common_table(cte: &Cte, is_recursive: bool) -> Found {
    let Cte { alias, query, from, materialized, closing_paren_token: _ } = cte;
    let at = alias.name.span;
    none_of(
        at,
        &[
            (materialized.is_some(), "MATERIALIZED", "leave it out: how often it is computed changes no answer"),
            (from.is_some(), "FROM after a common table", "write `WITH name AS (SELECT …)`"),
        ],
    )?;
    // Of a recursive common table the planner reads the two sides of its union, and nothing around them.
    let is_union = matches!(query.body.as_ref(), SetExpr::SetOperation { op: SetOperator::Union, .. });
    if is_recursive && is_union {
        let hint = "write it in the query that reads the common table";
        none_of(
            at,
            &[
                (query.with.is_some(), "WITH inside a recursive common table", hint),
                (query.order_by.is_some(), "ORDER BY of a recursive common table", hint),
                (query.limit_clause.is_some() || query.fetch.is_some(), "LIMIT of a recursive common table", hint),
                (!query.pipe_operators.is_empty(), "|> in a recursive common table", hint),
            ],
        )?;
    }
    table_alias(alias)
}

pub(super) fn table_alias(alias: &TableAlias) -> Found {
    let TableAlias { explicit: _, name, columns, at } = alias;
    let is_typed = columns.iter().any(|TableAliasColumnDef { name: _, data_type }| data_type.is_some());
    none_of(
        name.span,
        &[
            (is_typed, "a type in a table's alias", "write `CAST(column AS type)` where the column is read"),
            (at.is_some(), "AT in a table's alias", "leave it out"),
        ],
    )
}

fn order_of(order: &OrderBy, body: &SetExpr) -> Found {
    let OrderBy { kind, interpolate } = order;
    let at = order.span();
    none_of(at, &[(interpolate.is_some(), "INTERPOLATE", "leave it out")])?;
    match kind {
        // The planner knows what `ALL` are of one `SELECT` only.
        OrderByKind::All(_) if !matches!(body, SetExpr::Select(_)) => {
            refuse(at, "ORDER BY ALL", "list the columns, such as `ORDER BY 1, 2`")
        }
        OrderByKind::All(_) => Ok(()),
        OrderByKind::Expressions(keys) => {
            if keys.iter().any(|key| select::has_named_window(&key.expr)) {
                return refuse(at, "a window by name in ORDER BY", "write the window out: `OVER (…)`");
            }
            sort_keys(keys)
        }
    }
}

pub(super) fn sort_keys(keys: &[OrderByExpr]) -> Found {
    keys.iter().try_for_each(|key| {
        let OrderByExpr { expr: _, options: OrderByOptions { asc: _, nulls_first: _ }, with_fill } = key;
        none_of(key.span(), &[(with_fill.is_some(), "WITH FILL", "join with `generate_series(…)`")])
    })
}

fn limited(query: &Query, limit: &LimitClause) -> Found {
    match limit {
        LimitClause::LimitOffset { limit: _, offset, limit_by } => {
            if let Some(Offset { value: _, rows: _ }) = offset {}
            let hint = "write `QUALIFY row_number() OVER (PARTITION BY …) <= n`";
            none_of(query.span(), &[(!limit_by.is_empty(), "LIMIT … BY", hint)])
        }
        LimitClause::OffsetCommaLimit { offset: _, limit: _ } => Ok(()),
    }
}

fn piped(query: &Query, operator: &PipeOperator) -> Found {
    match operator {
        PipeOperator::Aggregate { full_table_exprs, group_by_expr } => {
            let ordered = |part: &ExprWithAliasAndOrderBy| {
                let ExprWithAliasAndOrderBy { expr: _, order_by: OrderByOptions { asc, nulls_first } } = part;
                asc.is_some() || nulls_first.is_some()
            };
            let is_ordered = full_table_exprs.iter().chain(group_by_expr).any(ordered);
            none_of(query.span(), &[(is_ordered, "an order in AGGREGATE", "write `|> ORDER BY …` after it")])
        }
        PipeOperator::OrderBy { exprs } => sort_keys(exprs),
        PipeOperator::Select { exprs } | PipeOperator::Extend { exprs } => exprs.iter().try_for_each(select::item),
        PipeOperator::Join(join) => relation::join(join),
        PipeOperator::TableSample { sample: _ } => refuse(query.span(), "TABLESAMPLE", relation::NO_SAMPLE),
        PipeOperator::Limit { expr: _, offset: _ }
        | PipeOperator::Where { expr: _ }
        | PipeOperator::As { alias: _ }
        | PipeOperator::Union { set_quantifier: _, queries: _ } => Ok(()),
        PipeOperator::Intersect { set_quantifier, queries: _ } => {
            counted(query.span(), SetOperator::Intersect, *set_quantifier)
        }
        PipeOperator::Except { set_quantifier, queries: _ } => {
            counted(query.span(), SetOperator::Except, *set_quantifier)
        }
        // The planner refuses these itself.
        PipeOperator::Set { assignments: _ }
        | PipeOperator::Drop { columns: _ }
        | PipeOperator::Rename { mappings: _ }
        | PipeOperator::Call { function: _, alias: _ }
        | PipeOperator::Pivot { aggregate_functions: _, value_column: _, value_source: _, alias: _ }
        | PipeOperator::Unpivot { value_column: _, name_column: _, unpivot_columns: _, alias: _ } => Ok(()),
    }
}

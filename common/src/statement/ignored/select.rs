//! What stands in a `SELECT`.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Function, GroupByExpr, NamedWindowDefinition, NamedWindowExpr, Select, SelectItem, SelectModifiers, Spanned,
    TableWithJoins, Visit, Visitor, WildcardAdditionalOptions, WindowSpec, WindowType,
};

use super::{Found, none_of, query, refuse, relation};

pub(super) fn check(select: &Select) -> Found {
    let Select {
        select_token: _,
        optimizer_hints,
        distinct: _,
        select_modifiers,
        top,
        top_before_distinct: _,
        projection,
        exclude,
        into,
        from,
        lateral_views,
        prewhere,
        selection: _,
        connect_by,
        group_by,
        cluster_by,
        distribute_by,
        sort_by,
        having,
        named_window,
        qualify,
        window_before_qualify: _,
        value_table_mode,
        // Without a projection it means all columns, and the caller says so to the planner.
        flavor: _,
    } = select;
    let has_modifiers = select_modifiers.as_ref().is_some_and(SelectModifiers::is_any_set);
    let by_name = [having, qualify].into_iter().flatten().any(has_named_window);
    none_of(
        select.span(),
        &[
            (!optimizer_hints.is_empty(), "an optimizer hint", "leave it out"),
            (has_modifiers, "a modifier after SELECT", "leave it out"),
            (top.is_some(), "TOP", "write `LIMIT n` at the end"),
            (exclude.is_some(), "EXCLUDE after the columns", "write it after the star: `* EXCLUDE (…)`"),
            (into.is_some(), "INTO", "a query only reads: leave it out"),
            (!lateral_views.is_empty(), "LATERAL VIEW", "write `CROSS JOIN unnest(…)`"),
            (prewhere.is_some(), "PREWHERE", "write it in `WHERE`"),
            (!connect_by.is_empty(), "CONNECT BY", "write `WITH RECURSIVE …`"),
            (!cluster_by.is_empty(), "CLUSTER BY", "write `ORDER BY`"),
            (!distribute_by.is_empty(), "DISTRIBUTE BY", "leave it out: it changes no answer"),
            (!sort_by.is_empty(), "SORT BY", "write `ORDER BY`"),
            (value_table_mode.is_some(), "AS STRUCT or AS VALUE", "write `struct(…)`"),
            (by_name, "a window by name in QUALIFY or HAVING", "write the window out: `OVER (…)`"),
        ],
    )?;
    let modifiers = match group_by {
        GroupByExpr::All(modifiers) | GroupByExpr::Expressions(_, modifiers) => modifiers,
    };
    if let Some(modifier) = modifiers.first() {
        let hint = "write `GROUP BY ROLLUP (…)`, `CUBE (…)` or `GROUPING SETS (…)`";
        return refuse(select.span(), &modifier.to_string(), hint);
    }
    for NamedWindowDefinition(_, window) in named_window {
        match window {
            NamedWindowExpr::NamedWindow(_) => {}
            NamedWindowExpr::WindowSpec(specification) => self::window(specification)?,
        }
    }
    projection.iter().try_for_each(item)?;
    from.iter().try_for_each(|TableWithJoins { relation: _, joins }| joins.iter().try_for_each(relation::join))
}

pub(super) fn item(item: &SelectItem) -> Found {
    match item {
        SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { expr: _, alias: _ } => Ok(()),
        SelectItem::ExprWithAliases { expr: _, aliases: _ } => {
            refuse(item.span(), "several names for one column", "name it once")
        }
        SelectItem::QualifiedWildcard(_, options) | SelectItem::Wildcard(options) => star(options),
    }
}

fn star(options: &WildcardAdditionalOptions) -> Found {
    let WildcardAdditionalOptions {
        wildcard_token: _,
        opt_ilike,
        opt_exclude: _,
        opt_except: _,
        opt_replace: _,
        opt_rename,
        opt_alias,
    } = options;
    none_of(
        options.span(),
        &[
            (opt_ilike.is_some(), "* ILIKE", "list the columns, or leave some out with `* EXCLUDE (…)`"),
            (opt_rename.is_some(), "* RENAME", "list the columns with their new names"),
            (opt_alias.is_some(), "a name for *", "list the columns with their names"),
        ],
    )
}

pub(super) fn window(window: &WindowSpec) -> Found {
    let WindowSpec { window_name, partition_by: _, order_by, window_frame: _ } = window;
    if let Some(name) = window_name {
        return refuse(
            name.span,
            "a window within a window",
            "write the window out: `OVER (PARTITION BY … ORDER BY …)`",
        );
    }
    query::sort_keys(order_by)
}

/// The planner looks windows up by their names in the `SELECT` list only.
pub(super) fn has_named_window(expression: &Expr) -> bool {
    struct ByName;
    impl Visitor for ByName {
        type Break = ();

        fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<()> {
            match expression {
                Expr::Function(Function { over: Some(WindowType::NamedWindow(_)), .. }) => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    expression.visit(&mut ByName).is_break()
}

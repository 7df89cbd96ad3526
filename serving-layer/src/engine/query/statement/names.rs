//! Names for columns that would have one already: `SELECT count(*), count(*)` has `count(*)` and `count_1`.

use std::{collections::BTreeSet, ops::ControlFlow};

use datafusion::sql::sqlparser::ast::{
    self, CastKind, Expr, Ident, Select, SelectItem, TypedString, VisitMut, VisitorMut, visit_expressions,
};

/// Names each column whose name would be another's too: as PostgreSQL does, with a number that makes it one of its own.
pub(super) fn make_distinct(statement: &mut ast::Statement) {
    let _: ControlFlow<()> = statement.visit(&mut Distinct);
}

struct Distinct;

impl VisitorMut for Distinct {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let has_star = select.projection.iter().any(is_star);
        let mut taken: BTreeSet<String> = select.projection.iter().filter_map(given).collect();
        let mut seen = taken.clone();
        for item in &mut select.projection {
            let SelectItem::UnnamedExpr(expression) = item else { continue };
            let name = planned(expression);
            // What a star brings is not known yet: a column may be among it.
            let is_new = seen.insert(name) && !(has_star && is_column(expression));
            if is_new {
                continue;
            }
            let base = postgres(expression);
            *item = named(expression, numbered(&base, &mut taken));
        }
        ControlFlow::Continue(())
    }
}

/// Names each column that has a cast in it as PostgreSQL does.
pub(super) fn name_casts(statement: &mut ast::Statement) {
    let _: ControlFlow<()> = statement.visit(&mut Casts);
}

struct Casts;

impl VisitorMut for Casts {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let mut taken: BTreeSet<String> = select.projection.iter().filter_map(given).collect();
        for item in &mut select.projection {
            let SelectItem::UnnamedExpr(expression) = item else { continue };
            let has_cast = visit_expressions(expression, |part| match part {
                Expr::Cast { .. } => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            });
            if has_cast.is_break() {
                let base = postgres(expression);
                let name = if taken.insert(base.clone()) { base } else { numbered(&base, &mut taken) };
                *item = named(expression, name);
            }
        }
        ControlFlow::Continue(())
    }
}

fn named(expression: &Expr, name: String) -> SelectItem {
    SelectItem::ExprWithAlias { expr: expression.clone(), alias: Ident::with_quote('"', name) }
}

/// `base` with the first number that makes it a name of its own.
fn numbered(base: &str, taken: &mut BTreeSet<String>) -> String {
    let mut number = 1_u32;
    loop {
        let name = format!("{base}_{number}");
        if taken.insert(name.clone()) {
            return name;
        }
        number += 1;
    }
}

fn is_star(item: &SelectItem) -> bool {
    matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..))
}

fn given(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(normal(alias)),
        _ => None,
    }
}

/// What the planner calls an expression, as far as it tells it from another: casts and tables are no part of it.
fn planned(expression: &Expr) -> String {
    struct Bare;
    impl VisitorMut for Bare {
        type Break = ();

        fn post_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<()> {
            let bare = match &*expression {
                Expr::Cast { expr, .. } | Expr::Nested(expr) => expr.as_ref().clone(),
                Expr::AtTimeZone { timestamp, .. } => timestamp.as_ref().clone(),
                Expr::TypedString(TypedString { value, .. }) => Expr::Value(value.clone()),
                Expr::Identifier(name) => Expr::Identifier(Ident::new(normal(name))),
                Expr::CompoundIdentifier(parts) => match parts.last() {
                    Some(name) => Expr::Identifier(Ident::new(normal(name))),
                    None => return ControlFlow::Continue(()),
                },
                _ => return ControlFlow::Continue(()),
            };
            *expression = bare;
            ControlFlow::Continue(())
        }
    }
    let mut bare = expression.clone();
    let _: ControlFlow<()> = bare.visit(&mut Bare);
    match bare {
        Expr::Identifier(name) => name.value,
        bare => bare.to_string().to_lowercase(),
    }
}

fn is_column(expression: &Expr) -> bool {
    match expression {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => true,
        Expr::Cast { expr, .. } | Expr::Nested(expr) => is_column(expr),
        Expr::AtTimeZone { timestamp, .. } => is_column(timestamp),
        _ => false,
    }
}

/// What PostgreSQL calls an expression.
fn postgres(expression: &Expr) -> String {
    match expression {
        Expr::Identifier(name) => normal(name),
        Expr::CompoundIdentifier(parts) => parts.last().map(normal).unwrap_or_default(),
        Expr::Nested(inner) => postgres(inner),
        Expr::Cast { expr, data_type, kind: CastKind::Cast | CastKind::DoubleColon, .. } => match postgres(expr) {
            name if name == UNNAMED => data_type.to_string().to_lowercase(),
            name => name,
        },
        Expr::Function(call) => call.name.0.last().and_then(|part| part.as_ident()).map(normal).unwrap_or_default(),
        Expr::Case { .. } => "case".to_owned(),
        Expr::Exists { .. } => "exists".to_owned(),
        Expr::Extract { .. } => "extract".to_owned(),
        Expr::AtTimeZone { .. } => "timezone".to_owned(),
        _ => UNNAMED.to_owned(),
    }
}

/// PostgreSQL's `?column?`, of which no client would think that it is a name.
const UNNAMED: &str = "column";

fn normal(name: &Ident) -> String {
    match name.quote_style {
        Some(_) => name.value.clone(),
        None => name.value.to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::{dialect::GenericDialect, parser::Parser};

    #[test]
    fn each_column_has_a_name_of_its_own() {
        let check = |sql: &str, expected: &str| {
            let mut statements = Parser::parse_sql(&GenericDialect {}, sql).unwrap();
            super::make_distinct(&mut statements[0]);
            assert_eq!(statements[0].to_string(), expected);
        };
        check("SELECT ts, x, count(*) FROM t", "SELECT ts, x, count(*) FROM t");
        check("SELECT ts, ts::date FROM t", "SELECT ts, ts::DATE AS \"ts_1\" FROM t");
        check("SELECT x, t.X, u.x FROM t, u", "SELECT x, t.X AS \"x_1\", u.x AS \"x_2\" FROM t, u");
        check("SELECT x, \"X\" FROM t", "SELECT x, \"X\" FROM t");
        check("SELECT count(*), COUNT(*) FROM t", "SELECT count(*), COUNT(*) AS \"count_1\" FROM t");
        check("SELECT 1, '1'::int, 1", "SELECT 1, '1'::INT, 1 AS \"column_1\"");
        check("SELECT 1 AS a, a FROM t", "SELECT 1 AS a, a AS \"a_1\" FROM t");
        check("SELECT 1 AS x_1, x, x FROM t", "SELECT 1 AS x_1, x, x AS \"x_2\" FROM t");
        check("SELECT *, x, y + 1 FROM t", "SELECT *, x AS \"x_1\", y + 1 FROM t");
        check("SELECT * FROM (SELECT x, x FROM t)", "SELECT * FROM (SELECT x, x AS \"x_1\" FROM t)");
    }
}

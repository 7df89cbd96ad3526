//! What the planner does not know, said in what it knows.

use std::ops::ControlFlow;

use sqlparser::{
    ast::{
        BinaryOperator, Expr, Fetch, FunctionArg, FunctionArgExpr, LimitClause, NamedWindowDefinition, NamedWindowExpr,
        Query, Select, SelectFlavor, SelectItem, TableFactor, Value, ValueWithSpan, VisitMut, VisitorMut,
        WildcardAdditionalOptions,
    },
    tokenizer::Span,
};

use super::Refusal;

mod interval;
mod pattern;
mod row;
#[cfg(test)]
mod tests;
mod words;

/// Rewrites a statement, a query or an expression.
pub fn rewrite(part: &mut impl VisitMut) -> Result<(), Refusal> {
    match part.visit(&mut Rewrite) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(refusal) => Err(refusal),
    }
}

struct Rewrite;

impl VisitorMut for Rewrite {
    type Break = Refusal;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Refusal> {
        fetched(query);
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Refusal> {
        if select.flavor == SelectFlavor::FromFirstNoSelect {
            select.projection = vec![SelectItem::Wildcard(WildcardAdditionalOptions::default())];
            select.flavor = SelectFlavor::FromFirst;
        }
        for NamedWindowDefinition(_, window) in &mut select.named_window {
            if let NamedWindowExpr::WindowSpec(window) = window {
                words::constant(&mut window.order_by);
            }
        }
        if let Some(condition) = &mut select.selection {
            row::found_in(condition);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, relation: &mut TableFactor) -> ControlFlow<Refusal> {
        unnested(relation);
        ControlFlow::Continue(())
    }

    /// Parts first: a row of patterns is a row of what they became.
    fn post_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<Refusal> {
        words::known(expression);
        let rewritten = match expression {
            Expr::Like { .. } | Expr::ILike { .. } => pattern::like(expression),
            Expr::SimilarTo { .. } => pattern::similar(expression),
            Expr::Interval(_) | Expr::Cast { .. } | Expr::TypedString(_) => {
                interval::written_out(expression);
                Ok(())
            }
            _ => row::compared(expression),
        };
        match rewritten {
            Ok(()) => ControlFlow::Continue(()),
            Err(refusal) => ControlFlow::Break(refusal),
        }
    }
}

/// `FETCH FIRST n ROWS ONLY` is `LIMIT n`.
fn fetched(query: &mut Query) {
    let Some(Fetch { with_ties: false, percent: false, quantity }) = &query.fetch else { return };
    let rows = quantity.clone().unwrap_or_else(|| value(Value::Number("1".to_owned(), false)));
    match &mut query.limit_clause {
        Some(LimitClause::LimitOffset { limit: limit @ None, .. }) => *limit = Some(rows),
        None => {
            let limit_by = Vec::new();
            query.limit_clause = Some(LimitClause::LimitOffset { limit: Some(rows), offset: None, limit_by });
        }
        Some(_) => return,
    }
    query.fetch = None;
}

/// `LATERAL unnest(…)` is `unnest(…)`, which sees the tables before it in any case.
fn unnested(relation: &mut TableFactor) {
    let TableFactor::Function { lateral: _, name, args, with_ordinality: false, alias } = relation else { return };
    if !name.to_string().eq_ignore_ascii_case("unnest") {
        return;
    }
    let arrays = args.iter().map(|argument| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(array)) => Some(array.clone()),
        _ => None,
    });
    if let Some(array_exprs) = arrays.collect::<Option<Vec<Expr>>>() {
        let alias = alias.take();
        let (with_offset, with_offset_alias, with_ordinality) = (false, None, false);
        *relation = TableFactor::UNNEST { alias, array_exprs, with_offset, with_offset_alias, with_ordinality };
    }
}

fn value(value: Value) -> Expr {
    Expr::Value(ValueWithSpan { value, span: Span::empty() })
}

fn text(text: String) -> Expr {
    value(Value::SingleQuotedString(text))
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

/// What stands in parentheses.
fn bare(expression: &Expr) -> &Expr {
    match expression {
        Expr::Nested(inner) => bare(inner),
        expression => expression,
    }
}

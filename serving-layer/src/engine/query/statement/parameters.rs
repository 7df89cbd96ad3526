//! Parameters: `$1` is the first value that came with the query.
//!
//! A value takes its parameter's place as a literal. It is one part of the statement from then on, whatever is in it,
//! and it is of the type that its use says, as any literal is.

use std::ops::ControlFlow;

use common::statement::Refusal;
use datafusion::sql::sqlparser::{
    ast::{
        self, Array, Expr, GroupByExpr, OrderByKind, Query, Select, Spanned, UnaryOperator, Value, ValueWithSpan,
        VisitMut, VisitorMut,
    },
    tokenizer::Span,
};
use serde_json::value::RawValue;

pub(super) fn bind(statement: &mut ast::Statement, parameters: &[Box<RawValue>]) -> Result<(), Refusal> {
    let values = parameters.iter().enumerate().map(|(place, value)| literal(value.get(), place + 1));
    let mut bind = Bind { used: vec![false; parameters.len()], values: values.collect::<Result<_, _>>()? };
    if let ControlFlow::Break(refusal) = statement.visit(&mut bind) {
        return Err(refusal);
    }
    match bind.used.iter().position(|used| !used) {
        None => Ok(()),
        Some(place) => Err(Refusal::new(
            Span::empty(),
            format!("the query has no parameter `${}`, and {} values came with it", place + 1, parameters.len()),
            "send as many `parameters` as the query has",
        )),
    }
}

struct Bind {
    values: Vec<Expr>,
    used: Vec<bool>,
}

impl VisitorMut for Bind {
    type Break = Refusal;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Refusal> {
        let keys = match query.order_by.as_ref().map(|order| &order.kind) {
            Some(OrderByKind::Expressions(keys)) => keys.as_slice(),
            _ => &[],
        };
        no_place(keys.iter().map(|key| &key.expr))
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Refusal> {
        match &select.group_by {
            GroupByExpr::Expressions(keys, _) => no_place(keys.iter()),
            GroupByExpr::All(_) => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<Refusal> {
        let at = expression.span();
        let Some(name) = placeholder(expression) else { return ControlFlow::Continue(()) };
        let place = name.strip_prefix('$').and_then(|place| place.parse::<usize>().ok()).filter(|place| *place > 0);
        let Some(place) = place else {
            let hint = "write `$1`, `$2`, …, and send `parameters`";
            return ControlFlow::Break(Refusal::new(at, format!("`{name}` is no parameter"), hint));
        };
        match (self.values.get(place - 1), self.used.get_mut(place - 1)) {
            (Some(value), Some(used)) => {
                *expression = value.clone();
                *used = true;
                ControlFlow::Continue(())
            }
            _ => {
                let reason = format!("parameter `{name}` has no value: {} came with the query", self.values.len());
                let hint = "send one value for each parameter, such as `\"parameters\": [7, \"eu\"]`";
                ControlFlow::Break(Refusal::new(at, reason, hint))
            }
        }
    }
}

/// A number alone would be a column's place there.
fn no_place<'a>(mut keys: impl Iterator<Item = &'a Expr>) -> ControlFlow<Refusal> {
    match keys.find(|key| placeholder(key).is_some()) {
        None => ControlFlow::Continue(()),
        Some(key) => ControlFlow::Break(Refusal::new(
            key.span(),
            "a parameter is a value, which is nothing to order or group by",
            "write the column",
        )),
    }
}

fn placeholder(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Value(ValueWithSpan { value: Value::Placeholder(name), .. }) => Some(name.clone()),
        _ => None,
    }
}

/// Numbers keep all their digits.
fn literal(json: &str, place: usize) -> Result<Expr, Refusal> {
    let refused = |what: &str| {
        Refusal::new(
            Span::empty(),
            format!("the value of parameter `${place}` is {what}"),
            "send a number, a text, `true`, `false`, `null`, or an array of them",
        )
    };
    let value = |value| Expr::Value(ValueWithSpan { value, span: Span::empty() });
    let json = json.trim();
    Ok(match json.as_bytes().first() {
        Some(b'"') => {
            let text = serde_json::from_str(json).map_err(|error| refused(&format!("no text: {error}")))?;
            value(Value::SingleQuotedString(text))
        }
        Some(b'[') => {
            let items: Vec<&RawValue> =
                serde_json::from_str(json).map_err(|error| refused(&format!("no array: {error}")))?;
            let elem = items.into_iter().map(|item| literal(item.get(), place)).collect::<Result<_, _>>()?;
            Expr::Array(Array { elem, named: true })
        }
        Some(b'{') => return Err(refused("an object")),
        Some(b'-') => {
            let number = Value::Number(json.trim_start_matches('-').to_owned(), false);
            let negative = Expr::UnaryOp { op: UnaryOperator::Minus, expr: Box::new(value(number)) };
            Expr::Nested(Box::new(negative))
        }
        _ => value(match json {
            "null" => Value::Null,
            "true" => Value::Boolean(true),
            "false" => Value::Boolean(false),
            number => Value::Number(number.to_owned(), false),
        }),
    })
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::{dialect::GenericDialect, parser::Parser};

    use super::*;

    #[test]
    fn values_are_literals() {
        let check = |sql: &str, parameters: &str, expected: &str| {
            let parameters: Vec<Box<RawValue>> = serde_json::from_str(parameters).unwrap();
            let mut statements = Parser::parse_sql(&GenericDialect {}, sql).unwrap();
            let outcome = match bind(&mut statements[0], &parameters) {
                Ok(()) => statements[0].to_string(),
                Err(refusal) => refusal.reason,
            };
            assert_eq!(outcome, expected, "{sql}");
        };
        check("SELECT 1", "[]", "SELECT 1");
        check("SELECT $1, $2, $1", r#"[7, "x"]"#, "SELECT 7, 'x', 7");
        check(
            "SELECT x FROM t WHERE a = $1 AND b IN ($2, $3) LIMIT $4",
            r#"["it's' OR true --", 0.10, -5e3, 2]"#,
            "SELECT x FROM t WHERE a = 'it''s'' OR true --' AND b IN (0.10, (-5e3)) LIMIT 2",
        );
        check("SELECT $1", "[100000000000000.00020]", "SELECT 100000000000000.00020");
        check("SELECT $1, $2, $3", "[null, true, false]", "SELECT NULL, true, false");
        check("SELECT a = ANY($1)", r#"[[1, "b"]]"#, "SELECT a = ANY(ARRAY[1, 'b'])");
        check("SELECT $2", r#"[1, 2]"#, "the query has no parameter `$1`, and 2 values came with it");
        check("SELECT 1", r#"[1]"#, "the query has no parameter `$1`, and 1 values came with it");
        check("SELECT $1", "[]", "parameter `$1` has no value: 0 came with the query");
        check("SELECT $0", "[1]", "`$0` is no parameter");
        check("SELECT ?", "[1]", "`?` is no parameter");
        check("SELECT :id", "[1]", "`:id` is no parameter");
        check("SELECT $1", r#"[{"a": 1}]"#, "the value of parameter `$1` is an object");
        let no_place = "a parameter is a value, which is nothing to order or group by";
        check("SELECT x FROM t ORDER BY $1", "[1]", no_place);
        check("SELECT x FROM t GROUP BY $1", "[1]", no_place);
    }
}

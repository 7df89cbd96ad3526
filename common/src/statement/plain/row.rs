//! Rows that are compared: `(a, b) = (1, 2)`.
//!
//! The planner compares structures, to which NULL is a value like any other.

use sqlparser::{
    ast::{BinaryOperator as Op, Expr, Query, SetExpr, Spanned, TableFactor, UnaryOperator},
    dialect::GenericDialect,
    parser::Parser,
};

use super::{Refusal, bare, binary};

pub(super) fn compared(expression: &mut Expr) -> Result<(), Refusal> {
    let at = expression.span();
    let rewritten = match &*expression {
        Expr::BinaryOp { left, op, right } => match (row(left), row(right)) {
            (None, None) => return Ok(()),
            (Some(left), Some(right)) if left.len() == right.len() => of_rows(left, op, right),
            _ => None,
        },
        Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => match (row(left), row(right)) {
            (None, None) => return Ok(()),
            (Some(left), Some(right)) if left.len() == right.len() => {
                let same = |(left, right): (&Expr, &Expr)| {
                    Expr::IsNotDistinctFrom(Box::new(left.clone()), Box::new(right.clone()))
                };
                let all = balanced(&Op::And, left.iter().zip(right).map(same).collect());
                let is_negated = matches!(expression, Expr::IsDistinctFrom(..));
                all.map(|all| if is_negated { not(all) } else { all })
            }
            _ => None,
        },
        Expr::InList { expr, list, negated } => match row(expr) {
            None => return Ok(()),
            Some(left) => {
                let one = |item: &Expr| {
                    row(item).filter(|item| item.len() == left.len()).and_then(|item| of_rows(left, &Op::Eq, item))
                };
                let any = list.iter().map(one).collect::<Option<Vec<Expr>>>().and_then(|any| balanced(&Op::Or, any));
                any.map(|any| if *negated { not(any) } else { any })
            }
        },
        Expr::IsNull(inner) => match row(inner) {
            None => return Ok(()),
            Some(parts) => balanced(&Op::And, parts.iter().map(|part| Expr::IsNull(Box::new(part.clone()))).collect()),
        },
        Expr::IsNotNull(inner) => match row(inner) {
            None => return Ok(()),
            Some(parts) => {
                balanced(&Op::And, parts.iter().map(|part| Expr::IsNotNull(Box::new(part.clone()))).collect())
            }
        },
        Expr::InSubquery { expr, subquery, negated } => match row(expr) {
            None => return Ok(()),
            Some(left) => among(left, subquery).map(|among| if *negated { not(among) } else { among }),
        },
        Expr::Between { expr: inner, .. } | Expr::AnyOp { left: inner, .. } | Expr::AllOp { left: inner, .. }
            if row(inner).is_some() =>
        {
            None
        }
        _ => return Ok(()),
    };
    let rewritten = rewritten.ok_or_else(|| {
        let hint = "compare rows of as many columns by `=`, `<` and the like or `IN (…)`, or write `EXISTS (…)`";
        Refusal::new(at, "a row is compared in a way that is not supported", hint)
    })?;
    *expression = Expr::Nested(Box::new(rewritten));
    Ok(())
}

/// As a condition of its own in `WHERE`, where NULL is as good as false, it is found or not.
pub(super) fn found_in(condition: &mut Expr) {
    match condition {
        Expr::BinaryOp { left, op: Op::And, right } => {
            found_in(left);
            found_in(right);
        }
        Expr::Nested(inner) => found_in(inner),
        Expr::InSubquery { expr, subquery, negated: false } => {
            if let Some(left) = row(expr)
                && let Some(exists) = exists(left, subquery, |same| same)
            {
                *condition = exists;
            }
        }
        _ => {}
    }
}

/// Whether a row is among those of a subquery, with SQL's three values.
fn among(left: &[Expr], subquery: &Query) -> Option<Expr> {
    let unknown = exists(left, subquery, |same| Expr::IsNull(Box::new(Expr::Nested(Box::new(same)))))?;
    let mut among = parsed("CASE WHEN true THEN true WHEN true THEN NULL ELSE false END")?;
    if let Expr::Case { conditions, .. } = &mut among
        && let [found, maybe] = conditions.as_mut_slice()
    {
        found.condition = exists(left, subquery, |same| same)?;
        maybe.condition = unknown;
    }
    Some(among)
}

/// Whether a subquery has a row of which `condition` of its being the same as `left` holds.
fn exists(left: &[Expr], subquery: &Query, condition: impl Fn(Expr) -> Expr) -> Option<Expr> {
    let columns: Vec<Expr> = (1..=left.len()).map(|place| parsed(&format!("\"__{place}\""))).collect::<Option<_>>()?;
    let names = columns.iter().map(Expr::to_string).collect::<Vec<String>>().join(", ");
    let mut exists = parsed(&format!("EXISTS (SELECT 1 FROM (SELECT 1) AS \"__row\" ({names}) WHERE true)"))?;
    let Expr::Exists { subquery: around, .. } = &mut exists else { return None };
    let SetExpr::Select(select) = around.body.as_mut() else { return None };
    let TableFactor::Derived { subquery: place, .. } = &mut select.from.first_mut()?.relation else { return None };
    **place = subquery.clone();
    select.selection = Some(condition(of_rows(&columns, &Op::Eq, left)?));
    Some(exists)
}

fn parsed(sql: &str) -> Option<Expr> {
    Parser::new(&GenericDialect {}).try_with_sql(sql).and_then(|mut parser| parser.parse_expr()).ok()
}

fn row(expression: &Expr) -> Option<&[Expr]> {
    match bare(expression) {
        Expr::Tuple(parts) if !parts.is_empty() => Some(parts),
        _ => None,
    }
}

fn of_rows(left: &[Expr], op: &Op, right: &[Expr]) -> Option<Expr> {
    let pairs = || left.iter().cloned().zip(right.iter().cloned());
    match op {
        Op::Eq => balanced(&Op::And, pairs().map(|(left, right)| binary(left, Op::Eq, right)).collect()),
        Op::NotEq => balanced(&Op::Or, pairs().map(|(left, right)| binary(left, Op::NotEq, right)).collect()),
        Op::Lt | Op::LtEq => ordered(left, &Op::Lt, op, right),
        Op::Gt | Op::GtEq => ordered(left, &Op::Gt, op, right),
        _ => None,
    }
}

/// By the first columns that differ.
fn ordered(left: &[Expr], strictly: &Op, last: &Op, right: &[Expr]) -> Option<Expr> {
    let ((left, lefts), (right, rights)) = (left.split_first()?, right.split_first()?);
    let pair = |op: &Op| binary(left.clone(), op.clone(), right.clone());
    if lefts.is_empty() {
        return Some(pair(last));
    }
    let rest = ordered(lefts, strictly, last, rights)?;
    let tied = Expr::Nested(Box::new(binary(pair(&Op::Eq), Op::And, rest)));
    Some(Expr::Nested(Box::new(binary(pair(strictly), Op::Or, tied))))
}

/// A chain as deep as it is long would be too deep for whoever walks it.
fn balanced(op: &Op, mut parts: Vec<Expr>) -> Option<Expr> {
    if parts.len() <= 1 {
        return parts.pop();
    }
    let rest = parts.split_off(parts.len() / 2);
    let halves = binary(balanced(op, parts)?, op.clone(), balanced(op, rest)?);
    Some(Expr::Nested(Box::new(halves)))
}

fn not(expression: Expr) -> Expr {
    Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(expression) }
}

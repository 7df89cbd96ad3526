//! `AND`, `OR` and `FILTER` that decide whether what follows is computed.
//!
//! DataFusion computes the right side of `b <> 0 AND 10 / b > 1` for whole batches unless the left side leaves none of
//! their rows, so whether it fails depends on how rows come together. Here each row decides for itself: conditions that
//! cannot fail first, the others from left to right, each only where those before it leave the answer open.

use datafusion::{
    arrow::datatypes::DataType,
    common::{
        DFSchema,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    error::{DataFusionError, Result},
    logical_expr::{Expr, ExprSchemable, Operator, cast, lit, when},
};

use super::floats;

/// Makes every `AND` and `OR` of an expression decide row by row.
pub(super) fn guard(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_down(|expr| {
        let Expr::BinaryExpr(binary) = &expr else { return Ok(Transformed::no(expr)) };
        let op = binary.op;
        if !matches!(op, Operator::And | Operator::Or) || !can_fail(&expr, schema) {
            return Ok(Transformed::no(expr));
        }
        let mut links = Vec::new();
        flatten(expr, op, &mut links);
        let guarded: Result<Vec<Expr>> = links.into_iter().map(|link| Ok(guard(link, schema)?.data)).collect();
        let (mut fallible, mut sure): (Vec<Expr>, Vec<Expr>) =
            guarded?.into_iter().partition(|link| can_fail(link, schema));
        if let [only] = fallible.as_slice()
            && is_guarded(only, op, &sure)
        {
            let whole = sure.into_iter().chain(fallible).reduce(|left, right| combine(left, op, right));
            return Ok(Transformed::new(whole.unwrap_or_else(|| lit(true)), false, TreeNodeRecursion::Jump));
        }
        let mut rest: Option<Expr> = None;
        while let Some(link) = fallible.pop() {
            rest = Some(match rest {
                Some(rest) => join(link, op, rest)?,
                None => link,
            });
        }
        let sure = sure.drain(..).reduce(|left, right| combine(left, op, right));
        let whole = match (sure, rest) {
            (Some(sure), Some(rest)) => join(sure, op, rest)?,
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => return Err(DataFusionError::Internal("a condition is empty".to_owned())),
        };
        Ok(Transformed::new(whole, true, TreeNodeRecursion::Jump))
    })
}

/// Whether an expression is computed only where all of `sure` leave the answer open.
fn is_guarded(expr: &Expr, op: Operator, sure: &[Expr]) -> bool {
    let Expr::Cast(cast) = expr else { return sure.is_empty() };
    let Expr::Case(case) = cast.expr.as_ref() else { return sure.is_empty() };
    let Some((condition, _)) = case.when_then_expr.first() else { return false };
    let before = match (condition.as_ref(), op) {
        (Expr::IsNotFalse(before), Operator::And) | (Expr::IsNotTrue(before), Operator::Or) => before,
        _ => return sure.is_empty(),
    };
    let mut known = Vec::new();
    flatten((**before).clone(), op, &mut known);
    sure.iter().all(|link| known.contains(link))
}

fn flatten(expr: Expr, op: Operator, links: &mut Vec<Expr>) {
    match expr {
        Expr::BinaryExpr(binary) if binary.op == op => {
            flatten(*binary.left, op, links);
            flatten(*binary.right, op, links);
        }
        other => links.push(other),
    }
}

fn combine(left: Expr, op: Operator, right: Expr) -> Expr {
    datafusion::logical_expr::binary_expr(left, op, right)
}

/// `left op right`, where `right` is computed only for rows that `left` does not decide.
fn join(left: Expr, op: Operator, right: Expr) -> Result<Expr> {
    let open = match op {
        Operator::And => left.clone().is_not_false(),
        _ => left.clone().is_not_true(),
    };
    let lazy = truth(open, right, op == Operator::Or)?;
    Ok(combine(left, op, lazy))
}

/// `expr` where `condition` holds, else `otherwise`. As a number in between: truth values are folded into `AND` and `OR`.
fn truth(condition: Expr, expr: Expr, otherwise: bool) -> Result<Expr> {
    let number = when(condition, cast(expr, DataType::Int8)).otherwise(lit(i8::from(otherwise)))?;
    Ok(cast(number, DataType::Boolean))
}

/// An aggregate's argument, computed only for the rows that its `FILTER` lets through.
pub(super) fn filtered(argument: Expr, filter: &Expr, schema: &DFSchema) -> Result<Expr> {
    if !can_fail(&argument, schema) {
        return Ok(argument);
    }
    if argument.get_type(schema)? == DataType::Boolean {
        let number = when(filter.clone(), cast(argument, DataType::Int8)).end()?;
        return Ok(cast(number, DataType::Boolean));
    }
    when(filter.clone(), argument).end()
}

/// Whether computing an expression can fail for some row.
pub(super) fn can_fail(expr: &Expr, schema: &DFSchema) -> bool {
    let mut fails = false;
    let visited = expr.apply(|part| {
        fails = match part {
            Expr::Column(_)
            | Expr::OuterReferenceColumn(..)
            | Expr::Literal(..)
            | Expr::Alias(_)
            | Expr::Not(_)
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::IsTrue(_)
            | Expr::IsFalse(_)
            | Expr::IsUnknown(_)
            | Expr::IsNotTrue(_)
            | Expr::IsNotFalse(_)
            | Expr::IsNotUnknown(_)
            | Expr::Between(_)
            | Expr::InList(_)
            | Expr::Like(_)
            | Expr::Case(_)
            | Expr::TryCast(_)
            | Expr::InSubquery(_)
            | Expr::Exists(_) => false,
            Expr::BinaryExpr(binary) => !matches!(
                binary.op,
                Operator::Eq
                    | Operator::NotEq
                    | Operator::Lt
                    | Operator::LtEq
                    | Operator::Gt
                    | Operator::GtEq
                    | Operator::And
                    | Operator::Or
                    | Operator::IsDistinctFrom
                    | Operator::IsNotDistinctFrom
                    | Operator::StringConcat
            ),
            Expr::Cast(cast) => {
                cast.expr.get_type(schema).map_or(true, |from| !is_total(&from, cast.field.data_type()))
            }
            Expr::ScalarFunction(_) => !floats::is_canonical(part),
            _ => true,
        };
        Ok(if fails { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    fails || visited.is_err()
}

/// Whether a cast has a value for every value.
fn is_total(from: &DataType, to: &DataType) -> bool {
    use DataType as T;
    let digits = |data_type: &T| match data_type {
        T::Int8 => Some((3, 0)),
        T::Int16 => Some((5, 0)),
        T::Int32 => Some((10, 0)),
        T::Int64 => Some((19, 0)),
        T::Decimal128(precision, scale) | T::Decimal256(precision, scale) => {
            Some((i16::from(*precision) - i16::from(*scale), i16::from(*scale)))
        }
        _ => None,
    };
    match (from, to) {
        (from, to) if from == to => true,
        (T::Boolean, T::Int8) | (T::Int8, T::Boolean) | (T::Float32, T::Float64) => true,
        (from, T::Float64 | T::Utf8) if digits(from).is_some() => true,
        (T::Boolean | T::Float32 | T::Float64, T::Utf8) => true,
        (T::Int8, T::Int16 | T::Int32 | T::Int64) | (T::Int16, T::Int32 | T::Int64) | (T::Int32, T::Int64) => true,
        (from, T::Decimal128(..) | T::Decimal256(..)) => match (digits(from), digits(to)) {
            (Some((from, from_scale)), Some((to, to_scale))) => from <= to && from_scale <= to_scale,
            _ => false,
        },
        _ => false,
    }
}

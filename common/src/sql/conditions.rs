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

use super::fallible::may_fail;

/// Makes every `AND` and `OR` of an expression decide row by row.
pub(super) fn guard(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_down(|expr| {
        let Expr::BinaryExpr(binary) = &expr else { return Ok(Transformed::no(expr)) };
        let op = binary.op;
        if !matches!(op, Operator::And | Operator::Or) || !may_fail(&expr, schema)? {
            return Ok(Transformed::no(expr));
        }
        let mut links = Vec::new();
        flatten(expr, op, &mut links);
        let guarded: Result<Vec<Expr>> = links.into_iter().map(|link| Ok(guard(link, schema)?.data)).collect();
        let (mut fallible, mut sure) = (Vec::new(), Vec::new());
        for link in guarded? {
            if may_fail(&link, schema)? { fallible.push(link) } else { sure.push(link) }
        }
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
    if !may_fail(&argument, schema)? {
        return Ok(argument);
    }
    if argument.get_type(schema)? == DataType::Boolean {
        let number = when(filter.clone(), cast(argument, DataType::Int8)).end()?;
        return Ok(cast(number, DataType::Boolean));
    }
    when(filter.clone(), argument).end()
}

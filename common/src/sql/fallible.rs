//! Which expressions have a value for every row, by what they are.

use datafusion::{
    arrow::datatypes::DataType,
    common::{ExprSchema, Result, tree_node::TreeNode},
    logical_expr::{Expr, ExprSchemable, Operator, Volatility},
};

/// Functions that have a value for all arguments.
const TOTAL: &[&str] =
    &["btrim", "character_length", "coalesce", "lower", "ltrim", "nullif", "rtrim", "starts_with", "upper"];

/// Whether computing `expr` may fail for some row. What is not known to be total may.
pub(crate) fn may_fail(expr: &Expr, schema: &dyn ExprSchema) -> Result<bool> {
    expr.exists(|part| part_may_fail(part, schema))
}

/// The same of what an aggregate computes of a row, where `expr` is one.
pub(crate) fn row_may_fail(expr: &Expr, schema: &dyn ExprSchema) -> Result<bool> {
    expr.exists(|part| Ok(!matches!(part, Expr::AggregateFunction(_)) && part_may_fail(part, schema)?))
}

/// The same without regard to its parts.
fn part_may_fail(part: &Expr, schema: &dyn ExprSchema) -> Result<bool> {
    Ok(match part {
        Expr::Column(_)
        | Expr::Literal(..)
        | Expr::Alias(_)
        | Expr::Not(_)
        | Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::IsTrue(_)
        | Expr::IsNotTrue(_)
        | Expr::IsFalse(_)
        | Expr::IsNotFalse(_)
        | Expr::IsUnknown(_)
        | Expr::IsNotUnknown(_)
        | Expr::OuterReferenceColumn(..)
        | Expr::InSubquery(_)
        | Expr::Exists(_)
        | Expr::TryCast(_)
        | Expr::Case(_) => false,
        Expr::Like(like) => !matches!(like.pattern.as_ref(), Expr::Literal(..)),
        Expr::Between(between) => between.expr.get_type(schema)?.is_nested(),
        Expr::InList(list) => list.expr.get_type(schema)?.is_nested(),
        Expr::BinaryExpr(binary) => match binary.op {
            Operator::And | Operator::Or => false,
            Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom => binary.left.get_type(schema)?.is_nested(),
            _ => true,
        },
        Expr::Cast(cast) => !is_widening(&cast.expr.get_type(schema)?, cast.field.data_type()),
        Expr::ScalarFunction(call) => !TOTAL.contains(&call.name()) && !super::floats::is_canonical(part),
        _ => true,
    })
}

/// Whether an expression reads nothing and is the same each time it is computed.
pub(super) fn is_constant(expr: &Expr) -> Result<bool> {
    let is_open = |part: &Expr| match part {
        Expr::Column(_)
        | Expr::OuterReferenceColumn(..)
        | Expr::ScalarVariable(..)
        | Expr::Placeholder(_)
        | Expr::AggregateFunction(_)
        | Expr::WindowFunction(_)
        | Expr::GroupingSet(_)
        | Expr::InSubquery(_)
        | Expr::Exists(_)
        | Expr::ScalarSubquery(_)
        | Expr::SetComparison(_)
        | Expr::LambdaVariable(_) => true,
        Expr::ScalarFunction(call) => call.func.signature().volatility == Volatility::Volatile,
        _ => false,
    };
    Ok(!expr.exists(|part| Ok(is_open(part)))?)
}

/// Whether every value of one type is one of the other.
pub(super) fn is_widening(from: &DataType, to: &DataType) -> bool {
    use DataType as T;
    let digits = |integer: &DataType| match integer {
        T::Int8 => Some(3),
        T::Int16 => Some(5),
        T::Int32 => Some(10),
        T::Int64 => Some(19),
        _ => None,
    };
    match (from, to) {
        (from, to) if from == to => true,
        (T::Boolean, T::Int8) | (T::Int8, T::Boolean) => true,
        (T::Int8 | T::Int16 | T::Int32 | T::Int64, T::Int8 | T::Int16 | T::Int32 | T::Int64) => {
            digits(from) <= digits(to)
        }
        (T::Int8 | T::Int16 | T::Int32 | T::Int64, T::Decimal128(precision, scale)) if *scale >= 0 => {
            digits(from).is_some_and(|digits| digits + i16::from(*scale) <= i16::from(*precision))
        }
        (T::Decimal128(p, s), T::Decimal128(precision, scale)) => {
            scale >= s && i16::from(*p) - i16::from(*s) <= i16::from(*precision) - i16::from(*scale)
        }
        (T::Int8 | T::Int16 | T::Int32 | T::Int64 | T::Decimal128(..) | T::Float32, T::Float64) => true,
        (T::Utf8 | T::LargeUtf8 | T::Utf8View, T::Utf8 | T::LargeUtf8 | T::Utf8View) => true,
        _ => false,
    }
}

//! What stands in an expression, but for function calls.

use sqlparser::{
    ast::{
        Array, ArrayElemTypeDef, CaseWhen, DataType, ExactNumberInfo, Expr, Interval, Spanned, StructField,
        TypedString, UnaryOperator,
    },
    tokenizer::Span,
};

use super::{Found, none_of, refuse};

pub(super) fn check(expression: &Expr) -> Found {
    let at = expression.span();
    match expression {
        Expr::Cast { kind: _, expr: _, data_type, array, format } => {
            none_of(
                at,
                &[
                    (*array, "CAST … ARRAY", "write the type as `INT[]`"),
                    (format.is_some(), "CAST … FORMAT", "write `to_char(…)` or `to_timestamp(…)`"),
                ],
            )?;
            cast_to(expression, data_type)
        }
        Expr::TypedString(TypedString { data_type, value: _, uses_odbc_syntax: _ }) => cast_to(expression, data_type),
        Expr::Trim { trim_where: _, trim_what: _, expr: _, trim_characters } => {
            let is_list = trim_characters.as_ref().is_some_and(|characters| characters.len() > 1);
            none_of(at, &[(is_list, "TRIM with several texts", "write them as one text of characters")])
        }
        Expr::Like { negated: _, any, expr: _, pattern: _, escape_char: _ }
        | Expr::ILike { negated: _, any, expr: _, pattern: _, escape_char: _ } => {
            none_of(at, &[(*any, "LIKE ANY", "write `x LIKE … OR x LIKE …`")])
        }
        Expr::Interval(interval) => in_fields(at, interval),
        Expr::Struct { values: _, fields } => none_of(
            at,
            &[(!fields.is_empty(), "STRUCT with types", "write `named_struct('a', 1)`, and cast its parts")],
        ),
        Expr::Collate { expr: _, collation: _ } => {
            refuse(at, "COLLATE", "texts are compared by their code points: write `lower(x)` to put cases together")
        }
        Expr::IsNormalized { expr: _, form: _, negated: _ } => {
            refuse(at, "IS NORMALIZED", "texts are compared as they were sent")
        }
        Expr::InUnnest { expr: _, array_expr: _, negated: _ } => refuse(at, "IN UNNEST", "write `x = ANY(array)`"),
        Expr::RLike { negated: _, expr: _, pattern: _, regexp: _ } => refuse(at, "RLIKE", "write `x ~ 'pattern'`"),
        Expr::Convert { .. } => refuse(at, "CONVERT", "write `CAST(x AS type)`"),
        Expr::MatchAgainst { columns: _, match_value: _, opt_search_modifier: _ } => {
            refuse(at, "MATCH … AGAINST", "write `x ~ 'pattern'` or `LIKE`")
        }
        Expr::MemberOf(_) => refuse(at, "MEMBER OF", "write `x = ANY(array)`"),
        Expr::OuterJoin(_) => refuse(at, "(+)", "write `LEFT JOIN … ON …`"),
        Expr::Prior(_) => refuse(at, "PRIOR", "write `WITH RECURSIVE …`"),
        Expr::Prefixed { prefix, value: _ } => refuse(at, &format!("{prefix} before a text"), "leave it out"),
        Expr::UnaryOp { op: UnaryOperator::PGSquareRoot | UnaryOperator::PGCubeRoot, expr: _ } => {
            refuse(at, "a root by operator", "write `sqrt(x)` or `cbrt(x)`")
        }
        // All that these say is planned, or refused by the planner.
        Expr::Identifier(_)
        | Expr::CompoundIdentifier(_)
        | Expr::CompoundFieldAccess { root: _, access_chain: _ }
        | Expr::JsonAccess { value: _, path: _ }
        | Expr::IsFalse(_)
        | Expr::IsNotFalse(_)
        | Expr::IsTrue(_)
        | Expr::IsNotTrue(_)
        | Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::IsUnknown(_)
        | Expr::IsNotUnknown(_)
        | Expr::IsDistinctFrom(_, _)
        | Expr::IsNotDistinctFrom(_, _)
        | Expr::InList { expr: _, list: _, negated: _ }
        | Expr::InSubquery { expr: _, subquery: _, negated: _ }
        | Expr::Between { expr: _, negated: _, low: _, high: _ }
        | Expr::BinaryOp { left: _, op: _, right: _ }
        | Expr::SimilarTo { negated: _, expr: _, pattern: _, escape_char: _ }
        | Expr::AnyOp { left: _, compare_op: _, right: _, is_some: _ }
        | Expr::AllOp { left: _, compare_op: _, right: _ }
        | Expr::UnaryOp { op: _, expr: _ }
        | Expr::AtTimeZone { timestamp: _, time_zone: _ }
        | Expr::Extract { field: _, syntax: _, expr: _ }
        | Expr::Ceil { expr: _, field: _ }
        | Expr::Floor { expr: _, field: _ }
        | Expr::Position { expr: _, r#in: _ }
        | Expr::Substring { expr: _, substring_from: _, substring_for: _, special: _, shorthand: _ }
        | Expr::Overlay { expr: _, overlay_what: _, overlay_from: _, overlay_for: _ }
        | Expr::Nested(_)
        | Expr::Value(_)
        | Expr::Function(_)
        | Expr::Exists { subquery: _, negated: _ }
        | Expr::Subquery(_)
        | Expr::GroupingSets(_)
        | Expr::Cube(_)
        | Expr::Rollup(_)
        | Expr::Tuple(_)
        | Expr::Named { expr: _, name: _ }
        | Expr::Dictionary(_)
        | Expr::Map(_)
        | Expr::Array(Array { elem: _, named: _ })
        | Expr::Wildcard(_)
        | Expr::QualifiedWildcard(_, _)
        | Expr::Lambda(_) => Ok(()),
        Expr::Case { case_token: _, end_token: _, operand: _, conditions, else_result: _ } => {
            conditions.iter().try_for_each(|CaseWhen { condition: _, result: _ }| Ok(()))
        }
    }
}

fn in_fields(at: Span, interval: &Interval) -> Found {
    let Interval { value: _, leading_field: _, leading_precision, last_field, fractional_seconds_precision } = interval;
    let is_long = last_field.is_some() || leading_precision.is_some() || fractional_seconds_precision.is_some();
    none_of(at, &[(is_long, "an interval's fields", "write the units: `INTERVAL '1 day 2 hours'`")])
}

/// Refuses a type that says more than the planner takes from it.
fn cast_to(expression: &Expr, data_type: &DataType) -> Found {
    let at = expression.span();
    let (sized, hint) = match data_type {
        DataType::Varchar(length) => (length.is_some(), "write `left(x, n)` to cut a text"),
        DataType::Char(_) => (true, "write `TEXT`, or `left(x, n)` to cut a text"),
        DataType::String(length) => (length.is_some(), "write `TEXT`, or `left(x, n)` to cut a text"),
        DataType::Float(info) => (!matches!(info, ExactNumberInfo::None), "write `REAL` or `DOUBLE`"),
        DataType::TinyInt(width)
        | DataType::SmallInt(width)
        | DataType::Int2(width)
        | DataType::Int(width)
        | DataType::Integer(width)
        | DataType::Int4(width)
        | DataType::BigInt(width)
        | DataType::Int8(width) => (width.is_some(), "leave its width out"),
        DataType::Array(ArrayElemTypeDef::AngleBracket(inner) | ArrayElemTypeDef::SquareBracket(inner, _)) => {
            return cast_to(expression, inner);
        }
        DataType::Struct(fields, _) => {
            return fields.iter().try_for_each(|StructField { field_name: _, field_type, options }| {
                none_of(at, &[(options.is_some(), "OPTIONS of a field", "leave them out")])?;
                cast_to(expression, field_type)
            });
        }
        _ => (false, ""),
    };
    if sized { refuse(at, &data_type.to_string(), hint) } else { Ok(()) }
}

//! Expressions that the planner takes for something else: times in zones, powers, numbers beyond decimals, and numbers
//! that it takes for places of columns.

use sqlparser::ast::{
    BinaryOperator, CastKind, DataType, ExactNumberInfo, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentClause, FunctionArgumentList, FunctionArguments, Ident, ObjectName, OrderByExpr, Value,
    ValueWithSpan, WindowType,
};

/// Writes an expression in such words, if it is one of those.
pub(super) fn known(expr: &mut Expr) {
    match expr {
        // DataFusion keeps the instant and changes how it is shown; in SQL it is the local time, or the instant of it.
        Expr::AtTimeZone { timestamp, time_zone } => {
            let (time, zone) = ((**timestamp).clone(), (**time_zone).clone());
            *expr = call("timezone", vec![zone, time]);
        }
        // `^` is a power, not a bitwise operator, which is `#`.
        Expr::BinaryOp { left, op: BinaryOperator::BitwiseXor, right } => {
            let arguments = [left, right].map(|side| double((**side).clone()));
            *expr = call("power", arguments.to_vec());
        }
        // More digits than a decimal has: what is written with such an exponent is a floating-point number.
        Expr::Value(value) => {
            if let Value::Number(text, _) = &value.value
                && is_beyond_decimals(text)
            {
                let text = Value::SingleQuotedString(text.clone()).with_span(value.span);
                *expr = double(Expr::Value(text));
            }
        }
        Expr::Function(call) => {
            if let FunctionArguments::List(list) = &mut call.args {
                for clause in &mut list.clauses {
                    if let FunctionArgumentClause::OrderBy(keys) = clause {
                        constant(keys);
                    }
                }
            }
            constant(&mut call.within_group);
            if let Some(WindowType::WindowSpec(window)) = &mut call.over {
                constant(&mut window.order_by);
            }
        }
        _ => {}
    }
}

/// A number in the order of an aggregate or a window is no column's place, as it is in a query's.
pub(super) fn constant(keys: &mut [OrderByExpr]) {
    for key in keys {
        if let Expr::Value(ValueWithSpan { value: Value::Number(..), .. }) = &key.expr {
            key.expr = Expr::Nested(Box::new(key.expr.clone()));
        }
    }
}

fn is_beyond_decimals(number: &str) -> bool {
    let Some((digits, exponent)) = number.split_once(['e', 'E']) else { return false };
    let fraction = digits.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    let places = i64::try_from(fraction).unwrap_or(i64::MAX);
    exponent.parse::<i64>().map_or(true, |exponent| {
        !(-38..=38).contains(&exponent.saturating_sub(places)) || !(-37..=37).contains(&exponent)
    })
}

fn double(expr: Expr) -> Expr {
    let data_type = DataType::Double(ExactNumberInfo::None);
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, array: false, format: None }
}

fn call(name: &str, arguments: Vec<Expr>) -> Expr {
    let args = arguments.into_iter().map(|argument| FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))).collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

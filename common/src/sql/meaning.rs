//! Before types are coerced: literals, comparisons, times and aggregates get the types that PostgreSQL gives them, where
//! DataFusion would choose others.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::{DataType, IntervalUnit, TimeUnit},
    common::{
        Column, DFSchema, ScalarValue,
        config::ConfigOptions,
        plan_err,
        tree_node::{Transformed, TransformedResult, TreeNode},
    },
    error::Result,
    functions::datetime,
    logical_expr::{
        Expr, ExprSchemable, LogicalPlan, Operator, WindowFunctionDefinition, cast,
        expr::{AggregateFunction, Between, BinaryExpr, Cast, InList, ScalarFunction, TryCast, WindowFunction},
        lit,
        utils::merge_schema,
    },
    optimizer::{AnalyzerRule, utils::NamePreserver},
};

use super::{aggregates, fallible::is_constant, times, types::timestamp};

/// Functions of a time, which take a date for its first moment.
const OF_TIMES: &[&str] = &["date_trunc", "date_bin", "to_char", "timezone"];

/// The rule.
#[derive(Debug)]
pub(super) struct Meaning;

impl AnalyzerRule for Meaning {
    fn name(&self) -> &'static str {
        "lamina_meaning"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| {
            rewrite(plan, &|expr, schema| expr.transform_up(|part| meant(part, schema)))
        })
        .data()
    }
}

/// Applies `to` to all expressions of a plan's node, which keep their names.
pub(super) fn rewrite(
    plan: LogicalPlan,
    to: &dyn Fn(Expr, &DFSchema) -> Result<Transformed<Expr>>,
) -> Result<Transformed<LogicalPlan>> {
    let schema = input_schema(&plan)?;
    let names = NamePreserver::new(&plan);
    plan.map_expressions(|expr| {
        let name = names.save(&expr);
        Ok(to(expr, &schema)?.update_data(|expr| name.restore(expr)))
    })?
    .map_data(LogicalPlan::recompute_schema)
}

/// The columns that a node's expressions can name.
pub(super) fn input_schema(plan: &LogicalPlan) -> Result<DFSchema> {
    let mut schema = merge_schema(&plan.inputs());
    if let LogicalPlan::TableScan(scan) = plan {
        let source = DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?;
        schema.merge(&source);
    }
    Ok(schema)
}

fn meant(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        // A number too large for BIGINT is a decimal, not an unsigned integer.
        Expr::Literal(ScalarValue::UInt64(Some(number)), metadata) => {
            Ok(Transformed::yes(Expr::Literal(ScalarValue::Decimal128(Some(i128::from(number)), 20, 0), metadata)))
        }
        Expr::BinaryExpr(binary) => aligned(binary, schema),
        Expr::Between(between) => {
            let (expr, low) = both(*between.expr, *between.low, schema)?;
            let (expr, high) = both(expr, *between.high, schema)?;
            let (expr, low) = both(expr, low, schema)?;
            Ok(Transformed::yes(Expr::Between(Between::new(
                Box::new(expr),
                between.negated,
                Box::new(low),
                Box::new(high),
            ))))
        }
        Expr::InList(list) => in_list(list, schema),
        Expr::Cast(cast) => cast_of(cast, schema),
        Expr::TryCast(TryCast { expr, field }) => {
            let expr = rounded_literal(*expr, field.data_type())?;
            Ok(Transformed::yes(Expr::TryCast(TryCast { expr: Box::new(expr), field })))
        }
        Expr::ScalarFunction(call) => function(call, schema),
        Expr::AggregateFunction(call) => aggregate(call, schema),
        Expr::WindowFunction(window) => windowed(*window, schema),
        other => Ok(Transformed::no(other)),
    }
}

/// Whether an operator compares two values.
pub(super) fn is_comparison(op: Operator) -> bool {
    matches!(
        op,
        Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom
    )
}

fn aligned(binary: BinaryExpr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let BinaryExpr { left, op, right } = binary;
    let is_arithmetic =
        matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide | Operator::Modulo);
    if !is_comparison(op) && !is_arithmetic {
        return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })));
    }
    let (Ok(l), Ok(r)) = (left.get_type(schema), right.get_type(schema)) else {
        return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })));
    };
    if is_comparison(op) {
        let (left, right) = both(*left, *right, schema)?;
        return Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))));
    }
    let to = computed(&l, &r, op);
    let Some((to_left, to_right)) = to else {
        return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })));
    };
    let left = converted(*left, &l, &to_left)?;
    let right = converted(*right, &r, &to_right)?;
    Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))))
}

fn both(left: Expr, right: Expr, schema: &DFSchema) -> Result<(Expr, Expr)> {
    let (Ok(l), Ok(r)) = (left.get_type(schema), right.get_type(schema)) else { return Ok((left, right)) };
    if is_interval(&l) || is_interval(&r) {
        let length = |side: Expr, of: &DataType| match of {
            of if is_interval(of) => times::length(side),
            _ => times::length(cast(side, DataType::Interval(IntervalUnit::MonthDayNano))),
        };
        return Ok((length(left, &l), length(right, &r)));
    }
    match compared(&l, &r) {
        Some((to_left, to_right)) => Ok((converted(left, &l, &to_left)?, converted(right, &r, &to_right)?)),
        None => Ok((left, right)),
    }
}

/// Whether a type is of lengths of time, which are compared as such.
fn is_interval(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Interval(_) | DataType::Duration(_))
}

fn in_list(list: InList, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let InList { expr, list, negated } = list;
    let (mut expr, mut items) = (*expr, Vec::with_capacity(list.len()));
    for item in list {
        let (left, right) = both(expr, item, schema)?;
        expr = left;
        items.push(right);
    }
    // DataFusion takes an item for a constant if it has a value without rows, as `CASE` has: what reads columns is
    // compared by itself.
    let (reading, constant): (Vec<Expr>, Vec<Expr>) =
        items.into_iter().partition(|item| item.any_column_refs() || item.contains_outer());
    let constant = (!constant.is_empty()).then(|| Expr::InList(InList::new(Box::new(expr.clone()), constant, negated)));
    let reading = reading.into_iter().map(|item| match negated {
        true => expr.clone().not_eq(item),
        false => expr.clone().eq(item),
    });
    let all = constant.into_iter().chain(reading).reduce(|all, one| if negated { all.and(one) } else { all.or(one) });
    Ok(Transformed::yes(all.unwrap_or_else(|| lit(negated))))
}

/// As what two types are compared, where DataFusion would lose digits, or range.
fn compared(left: &DataType, right: &DataType) -> Option<(DataType, DataType)> {
    use DataType as T;
    let same = |to: T| Some((to.clone(), to));
    match (left, right) {
        (T::Timestamp(unit, zone), T::Utf8 | T::Utf8View | T::LargeUtf8 | T::Date32)
        | (T::Utf8 | T::Utf8View | T::LargeUtf8 | T::Date32, T::Timestamp(unit, zone)) => {
            same(T::Timestamp(*unit, zone.clone()))
        }
        _ => numbers(left, right).or_else(|| decimals(left, right)),
    }
}

/// As what two types are computed with.
fn computed(left: &DataType, right: &DataType, op: Operator) -> Option<(DataType, DataType)> {
    use DataType as T;
    match (left, right) {
        (T::Timestamp(unit, zone), T::Date32) if op == Operator::Minus => {
            let to = T::Timestamp(*unit, zone.clone());
            Some((to.clone(), to))
        }
        (T::Date32, T::Timestamp(unit, zone)) if op == Operator::Minus => {
            let to = T::Timestamp(*unit, zone.clone());
            Some((to.clone(), to))
        }
        // A date and hours are a time.
        (T::Date32, T::Interval(_)) => Some((timestamp(false), right.clone())),
        (T::Interval(_), T::Date32) => Some((left.clone(), timestamp(false))),
        _ => numbers(left, right),
    }
}

/// A floating-point number with an exact one: both are DOUBLE.
fn numbers(left: &DataType, right: &DataType) -> Option<(DataType, DataType)> {
    use DataType as T;
    let exact = |data_type: &T| data_type.is_integer() || is_decimal(data_type);
    match (left, right) {
        (T::Float32 | T::Float64, other) | (other, T::Float32 | T::Float64) if exact(other) => {
            Some((T::Float64, T::Float64))
        }
        _ => None,
    }
}

/// Decimals, and integers with them, that together have more than 38 digits.
fn decimals(left: &DataType, right: &DataType) -> Option<(DataType, DataType)> {
    if !is_decimal(left) && !is_decimal(right) {
        return None;
    }
    let ((whole, scale), (other_whole, other_scale)) = (digits(left)?, digits(right)?);
    let (whole, scale) = (whole.max(other_whole), scale.max(other_scale));
    let total = u8::try_from(whole + scale).ok().filter(|total| (39..=76).contains(total))?;
    let to = DataType::Decimal256(total, i8::try_from(scale).ok()?);
    Some((to.clone(), to))
}

fn is_decimal(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Decimal128(..) | DataType::Decimal256(..))
}

/// Digits before and after the point.
fn digits(data_type: &DataType) -> Option<(i16, i16)> {
    Some(match data_type {
        DataType::Int8 => (3, 0),
        DataType::Int16 => (5, 0),
        DataType::Int32 => (10, 0),
        DataType::Int64 => (19, 0),
        DataType::UInt64 => (20, 0),
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            (i16::from(*precision) - i16::from(*scale), i16::from(*scale))
        }
        _ => return None,
    })
}

/// `expr` as another type. A literal becomes another literal, with all its digits.
fn converted(expr: Expr, from: &DataType, to: &DataType) -> Result<Expr> {
    if from == to {
        return Ok(expr);
    }
    if let (Expr::Literal(value @ ScalarValue::Decimal128(Some(_), ..), metadata), DataType::Float64) = (&expr, to)
        && let Ok(number) = value.to_string_plain().parse::<f64>()
    {
        return Ok(Expr::Literal(ScalarValue::Float64(Some(number)), metadata.clone()));
    }
    let expr = rounded_literal(expr, to)?;
    Ok(cast(expr, to.clone()))
}

/// The digits of a decimal as text.
trait Plain {
    fn to_string_plain(&self) -> String;
}

impl Plain for ScalarValue {
    fn to_string_plain(&self) -> String {
        match self {
            Self::Decimal128(Some(value), _, scale) => format!("{value}e{}", -i16::from(*scale)),
            other => other.to_string(),
        }
    }
}

fn cast_of(Cast { expr, field }: Cast, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let to = field.data_type();
    let from = expr.get_type(schema).ok();
    if matches!(to, DataType::Timestamp(..)) && from.is_some_and(|from| from.is_integer()) {
        return plan_err!(
            "a number is not a time: write `to_timestamp_seconds(x)`, `to_timestamp_millis(x)` or `to_timestamp_micros(x)`"
        );
    }
    let expr = rounded_literal(*expr, to)?;
    Ok(Transformed::yes(Expr::Cast(Cast { expr: Box::new(expr), field })))
}

/// A text that is a time with more digits than a time has is refused rather than cut.
fn rounded_literal(expr: Expr, to: &DataType) -> Result<Expr> {
    if let (Expr::Literal(ScalarValue::Utf8(Some(text)), _), DataType::Timestamp(TimeUnit::Microsecond, _)) =
        (&expr, to)
        && let Some((_, fraction)) = text.rsplit_once('.')
        && fraction.chars().skip(6).take_while(char::is_ascii_digit).any(|digit| digit != '0')
    {
        return plan_err!("the time '{text}' has digits below a microsecond, which no time has: leave them out");
    }
    Ok(expr)
}

fn function(call: ScalarFunction, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let mut call = call;
    let name = call.func.name().to_owned();
    if OF_TIMES.contains(&name.as_str()) {
        for argument in &mut call.args {
            if argument.get_type(schema).is_ok_and(|from| from == DataType::Date32) {
                *argument = cast(argument.clone(), timestamp(false));
            }
        }
    }
    if name == "date_trunc"
        && let Some(text) = call.args.get_mut(1)
        && text.get_type(schema).is_ok_and(|from| from.is_string())
    {
        *text = cast(text.clone(), timestamp(false));
    }
    // Its type depends on the places, so they are known before any constant is folded.
    if name == "round"
        && let Some(places) = call.args.get_mut(1)
        && let Some(number) = small(places)
    {
        *places = lit(number);
    }
    if name == "to_timestamp" && call.args.len() == 1 {
        match call.args[0].get_type(schema) {
            // Its nanoseconds end in 2262.
            Ok(from) if from.is_integer() => call.func = datetime::to_timestamp_seconds(&ConfigOptions::default()),
            Ok(from) if from.is_string() => {
                return Ok(Transformed::yes(converted(call.args.swap_remove(0), &from, &timestamp(false))?));
            }
            _ => {}
        }
    }
    let call = Expr::ScalarFunction(call);
    // Who asks for another unit by name gets it.
    if matches!(name.as_str(), "arrow_cast" | "arrow_try_cast") {
        return Ok(Transformed::yes(call));
    }
    match call.get_type(schema) {
        Ok(DataType::Timestamp(unit, zone)) if unit != TimeUnit::Microsecond => {
            Ok(Transformed::yes(cast(call, timestamp(zone.is_some()))))
        }
        _ => Ok(Transformed::yes(call)),
    }
}

/// The number that a literal is, with its sign.
fn small(expr: &Expr) -> Option<i32> {
    match expr {
        Expr::Literal(ScalarValue::Int64(Some(number)), _) => i32::try_from(*number).ok(),
        Expr::Negative(expr) => small(expr)?.checked_neg(),
        _ => None,
    }
}

fn aggregate(call: AggregateFunction, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let AggregateFunction { mut func, mut params } = call;
    let types = arguments(&func, &mut params.args, schema)?;
    if let Some(instead) = aggregates::instead(&func, &types, params.distinct)? {
        func = instead;
    }
    Ok(Transformed::yes(Expr::AggregateFunction(AggregateFunction { func, params })))
}

fn windowed(window: WindowFunction, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let WindowFunction { mut fun, mut params } = window;
    if let WindowFunctionDefinition::AggregateUDF(function) = &fun {
        let types = arguments(function, &mut params.args, schema)?;
        // DataFusion compares one value with the other here, and has no order for these.
        if matches!(function.name(), "max" | "min") && types.first().is_some_and(DataType::is_nested) {
            return plan_err!(
                "`{}` over a window is not of lists and structs: take one of their parts",
                function.name()
            );
        }
        if let Some(instead) = aggregates::instead(function, &types, params.distinct)? {
            fun = WindowFunctionDefinition::AggregateUDF(instead);
        }
    }
    Ok(Transformed::yes(Expr::from(WindowFunction { fun, params })))
}

/// Widens an aggregate's arguments where it needs that. Gives their types.
fn arguments(
    function: &Arc<datafusion::logical_expr::AggregateUDF>,
    arguments: &mut [Expr],
    schema: &DFSchema,
) -> Result<Vec<DataType>> {
    let mut types = Vec::with_capacity(arguments.len());
    for (place, argument) in arguments.iter_mut().enumerate() {
        let Ok(mut from) = argument.get_type(schema) else { return Ok(Vec::new()) };
        let exact = matches!(function.name(), "percentile_cont" | "median");
        if function.name() == "percentile_cont" && place > 0 && !is_constant(argument)? {
            return plan_err!("the share of `percentile_cont` is one number for all rows, such as 0.9");
        }
        let to = match aggregates::summed_as(function, &from) {
            Some(to) => Some(to),
            // Between two integers lies what is none.
            None if exact && place == 0 && from.is_integer() => Some(DataType::Float64),
            None if function.name() == "percentile_cont" && place == 0 && from.is_numeric() => Some(DataType::Float64),
            None => None,
        };
        if let Some(to) = to.filter(|to| *to != from) {
            *argument = converted(argument.clone(), &from, &to)?;
            from = to;
        }
        types.push(from);
    }
    Ok(types)
}

/// The column that an expression is, under its alias if it has one.
pub(super) fn column(expr: &Expr) -> Option<&Column> {
    match expr {
        Expr::Column(column) => Some(column),
        Expr::Alias(alias) => column(&alias.expr),
        _ => None,
    }
}

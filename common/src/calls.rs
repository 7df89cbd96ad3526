//! Functions that other engines have, in words that DataFusion has.
//!
//! What is rewritten means the same in views and in queries; for the others there is a hint that says what does.

use std::ops::ControlFlow;

use datafusion::{
    arrow::datatypes::DataType,
    common::Result,
    logical_expr::{
        ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        simplify::{ExprSimplifyResult, SimplifyContext},
    },
};
use sqlparser::{
    ast::{
        Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArguments, Value, ValueWithSpan,
        VisitMut, VisitorMut,
    },
    parser::Parser,
};

use crate::{catalog::folded, sql::Dialect};

/// Rewrites the calls in a statement, or in any part of one, before it is planned.
pub fn rewrite(sql: &mut impl VisitMut) {
    let _: ControlFlow<()> = VisitMut::visit(sql, &mut Calls);
}

/// What DataFusion's message says of something that it does not know, and what to write instead; `None` where it says
/// something else.
pub fn unknown(message: &str) -> Option<(String, String)> {
    let quoted = |after: &str| message.split_once(after).and_then(|(_, rest)| rest.split('\'').next());
    if message.contains("Dot access not supported") {
        let hint = "write it without parentheses, such as `customer.city`, or `(…)['city']`";
        return Some(("`(…).name` is not known".to_owned(), hint.to_owned()));
    }
    let function = quoted("Invalid function '")?;
    let near = || quoted("Did you mean '").map(|near| format!("did you mean `{near}`?"));
    let hint = instead_of(function).map(str::to_owned).or_else(near);
    let hint = hint.unwrap_or_else(|| "see DataFusion's SQL reference for its functions".to_owned());
    Some((format!("there is no function `{function}`"), hint))
}

/// What to write instead of a function that is not there.
fn instead_of(function: &str) -> Option<&'static str> {
    Some(match function.to_lowercase().as_str() {
        "mode" => {
            "make a view with the value as a group key and `count(*) AS n`, and take the one of the greatest `n` when \
             you query it"
        }
        "kurtosis" | "kurtosis_pop" | "skewness" | "skewness_pop" => {
            "keep `count(x)`, `sum(x)`, `sum(x * x)`, `sum(x * x * x)`, … in a view, and compute it of them when you \
             query it"
        }
        "percentile_disc" | "quantile_disc" => "write `percentile_disc(0.9) WITHIN GROUP (ORDER BY x)`",
        "first" => "write `first_value(x ORDER BY created_at)`",
        "last" => "write `last_value(x ORDER BY created_at)`",
        "max_by" | "arg_max" | "argmax" => "write `first_value(x ORDER BY y DESC)`",
        "min_by" | "arg_min" | "argmin" => "write `first_value(x ORDER BY y)`",
        "list" | "collect_list" => "write `array_agg(x ORDER BY y)`",
        "collect_set" => "write `array_agg(DISTINCT x)`",
        "group_concat" | "listagg" => "write `string_agg(x, ',' ORDER BY y)`",
        "sum_if" | "sumif" | "avg_if" | "avgif" => "write `sum(x) FILTER (WHERE …)`",
        "uniq" | "approx_count_distinct" => "write `approx_distinct(x)`",
        "approx_quantile" | "quantile" => "write `approx_percentile_cont(0.9) WITHIN GROUP (ORDER BY x)`",
        "product" => "write `exp(sum(ln(x)))` where all are above 0",
        "histogram" | "width_bucket" => "group by `floor(x / 10) * 10`, and count",
        "tumble" | "hop" | "session" | "date_slice" => "write `date_bin(INTERVAL '5 minutes', created_at)`",
        "date_diff" | "datediff" | "timestampdiff" => "write `date_part('epoch', y - x)` for seconds",
        "date_add" | "dateadd" | "date_sub" | "datesub" => "write `x + INTERVAL '1 day'`",
        "strftime" | "date_format" => "write `to_char(x, '%Y-%m-%d')`",
        "to_epoch" | "unix_timestamp" | "to_unix_timestamp" => "write `date_part('epoch', x)`",
        "json_extract"
        | "json_extract_string"
        | "json_value"
        | "json_query"
        | "json_get"
        | "get_json_object"
        | "jsonb_extract_path" => "declare the column as `STRUCT<name TEXT, …>`, and write `column.name`",
        "time_bucket" => "write `date_bin(INTERVAL '5 minutes', created_at)`",
        _ => return None,
    })
}

/// Makes the types of casts part of the names that DataFusion gives to what it computes: `sum(x)` and `sum(x::INT)` have
/// one name otherwise, and a query cannot have both. It needs [`typed`].
pub fn name_casts(sql: &mut impl VisitMut) {
    let _: ControlFlow<()> = VisitMut::visit(sql, &mut Casts);
}

/// The function that says in a name of which type its argument is. Where it `goes` when expressions are simplified,
/// whoever plans further must not go by names.
pub fn typed(goes: bool) -> ScalarUDF {
    ScalarUDF::from(Typed { goes, signature: Signature::any(2, Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Typed {
    goes: bool,
    signature: Signature,
}

impl ScalarUDFImpl for Typed {
    fn name(&self) -> &'static str {
        "typed"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments[0].clone())
    }

    fn simplify(
        &self,
        mut arguments: Vec<datafusion::logical_expr::Expr>,
        _: &SimplifyContext,
    ) -> Result<ExprSimplifyResult> {
        Ok(match self.goes {
            true => ExprSimplifyResult::Simplified(arguments.swap_remove(0)),
            false => ExprSimplifyResult::Original(arguments),
        })
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(args.args.swap_remove(0))
    }
}

struct Casts;

impl VisitorMut for Casts {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Cast { data_type, .. } = expr
            && let Some(named) = parsed(&format!("typed({expr}, '{}')", data_type.to_string().replace('\'', "''")))
        {
            *expr = named;
        }
        ControlFlow::Continue(())
    }
}

struct Calls;

impl VisitorMut for Calls {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr
            && function.over.is_none()
            && let Some(rewritten) = rewritten(function)
        {
            *expr = rewritten;
        }
        ControlFlow::Continue(())
    }
}

/// What a call means, where it is one of another engine's.
fn rewritten(function: &Function) -> Option<Expr> {
    let [name] = function.name.0.as_slice() else { return None };
    let name = name.as_ident().map(folded)?;
    let arguments = arguments(function)?;
    let text: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    let text: Vec<&str> = text.iter().map(String::as_str).collect();
    let is_plain = function.within_group.is_empty() && has_no_clauses(function);
    let sql = match (name.as_str(), text.as_slice()) {
        ("count_if" | "countif", [condition]) if is_plain => {
            filtered("count(*)", &[&format!("({condition})")], function)
        }
        ("every", [condition]) => filtered(&format!("bool_and({condition})"), &[], function),
        ("max_by" | "arg_max" | "argmax", [value, by]) if is_plain => {
            let call = format!("first_value({value} ORDER BY {by} DESC NULLS LAST)");
            filtered(&call, &[&format!("({value}) IS NOT NULL"), &format!("({by}) IS NOT NULL")], function)
        }
        ("min_by" | "arg_min" | "argmin", [value, by]) if is_plain => {
            let call = format!("first_value({value} ORDER BY {by} ASC NULLS LAST)");
            filtered(&call, &[&format!("({value}) IS NOT NULL"), &format!("({by}) IS NOT NULL")], function)
        }
        ("first", [value, by]) if is_plain => {
            filtered(&format!("first_value({value} ORDER BY {by} ASC NULLS LAST)"), &[], function)
        }
        ("last", [value, by]) if is_plain => {
            filtered(&format!("last_value({value} ORDER BY {by} ASC NULLS FIRST)"), &[], function)
        }
        ("percentile_disc", [share]) => percentile_disc(share, function)?,
        ("time_bucket", [width, time]) => {
            let (width, origin) = width_of(arguments[0], width);
            format!("date_bin({width}, {time}, {origin})")
        }
        ("time_bucket", [width, time, origin]) => {
            format!("date_bin({}, {time}, {origin})", width_of(arguments[0], width).0)
        }
        (part, [time]) if is_plain => format!("date_part('{}', {time})", date_part(part)?),
        _ => return None,
    };
    parsed(&sql)
}

fn parsed(sql: &str) -> Option<Expr> {
    Parser::new(&Dialect).try_with_sql(sql).and_then(|mut parser| parser.parse_expr()).ok()
}

/// The plain arguments of a call.
fn arguments(function: &Function) -> Option<Vec<&Expr>> {
    let FunctionArguments::List(list) = &function.args else { return None };
    if list.duplicate_treatment.is_some() {
        return None;
    }
    let argument = |argument| match argument {
        &FunctionArg::Unnamed(FunctionArgExpr::Expr(ref expr)) => Some(expr),
        _ => None,
    };
    list.args.iter().map(argument).collect()
}

fn has_no_clauses(function: &Function) -> bool {
    match &function.args {
        FunctionArguments::List(list) => {
            list.clauses.iter().all(|clause| !matches!(clause, FunctionArgumentClause::OrderBy(_)))
        }
        _ => true,
    }
}

/// A call for the rows of which all conditions hold, and what the written call filters by.
fn filtered(call: &str, conditions: &[&str], function: &Function) -> String {
    let written = function.filter.as_ref().map(|filter| format!("({filter})"));
    let conditions: Vec<&str> = written.as_deref().into_iter().chain(conditions.iter().copied()).collect();
    match conditions.is_empty() {
        true => call.to_owned(),
        false => format!("{call} FILTER (WHERE {})", conditions.join(" AND ")),
    }
}

/// The least value that has a share of the values at or below it: as in PostgreSQL, the one at that place of the values
/// in order.
fn percentile_disc(share: &str, function: &Function) -> Option<String> {
    let share: f64 = share.parse().ok().filter(|share| (0.0..=1.0).contains(share))?;
    let [key] = function.within_group.as_slice() else { return None };
    let value = &key.expr;
    let is_there = format!("({value}) IS NOT NULL");
    let values = filtered(&format!("array_agg({value} ORDER BY {key})"), &[&is_there], function);
    let count = filtered(&format!("count({value})"), &[], function);
    let place = format!("greatest(ceil(CAST('{share}' AS DOUBLE) * CAST({count} AS DOUBLE)), CAST('1' AS DOUBLE))");
    Some(format!("array_element({values}, CAST({place} AS BIGINT))"))
}

/// How wide buckets are, and where one of them begins: weeks on a Monday, months on a first.
fn width_of(argument: &Expr, width: &str) -> (String, &'static str) {
    let lower = width.to_lowercase();
    let is_calendar = ["mon", "quarter", "year", "decade", "centur"].iter().any(|unit| lower.contains(unit));
    let origin = if is_calendar { "TIMESTAMP '2000-01-01 00:00:00'" } else { "TIMESTAMP '2000-01-03 00:00:00'" };
    let is_text = matches!(argument, Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(_), .. }));
    (if is_text { format!("INTERVAL {width}") } else { width.to_owned() }, origin)
}

/// What `date_part` calls a part that has a function of its own elsewhere.
fn date_part(function: &str) -> Option<&'static str> {
    Some(match function {
        "year" => "year",
        "quarter" => "quarter",
        "month" => "month",
        "week" | "weekofyear" => "week",
        "day" | "dayofmonth" => "day",
        "dayofweek" => "dow",
        "isodow" => "isodow",
        "dayofyear" => "doy",
        "hour" => "hour",
        "minute" => "minute",
        "second" => "second",
        "epoch" => "epoch",
        _ => return None,
    })
}

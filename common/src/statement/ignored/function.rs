//! What stands in a function call. Which clauses are heard depends on what the function is.

use datafusion::execution::FunctionRegistry;
use sqlparser::ast::{
    DuplicateTreatment, Function, FunctionArgumentClause, FunctionArgumentList, FunctionArguments, Ident,
    ObjectNamePart, Spanned, WindowType,
};

use super::{Found, none_of, query, refuse, select};

/// What a function is to the planner, which looks for a scalar function first.
enum Kind {
    Scalar,
    Aggregate,
    Window,
}

pub(super) fn check(call: &Function, functions: &dyn FunctionRegistry) -> Found {
    let Function { name, uses_odbc_syntax: _, parameters, args, filter, null_treatment, over, within_group } = call;
    let at = call.span();
    if !matches!(parameters, FunctionArguments::None) {
        return refuse(at, &format!("a second list of arguments of {name}"), "write all arguments in one list");
    }
    let (mut is_distinct, mut is_ordered, mut treats_nulls) = (false, false, null_treatment.is_some());
    match args {
        FunctionArguments::None => {}
        FunctionArguments::Subquery(_) => {
            return refuse(at, &format!("{name}(SELECT …)"), "write the subquery in parentheses of its own");
        }
        FunctionArguments::List(FunctionArgumentList { duplicate_treatment, args: _, clauses }) => {
            is_distinct = matches!(duplicate_treatment, Some(DuplicateTreatment::Distinct));
            for clause in clauses {
                match clause {
                    FunctionArgumentClause::IgnoreOrRespectNulls(_) => treats_nulls = true,
                    FunctionArgumentClause::OrderBy(keys) => {
                        is_ordered = true;
                        query::sort_keys(keys)?;
                    }
                    // The planner refuses these itself.
                    FunctionArgumentClause::Limit(_)
                    | FunctionArgumentClause::OnOverflow(_)
                    | FunctionArgumentClause::Having(_)
                    | FunctionArgumentClause::Separator(_)
                    | FunctionArgumentClause::JsonNullClause(_)
                    | FunctionArgumentClause::JsonReturningClause(_) => {}
                }
            }
        }
    }
    query::sort_keys(within_group)?;
    if let Some(WindowType::WindowSpec(window)) = over {
        select::window(window)?;
    }
    let plain = plain_name(&name.0);
    let clause = |clause: &str| format!("{clause} of {name}");
    match kind(&plain, over.is_some(), functions) {
        Kind::Scalar => none_of(
            at,
            &[
                (filter.is_some(), &clause("FILTER"), "only aggregates take it: write `CASE WHEN … THEN … END`"),
                (over.is_some(), &clause("OVER"), "only aggregates and window functions take it: leave it out"),
                (is_distinct, &clause("DISTINCT"), "only aggregates take it: leave it out"),
                (is_ordered, &clause("ORDER BY"), "only aggregates take it: leave it out"),
                (!within_group.is_empty(), &clause("WITHIN GROUP"), "only aggregates take it: leave it out"),
                (treats_nulls, &clause("IGNORE or RESPECT NULLS"), "leave it out"),
            ],
        ),
        Kind::Aggregate => {
            let in_a_window = over.is_some() && treats_nulls;
            none_of(
                at,
                &[(in_a_window, &clause("IGNORE or RESPECT NULLS"), "leave it out, or write `FILTER (WHERE …)`")],
            )
        }
        Kind::Window => {
            let hears_nulls = ["first_value", "last_value", "nth_value", "lag", "lead"].contains(&plain.as_str());
            let is_of_nothing = match args {
                FunctionArguments::List(list) => list.args.is_empty(),
                _ => true,
            };
            let whole = format!("{name}() OVER");
            none_of(
                at,
                &[
                    // The planner looks at the first argument of these without asking whether there is one.
                    (hears_nulls && is_of_nothing, &whole, "say of what: write `first_value(x) OVER (…)`"),
                    (filter.is_some(), &clause("FILTER"), "filter the rows in a subquery"),
                    (is_distinct, &clause("DISTINCT"), "make the rows distinct in a subquery"),
                    (treats_nulls && !hears_nulls, &clause("IGNORE or RESPECT NULLS"), "leave it out"),
                ],
            )
        }
    }
}

fn kind(name: &str, is_over_a_window: bool, functions: &dyn FunctionRegistry) -> Kind {
    // Not registered, and planned as a scalar function all the same.
    if ["unnest", "unnest_outer"].contains(&name) || functions.udf(name).is_ok() {
        return Kind::Scalar;
    }
    // Over a window these three are window functions, though there are aggregates of their names.
    let is_both = ["first_value", "last_value", "nth_value"].contains(&name);
    match is_over_a_window && (is_both || functions.udaf(name).is_err()) {
        true => Kind::Window,
        false => Kind::Aggregate,
    }
}

fn plain_name(name: &[ObjectNamePart]) -> String {
    match name {
        [ObjectNamePart::Identifier(Ident { value, quote_style: None, span: _ })] => value.to_lowercase(),
        [ObjectNamePart::Identifier(Ident { value, .. })] => value.clone(),
        _ => String::new(),
    }
}

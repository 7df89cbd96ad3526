//! From the aggregates that a view is written with to those that are folded.
//!
//! An aggregate that looks at the order of its input gets the event's position as its last sort keys: then its order is
//! total, and no two layers can see it differently.

use std::sync::Arc;

use datafusion::{
    arrow::{compute::SortOptions, datatypes::DataType},
    common::{
        Column, DFSchema, Result, ScalarValue,
        tree_node::{Transformed, TreeNode},
    },
    functions_aggregate::first_last::first_value_udaf,
    functions_nested::{sort::array_sort_udf, string::array_to_string_udf},
    logical_expr::{
        AggregateUDF, Expr, ExprSchemable, SortExpr, cast,
        expr::{AggregateFunction, NullTreatment},
        lit,
    },
    physical_plan::PhysicalExpr,
};

use super::{
    Refusal,
    ordered::{Ordered, Take},
    plan::refused,
    shape,
};

/// The columns that no two events share.
const POSITION: [&str; 2] = ["_partition", "_offset"];

/// The aggregates of a view while they are being found.
pub(super) struct Aggregates<'a> {
    /// The dataset's columns.
    pub(super) rows: &'a DFSchema,
    /// Makes a physical expression over them.
    pub(super) physical: &'a dyn Fn(&Expr) -> Result<Arc<dyn PhysicalExpr>>,
    /// What is folded.
    pub(super) folded: Vec<Expr>,
}

impl Aggregates<'_> {
    /// What an aggregate of the view is in terms of the folded ones, in the type that it has in the plan.
    pub(super) fn add(&mut self, aggregate: &Expr) -> Result<Result<Expr, Refusal>> {
        let mut refusal = None;
        let result = aggregate.clone().transform_down(|part| {
            let Expr::AggregateFunction(call) = part else { return Ok(Transformed::no(part)) };
            let data_type = Expr::AggregateFunction(call.clone()).get_type(self.rows)?;
            match self.call(call)? {
                Ok((result, found)) if found == data_type => Ok(Transformed::yes(result)),
                Ok((result, _)) => Ok(Transformed::yes(cast(result, data_type))),
                Err(found) => {
                    refusal = Some(found);
                    Ok(Transformed::yes(lit(ScalarValue::Null)))
                }
            }
        });
        let result = result?.data;
        Ok(refusal.map_or(Ok(result), Err))
    }

    /// The result of one aggregate, and its type.
    fn call(&mut self, mut call: AggregateFunction) -> Result<Result<(Expr, DataType), Refusal>> {
        let order = std::mem::take(&mut call.params.order_by);
        let name = call.func.name().to_owned();
        let is_distinct = call.params.distinct;
        let result = match name.as_str() {
            "any_value" => {
                call.func = first_value_udaf();
                call.params.order_by = self.total(Vec::new(), &call)?;
                self.fold(only_if_not_null(call))?
            }
            "first_value" | "last_value" => {
                call.params.distinct = false;
                call.params.order_by = self.total(order, &call)?;
                self.fold(call)?
            }
            "array_agg" | "string_agg" if is_distinct && !is_by_argument(&order, &call, self.rows)? => {
                return Ok(Err(refused(
                    format!("the values of `{name}(DISTINCT …)` can be ordered by themselves only"),
                    format!("remove its `ORDER BY`, or write `{name}` without `DISTINCT`"),
                )));
            }
            "array_agg" if is_distinct => sorted(self.fold(call)?, &order),
            "array_agg" => self.ordered(call, order, Take::All)?,
            "string_agg" => self.string_agg(call, &order)?,
            "nth_value" => match call.params.args.pop() {
                Some(Expr::Literal(ScalarValue::Int64(Some(n)), _)) if n != 0 && !is_distinct => {
                    self.ordered(call, order, Take::Nth(n))?
                }
                _ => {
                    return Ok(Err(refused(
                        "`nth_value` takes the nth of all rows, with `n` a number other than 0",
                        "write `nth_value(x, 2 ORDER BY …)`, or `-2` to count from the end",
                    )));
                }
            },
            "percentile_cont" | "approx_percentile_cont" | "approx_percentile_cont_with_weight" => {
                let is_descending = order.first().is_some_and(|key| !key.asc);
                if is_descending && !from_above(&name, &mut call.params.args) {
                    call.params.order_by = order;
                }
                self.fold(call)?
            }
            _ if is_distinct && ROW_BY_ROW.contains(&name.as_str()) => {
                return Ok(Err(refused(
                    format!("`{name}` takes every row: it has no `DISTINCT`"),
                    "remove `DISTINCT`, or make a view with the values as its group keys and aggregate that",
                )));
            }
            // The others see the same in any order.
            _ => self.fold(call)?,
        };
        Ok(Ok(result))
    }

    /// Folds an aggregate as it is, once if it is there already.
    fn fold(&mut self, call: AggregateFunction) -> Result<(Expr, DataType)> {
        let call = Expr::AggregateFunction(call);
        let data_type = call.get_type(self.rows)?;
        let index = self.folded.iter().position(|folded| *folded == call).unwrap_or_else(|| {
            self.folded.push(call);
            self.folded.len() - 1
        });
        Ok((shape::aggregate(index), data_type))
    }

    /// The first argument of the rows, in order.
    fn ordered(&mut self, call: AggregateFunction, order: Vec<SortExpr>, take: Take) -> Result<(Expr, DataType)> {
        let order = self.total(order, &call)?;
        let mut call = match call.params.null_treatment {
            Some(NullTreatment::IgnoreNulls) => only_if_not_null(call),
            _ => call,
        };
        call.params.args.truncate(1);
        let mut by = Vec::new();
        for SortExpr { expr, asc, nulls_first } in order {
            let found = call.params.args.iter().position(|argument| *argument == expr);
            let index = found.unwrap_or(call.params.args.len());
            if found.is_none() {
                call.params.args.push(expr);
            }
            by.push((index, SortOptions { descending: !asc, nulls_first }));
        }
        call.func = Arc::new(AggregateUDF::from(Ordered::new(by, take)));
        call.params.distinct = false;
        call.params.null_treatment = None;
        self.fold(call)
    }

    /// Texts in order, with something between them; NULL where there are none.
    fn string_agg(&mut self, mut call: AggregateFunction, order: &[SortExpr]) -> Result<(Expr, DataType)> {
        let between = match call.params.args.pop() {
            Some(between) if !matches!(&between, Expr::Literal(value, _) if value.is_null()) => between,
            _ => lit(""),
        };
        call = only_if_not_null(call);
        let (texts, _) = if call.params.distinct {
            call.func = datafusion::functions_aggregate::array_agg::array_agg_udaf();
            sorted(self.fold(call)?, order)
        } else {
            self.ordered(call, order.to_vec(), Take::All)?
        };
        Ok((array_to_string_udf().call(vec![texts, between]), DataType::Utf8))
    }

    /// The order with what makes it total: rows that it does not tell apart are the same to the aggregate.
    fn total(&self, order: Vec<SortExpr>, call: &AggregateFunction) -> Result<Vec<SortExpr>> {
        let mut found: Vec<Arc<dyn PhysicalExpr>> = Vec::new();
        let mut total = Vec::new();
        let position = POSITION.map(|name| Expr::Column(Column::new_unqualified(name)).sort(true, false));
        let value = call.params.args.first().map(self.physical).transpose()?;
        for key in order.into_iter().chain(position) {
            if value.as_ref().is_some_and(|value| found.contains(value)) {
                break;
            }
            let expression = (self.physical)(&key.expr)?;
            if !found.contains(&expression) && !matches!(key.expr, Expr::Literal(..)) {
                found.push(expression);
                total.push(key);
            }
        }
        Ok(total)
    }
}

/// Aggregates that DataFusion computes of all rows whether it says `DISTINCT` or not.
const ROW_BY_ROW: &[&str] = &[
    "approx_median",
    "approx_percentile_cont",
    "approx_percentile_cont_with_weight",
    "corr",
    "covar_pop",
    "covar_samp",
    "regr_avgx",
    "regr_avgy",
    "regr_count",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
    "stddev",
    "stddev_pop",
    "var",
    "var_pop",
];

fn only_if_not_null(mut call: AggregateFunction) -> AggregateFunction {
    let Some(value) = call.params.args.first() else { return call };
    let is_there = value.clone().is_not_null();
    call.params.filter = Some(Box::new(match call.params.filter.take() {
        Some(filter) => filter.and(is_there),
        None => is_there,
    }));
    call.params.null_treatment = None;
    call
}

/// Whether an order is none, or by the aggregate's own argument.
fn is_by_argument(order: &[SortExpr], call: &AggregateFunction, rows: &DFSchema) -> Result<bool> {
    let (Some(first), Some(argument)) = (order.first(), call.params.args.first()) else { return Ok(true) };
    let is_text = |data_type: DataType| matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    Ok(match argument {
        Expr::Cast(inner) if *inner.expr == first.expr => is_text(inner.expr.get_type(rows)?),
        argument => *argument == first.expr,
    })
}

/// An array's elements in order: by default from the least, NULL at the end.
fn sorted((array, data_type): (Expr, DataType), order: &[SortExpr]) -> (Expr, DataType) {
    let (asc, nulls_first) = order.first().map_or((true, false), |key| (key.asc, key.nulls_first));
    let direction = if asc { "ASC" } else { "DESC" };
    let nulls = if nulls_first { "NULLS FIRST" } else { "NULLS LAST" };
    (array_sort_udf().call(vec![array, lit(direction), lit(nulls)]), data_type)
}

/// Counts a percentile's share from the other end; `false` where it is not a number yet.
fn from_above(name: &str, arguments: &mut [Expr]) -> bool {
    let place = if name == "approx_percentile_cont_with_weight" { 2 } else { 1 };
    match arguments.get_mut(place) {
        Some(Expr::Literal(ScalarValue::Float64(Some(share)), _)) => {
            *share = 1.0 - *share;
            true
        }
        _ => false,
    }
}

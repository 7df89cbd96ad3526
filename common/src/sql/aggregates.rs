//! Aggregates whose answer DataFusion leaves to the order or the width of its registers. Each wraps DataFusion's own
//! accumulators, fed with numbers that they treat rightly.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::DataType,
    common::plan_err,
    error::Result,
    functions_aggregate::{min_max, percentile_cont, sum},
    logical_expr::AggregateUDF,
};

mod extreme;
mod percentile;
mod wide;

/// The widest decimals that a sum of any number of events holds in its 38 digits.
const SUMMED: u8 = 28;

/// What stands in for an aggregate of DataFusion's over arguments of these types; `None` where it is right as it is.
pub(super) fn instead(
    function: &AggregateUDF,
    arguments: &[DataType],
    distinct: bool,
) -> Result<Option<Arc<AggregateUDF>>> {
    let of = |other: &Arc<AggregateUDF>| function.inner().type_id() == other.inner().type_id();
    Ok(match arguments {
        [DataType::Float32 | DataType::Float64] if of(&min_max::min_udaf()) => Some(extreme::of(min_max::min_udaf())),
        [DataType::Float32 | DataType::Float64] if of(&min_max::max_udaf()) => Some(extreme::of(min_max::max_udaf())),
        [DataType::Decimal128(precision, scale)] if *precision > SUMMED && of(&sum::sum_udaf()) => {
            if distinct {
                return plan_err!(
                    "`sum(DISTINCT …)` of DECIMAL({precision},{scale}) can leave 38 digits: cast it to DECIMAL({SUMMED},{scale}) if it fits"
                );
            }
            Some(wide::sum())
        }
        [_, _] if of(&percentile_cont::percentile_cont_udaf()) && !distinct => Some(percentile::cont()),
        _ => None,
    })
}

/// The type that an integer is summed as; `None` where its own sum is wide enough.
pub(super) fn summed_as(function: &AggregateUDF, argument: &DataType) -> Option<DataType> {
    let is_sum = function.name() == "sum";
    (is_sum && matches!(argument, DataType::Int64 | DataType::UInt64)).then_some(DataType::Decimal128(SUMMED, 0))
}

//! Casts that round as SQL does: to the nearest, where Arrow cuts.

use datafusion::{
    arrow::{
        array::{Array, AsArray},
        datatypes::{DataType, Float32Type, Float64Type},
    },
    common::ScalarValue,
    error::Result,
    logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, cast},
};
use std::sync::Arc;

use super::arithmetic::of_no_rows;

/// What to cast to `to` instead of `expr`, which is of type `from`; `None` where the cast rounds by itself or not at all.
pub(super) fn rounded(expr: &Expr, from: &DataType, to: &DataType) -> Option<Expr> {
    if !to.is_integer() {
        return None;
    }
    match from {
        DataType::Float32 | DataType::Float64 => {
            let rounded = Rounded { signature: Signature::any(1, Volatility::Immutable) };
            Some(ScalarUDF::new_from_impl(rounded).call(vec![expr.clone()]))
        }
        DataType::Decimal128(precision, scale) if *scale > 0 => {
            let digits = precision.saturating_sub(scale.unsigned_abs()).saturating_add(1).min(38);
            Some(cast(expr.clone(), DataType::Decimal128(digits, 0)))
        }
        DataType::Decimal256(precision, scale) if *scale > 0 => {
            let digits = precision.saturating_sub(scale.unsigned_abs()).saturating_add(1).min(76);
            Some(cast(expr.clone(), DataType::Decimal256(digits, 0)))
        }
        _ => None,
    }
}

/// A cast of what reads nothing, which is computed where there is a row for it: DataFusion refuses a plan with one that
/// fails, though nobody may need its value.
pub(super) fn late(expr: Expr, to: &DataType) -> Expr {
    let late = Late { to: to.clone(), signature: Signature::any(1, Volatility::Immutable) };
    ScalarUDF::new_from_impl(late).call(vec![expr])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Late {
    to: DataType,
    signature: Signature,
}

impl ScalarUDFImpl for Late {
    fn name(&self) -> &'static str {
        "late_cast"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.to.clone())
    }

    fn invoke_with_args(&self, mut call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match of_no_rows(&call)? {
            Some(nothing) => Ok(nothing),
            None => call.args.swap_remove(0).cast_to(&self.to, None),
        }
    }
}

/// Halves go to the even neighbour, as PostgreSQL rounds them.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Rounded {
    signature: Signature,
}

impl ScalarUDFImpl for Rounded {
    fn name(&self) -> &'static str {
        "rounded"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }

    fn invoke_with_args(&self, mut call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(match call.args.swap_remove(0) {
            ColumnarValue::Array(array) => ColumnarValue::Array(match array.data_type() {
                DataType::Float32 => {
                    Arc::new(array.as_primitive::<Float32Type>().unary::<_, Float32Type>(f32::round_ties_even))
                }
                DataType::Float64 => {
                    Arc::new(array.as_primitive::<Float64Type>().unary::<_, Float64Type>(f64::round_ties_even))
                }
                _ => array,
            }),
            ColumnarValue::Scalar(ScalarValue::Float32(x)) => {
                ColumnarValue::Scalar(ScalarValue::Float32(x.map(f32::round_ties_even)))
            }
            ColumnarValue::Scalar(ScalarValue::Float64(x)) => {
                ColumnarValue::Scalar(ScalarValue::Float64(x.map(f64::round_ties_even)))
            }
            other => other,
        })
    }
}

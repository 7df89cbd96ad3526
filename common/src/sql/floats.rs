//! Floating-point numbers with one zero and one NaN.
//!
//! Zeros of both signs are equal in SQL, and so are all NaNs, which are greater than everything else; Arrow compares
//! bits. With one zero and one NaN left, the order of bits is the order of SQL.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray},
        datatypes::{DataType, Float32Type, Float64Type},
    },
    common::ScalarValue,
    error::Result,
    logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};

/// The one that stands for all numbers equal to `x`.
pub fn canonical_f64(x: f64) -> f64 {
    if x.is_nan() { f64::NAN } else { x + 0.0 }
}

/// The one that stands for all numbers equal to `x`.
pub fn canonical_f32(x: f32) -> f32 {
    if x.is_nan() { f32::NAN } else { x + 0.0 }
}

/// `expr`, of a floating-point type, with one zero and one NaN.
pub(super) fn canonical(expr: Expr) -> Expr {
    if let Expr::Literal(value, metadata) = expr {
        return Expr::Literal(canonical_scalar(value), metadata);
    }
    ScalarUDF::new_from_impl(Canonical { signature: Signature::any(1, Volatility::Immutable) }).call(vec![expr])
}

/// Whether `expr` is the result of [`canonical`].
pub(super) fn is_canonical(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(..) => true,
        Expr::Alias(alias) => is_canonical(&alias.expr),
        Expr::ScalarFunction(call) => call.func.inner().downcast_ref::<Canonical>().is_some(),
        _ => false,
    }
}

/// A scalar with one zero and one NaN, if it is a floating-point number.
pub(super) fn canonical_scalar(value: ScalarValue) -> ScalarValue {
    match value {
        ScalarValue::Float32(Some(x)) => ScalarValue::Float32(Some(canonical_f32(x))),
        ScalarValue::Float64(Some(x)) => ScalarValue::Float64(Some(canonical_f64(x))),
        other => other,
    }
}

/// An array with one zero and one NaN, if it is of floating-point numbers.
pub(super) fn canonical_array(array: &ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Float32 => Arc::new(array.as_primitive::<Float32Type>().unary::<_, Float32Type>(canonical_f32)),
        DataType::Float64 => Arc::new(array.as_primitive::<Float64Type>().unary::<_, Float64Type>(canonical_f64)),
        _ => array.clone(),
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Canonical {
    signature: Signature,
}

impl ScalarUDFImpl for Canonical {
    fn name(&self) -> &'static str {
        "canonical"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }

    fn invoke_with_args(&self, mut call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(match call.args.swap_remove(0) {
            ColumnarValue::Array(array) => ColumnarValue::Array(canonical_array(&array)),
            ColumnarValue::Scalar(scalar) => ColumnarValue::Scalar(canonical_scalar(scalar)),
        })
    }
}

//! Arithmetic whose result fits its type, or is an error: DataFusion's wraps.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray, Datum},
        compute::kernels::numeric::{add, div, mul, neg, rem, sub},
        datatypes::{DataType, Decimal128Type, Decimal256Type},
        error::ArrowError,
    },
    common::ScalarValue,
    error::{DataFusionError, Result},
    logical_expr::{
        ColumnarValue, Expr, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        binary::BinaryTypeCoercer,
    },
    physical_expr_common::datum::apply,
};

/// Whether values of a type leave it silently.
pub(super) fn wraps(data_type: &DataType) -> bool {
    data_type.is_integer()
        || matches!(
            data_type,
            DataType::Decimal32(..)
                | DataType::Decimal64(..)
                | DataType::Decimal128(..)
                | DataType::Decimal256(..)
                | DataType::Duration(_)
                | DataType::Interval(_)
        )
}

/// Whether an expression is what [`checked`] makes: then its type is one that [`wraps`].
pub(super) fn is_checked(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if call.func.inner().downcast_ref::<Checked>().is_some())
}

/// `left op right`, of operands whose types fit each other.
pub(super) fn checked(left: Expr, op: Operator, right: Expr) -> Expr {
    ScalarUDF::new_from_impl(Checked { op, signature: Signature::any(2, Volatility::Immutable) })
        .call(vec![left, right])
}

/// `-expr`.
pub(super) fn negated(expr: Expr) -> Expr {
    ScalarUDF::new_from_impl(Negated { signature: Signature::any(1, Volatility::Immutable) }).call(vec![expr])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    op: Operator,
    signature: Signature,
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &'static str {
        match self.op {
            Operator::Plus => "checked_add",
            Operator::Minus => "checked_subtract",
            Operator::Multiply => "checked_multiply",
            Operator::Divide => "checked_divide",
            _ => "checked_modulo",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        BinaryTypeCoercer::new(&types[0], &self.op, &types[1]).get_result_type()
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let op: fn(&dyn Datum, &dyn Datum) -> Result<ArrayRef, ArrowError> = match self.op {
            Operator::Plus => add,
            Operator::Minus => sub,
            Operator::Multiply => mul,
            Operator::Divide => div,
            Operator::Modulo => rem,
            other => return Err(DataFusionError::Internal(format!("`{other}` is no arithmetic"))),
        };
        if let Some(nothing) = of_no_rows(&call)? {
            return Ok(nothing);
        }
        let result = apply(&call.args[0], &call.args[1], op)?;
        fits(&result)?;
        Ok(result)
    }
}

/// The result of a call for no rows, for which nothing is computed and nothing fails.
pub(super) fn of_no_rows(call: &ScalarFunctionArgs) -> Result<Option<ColumnarValue>> {
    match call.number_rows {
        0 => Ok(Some(ColumnarValue::Scalar(ScalarValue::try_from(call.return_type())?))),
        _ => Ok(None),
    }
}

/// Arrow lets a decimal have more digits than its type, as long as its bits hold them.
fn fits(result: &ColumnarValue) -> Result<()> {
    match (result, result.data_type()) {
        (ColumnarValue::Array(array), DataType::Decimal128(precision @ 38, _)) => {
            array.as_primitive::<Decimal128Type>().validate_decimal_precision(precision)?;
        }
        (ColumnarValue::Array(array), DataType::Decimal256(precision @ 76, _)) => {
            array.as_primitive::<Decimal256Type>().validate_decimal_precision(precision)?;
        }
        (ColumnarValue::Scalar(scalar), DataType::Decimal128(38, _) | DataType::Decimal256(76, _)) => {
            fits(&ColumnarValue::Array(scalar.to_array()?))?;
        }
        _ => {}
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Negated {
    signature: Signature,
}

impl ScalarUDFImpl for Negated {
    fn name(&self) -> &'static str {
        "checked_negate"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if let Some(nothing) = of_no_rows(&call)? {
            return Ok(nothing);
        }
        let is_scalar = matches!(call.args[0], ColumnarValue::Scalar(_));
        let array = call.args[0].to_array(if is_scalar { 1 } else { call.number_rows })?;
        let negated: ArrayRef = neg(&array)?;
        match is_scalar {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&negated, 0)?)),
            false => Ok(ColumnarValue::Array(Arc::clone(&negated))),
        }
    }
}

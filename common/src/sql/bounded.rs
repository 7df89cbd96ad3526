//! Values of a bounded size: what makes a large value of small ones is refused before it takes memory.
//!
//! DataFusion's functions allocate what they are asked for, and a process that asks for more than there is ends. So each
//! function whose result may be larger than its arguments has its size computed beforehand ([`growth`]), for constants
//! and columns, in views and queries. A large constant is made once for each row of a batch: it is counted too.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray},
        compute::kernels::concat_elements::concat_elements_dyn,
        datatypes::{DataType, FieldRef, Int64Type},
    },
    common::{
        DFSchema, ExprSchema, exec_err, plan_err,
        tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion},
    },
    config::ConfigOptions,
    error::{DataFusionError, Result},
    logical_expr::{
        ColumnarValue, Documentation, Expr, ExpressionPlacement, LogicalPlan, Operator, ReturnFieldArgs,
        ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, StructFieldMapping, Volatility,
        binary::BinaryTypeCoercer,
        interval_arithmetic::Interval,
        preimage::PreimageResult,
        simplify::{ExprSimplifyResult, SimplifyContext},
        sort_properties::{ExprProperties, SortProperties},
    },
    scalar::ScalarValue,
};

use super::{Stop, arithmetic::of_no_rows, meaning::rewrite};
use crate::fold::panicked;

mod growth;

use growth::Growth;

/// The largest value that a function makes, in bytes.
pub(super) const VALUE_BYTES: u64 = 64 << 20;
/// What a function makes for one batch of rows at most, in bytes. No less than one value: then what one row gets does
/// not depend on how rows are batched, where batches are halved.
const BATCH_BYTES: u64 = 512 << 20;
/// Smaller constants are not counted: for a whole batch of 8192 rows they come to no more than one value.
const CONSTANT_BYTES: usize = 8 << 10;
/// The widest type of values that all have the same size, which nulls have too.
const WIDTH_BYTES: u64 = 4 << 10;

/// Functions that DataFusion looks for by what they are.
const LOOKED_FOR: &[&str] = &["get_field", "named_struct", "struct"];

/// A function that refuses to make too large values, where `function` may make any; and whose errors are its arguments'.
pub(super) fn bounded(function: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    if function.inner().is::<Bounded>() || LOOKED_FOR.contains(&function.name()) {
        return function;
    }
    let growth = Growth::of(function.name());
    Arc::new(ScalarUDF::new_from_impl(Bounded { inner: function, growth }))
}

/// Whether a function's results may be larger than its arguments, and are kept from it.
#[cfg(test)]
pub(super) fn may_grow(function: &ScalarUDF) -> bool {
    function.inner().downcast_ref::<Bounded>().is_some_and(|function| function.growth.is_some())
}

/// An expression whose functions are [`bounded`], wherever the planner has taken them from.
pub(super) fn bounded_call(expr: Expr) -> Transformed<Expr> {
    match expr {
        Expr::ScalarFunction(mut call) if Growth::of(call.name()).is_some() => {
            call.func = bounded(call.func);
            Transformed::yes(Expr::ScalarFunction(call))
        }
        other => Transformed::no(other),
    }
}

/// `left || right`, of texts whose types fit each other.
pub(super) fn pasted(left: Expr, right: Expr) -> Expr {
    ScalarUDF::new_from_impl(Pasted { signature: Signature::any(2, Volatility::Immutable) }).call(vec![left, right])
}

/// A plan whose large constants are counted where they are made for many rows. It is for plans that are optimized: who
/// folds constants would fold these again.
pub fn counted(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| match is_of_rows(&node) && has_large_constants(&node)? {
        true => rewrite(node, &|expr, _: &DFSchema| counted_constants(expr)),
        false => Ok(Transformed::no(node)),
    })
    .data()
}

/// The same for one expression.
pub(crate) fn counted_constants(expr: Expr) -> Result<Transformed<Expr>> {
    expr.transform_down(|part| match part {
        // What a list has many of is computed for all of them at once.
        Expr::Lambda(mut lambda) => {
            lambda.body = Box::new(lambda.body.transform_up(|part| Ok(count(part, 0))).data()?);
            Ok(Transformed::new(Expr::Lambda(lambda), true, TreeNodeRecursion::Jump))
        }
        part => Ok(count(part, CONSTANT_BYTES)),
    })
}

/// Whether a node computes its expressions for rows. Tables compare constants with columns, and make none of them.
fn is_of_rows(node: &LogicalPlan) -> bool {
    use LogicalPlan as P;
    matches!(node, P::Projection(_) | P::Filter(_) | P::Aggregate(_) | P::Window(_) | P::Sort(_) | P::Join(_))
}

fn has_large_constants(node: &LogicalPlan) -> Result<bool> {
    let mut has = false;
    node.apply_expressions(|expr| {
        has |= expr.exists(|part| Ok(matches!(part, Expr::Lambda(_)) || is_large(part, CONSTANT_BYTES)))?;
        Ok(if has { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(has)
}

fn is_large(expr: &Expr, above: usize) -> bool {
    matches!(expr, Expr::Literal(value, _) if !value.data_type().is_primitive() && value.size() > above)
}

fn count(expr: Expr, above: usize) -> Transformed<Expr> {
    if !is_large(&expr, above) {
        return Transformed::no(expr);
    }
    let counted = ScalarUDF::new_from_impl(Counted { signature: Signature::any(1, Volatility::Immutable) });
    Transformed::new(counted.call(vec![expr]), true, TreeNodeRecursion::Jump)
}

/// Refuses what `rows` values of `bytes` each come to, or one of them.
fn fits_batch(name: &str, bytes: u64) -> Result<()> {
    match bytes > BATCH_BYTES {
        true => exec_err!(
            "`{name}` would make {bytes} bytes for one batch of rows, and makes at most {BATCH_BYTES}: \
             make shorter values, or fewer"
        ),
        false => Ok(()),
    }
}

/// Whether all arguments of all rows come to no more than one value may have: then no row has to be looked at.
fn fit_together(columns: &[(ArrayRef, bool)], rows: usize) -> bool {
    growth::at_most(columns, rows).is_some_and(|bytes| bytes <= VALUE_BYTES)
}

fn fits_value(name: &str, bytes: u64) -> Result<()> {
    match bytes > VALUE_BYTES {
        true if bytes == u64::MAX => {
            exec_err!(
                "`{name}` would make a value without end, and makes at most {VALUE_BYTES} bytes: make a shorter one"
            )
        }
        true => {
            exec_err!(
                "`{name}` would make a value of {bytes} bytes, and makes at most {VALUE_BYTES}: make a shorter one"
            )
        }
        false => Ok(()),
    }
}

/// How many bytes each value of a type takes, also where it is NULL; 0 where that is no matter of the type.
fn width(data_type: &DataType) -> u64 {
    match data_type {
        DataType::FixedSizeBinary(width) => u64::try_from(*width).unwrap_or_default(),
        DataType::FixedSizeList(element, length) => {
            u64::try_from(*length).unwrap_or_default().saturating_mul(width(element.data_type()).max(8))
        }
        DataType::Struct(fields) => fields.iter().map(|field| width(field.data_type())).fold(0, u64::saturating_add),
        DataType::List(element) | DataType::LargeList(element) | DataType::Map(element, _) => {
            width(element.data_type())
        }
        _ => 0,
    }
}

/// An argument, and the least number that a function can count with there: what is below means the same to it, where it
/// does not panic, as it makes room for more than there can be, or counts on.
fn least(function: &str) -> Option<(usize, i64)> {
    match function {
        "lpad" | "rpad" => Some((1, 0)),
        "array_position" => Some((2, -i64::MAX)),
        _ => None,
    }
}

fn raise(numbers: &mut ColumnarValue, least: i64) {
    match numbers {
        ColumnarValue::Scalar(ScalarValue::Int64(Some(number))) => *number = (*number).max(least),
        ColumnarValue::Scalar(_) => {}
        ColumnarValue::Array(array) => {
            if let Some(numbers) = array.as_primitive_opt::<Int64Type>() {
                *array = Arc::new(numbers.unary::<_, Int64Type>(|number| number.max(least)));
            }
        }
    }
}

/// A function that is only called for what comes to a bounded size. What it calls its own defect is a matter of what it is
/// called with: it knows nothing else.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    growth: Option<Growth>,
}

impl Bounded {
    fn told(&self, error: DataFusionError, as_error: fn(String) -> DataFusionError) -> DataFusionError {
        let reason = match error.find_root() {
            DataFusionError::Internal(reason) => reason.clone(),
            DataFusionError::External(reason) => reason.to_string(),
            _ => return error,
        };
        as_error(format!("`{}` cannot be computed of these arguments: {reason}", self.inner.name()))
    }

    fn check(&self, growth: Growth, call: &ScalarFunctionArgs) -> Result<()> {
        let name = self.inner.name();
        let columns: Result<Vec<(ArrayRef, bool)>> = call
            .args
            .iter()
            .map(|argument| match argument {
                ColumnarValue::Array(array) => Ok((array.clone(), false)),
                ColumnarValue::Scalar(scalar) => Ok((scalar.to_array()?, true)),
            })
            .collect();
        let columns = columns?;
        if growth == Growth::Sum && fit_together(&columns, call.number_rows) {
            return Ok(());
        }
        let constant = columns.iter().all(|(_, constant)| *constant);
        let mut total: u64 = 0;
        for row in 0..if constant { 1 } else { call.number_rows } {
            let bytes = growth.bytes(&growth::Row { columns: &columns, row })?;
            fits_value(name, bytes)?;
            total = total.saturating_add(bytes);
        }
        // So constants are folded: those that are not are made anew for each batch, one after the other.
        if constant
            && call.number_rows == 1
            && let Some(stop) = call.config_options.extensions.get::<Stop>()
        {
            let all = stop.constant(total);
            if all > BATCH_BYTES {
                return exec_err!(
                    "the constants of the query come to {all} bytes with that of `{name}`, and it makes at most \
                     {BATCH_BYTES}: make shorter ones, or fewer"
                );
            }
        }
        fits_batch(name, if constant { total.saturating_mul(call.number_rows as u64) } else { total })
    }
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.inner.schema_name(args)
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types).map_err(|error| self.told(error, DataFusionError::Plan))
    }

    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        let inner = Arc::new(self.inner.inner().with_updated_config(config)?);
        Some(ScalarUDF::new_from_impl(Self { inner, growth: self.growth }))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let field = self.inner.return_field_from_args(args);
        let field = field.map_err(|error| self.told(error, DataFusionError::Plan))?;
        if self.growth.is_none() {
            return Ok(field);
        }
        let (name, of, bytes) = (self.inner.name(), field.data_type(), width(field.data_type()));
        match bytes > WIDTH_BYTES {
            true => plan_err!(
                "`{name}` would make values of type `{of}`, {bytes} bytes each, and makes at most {WIDTH_BYTES} of such a \
                 type: choose a type whose values have sizes of their own"
            ),
            false => Ok(field),
        }
    }

    fn is_nullable(&self, args: &[Expr], schema: &dyn ExprSchema) -> bool {
        #[allow(deprecated, reason = "what wraps a function says what it says")]
        self.inner.inner().is_nullable(args, schema)
    }

    fn is_strict(&self) -> bool {
        self.inner.inner().is_strict()
    }

    fn invoke_with_args(&self, mut call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if let Some(stop) = call.config_options.extensions.get::<Stop>() {
            stop.check()?;
        }
        if let Some(growth) = self.growth.filter(|growth| *growth != Growth::Typed) {
            if let Some(nothing) = of_no_rows(&call)? {
                return Ok(nothing);
            }
            self.check(growth, &call)?;
        }
        if let Some((argument, least)) = least(self.inner.name())
            && let Some(numbers) = call.args.get_mut(argument)
        {
            raise(numbers, least);
        }
        let called = catch_unwind(AssertUnwindSafe(|| self.inner.invoke_with_args(call)));
        let result = called.unwrap_or_else(|panic| Err(panicked(panic.as_ref())));
        result.map_err(|error| self.told(error, DataFusionError::Execution))
    }

    /// What a call is simplified to may be calls again.
    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        // Merging constants makes one as large as all of them.
        let constants = args.iter().map(|arg| if let Expr::Literal(value, _) = arg { value.size() } else { 0 });
        if constants.sum::<usize>() as u64 > VALUE_BYTES {
            return Ok(ExprSimplifyResult::Original(args));
        }
        let simplified = self.inner.simplify(args, info);
        Ok(match simplified.map_err(|error| self.told(error, DataFusionError::Plan))? {
            ExprSimplifyResult::Simplified(expr) => {
                ExprSimplifyResult::Simplified(expr.transform_up(|part| Ok(bounded_call(part))).data()?)
            }
            original => original,
        })
    }

    fn preimage(&self, args: &[Expr], literal: &Expr, info: &SimplifyContext) -> Result<PreimageResult> {
        self.inner.inner().preimage(args, literal, info)
    }

    fn short_circuits(&self) -> bool {
        self.inner.short_circuits()
    }

    fn conditional_arguments<'a>(&self, args: &'a [Expr]) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.inner.conditional_arguments(args)
    }

    fn evaluate_bounds(&self, input: &[&Interval]) -> Result<Interval> {
        self.inner.evaluate_bounds(input)
    }

    fn propagate_constraints(&self, interval: &Interval, inputs: &[&Interval]) -> Result<Option<Vec<Interval>>> {
        self.inner.propagate_constraints(interval, inputs)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.inner.output_ordering(inputs)
    }

    fn preserves_lex_ordering(&self, inputs: &[ExprProperties]) -> Result<bool> {
        self.inner.preserves_lex_ordering(inputs)
    }

    fn strictly_order_preserving(&self, inputs: &[ExprProperties]) -> Result<bool> {
        self.inner.inner().strictly_order_preserving(inputs)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types).map_err(|error| self.told(error, DataFusionError::Plan))
    }

    fn struct_field_mapping(&self, literals: &[Option<ScalarValue>]) -> Option<StructFieldMapping> {
        self.inner.inner().struct_field_mapping(literals)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn placement(&self, args: &[ExpressionPlacement]) -> ExpressionPlacement {
        self.inner.inner().placement(args)
    }
}

/// `||`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Pasted {
    signature: Signature,
}

impl ScalarUDFImpl for Pasted {
    fn name(&self) -> &'static str {
        "checked_paste"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        BinaryTypeCoercer::new(&types[0], &Operator::StringConcat, &types[1]).get_result_type()
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if let Some(nothing) = of_no_rows(&call)? {
            return Ok(nothing);
        }
        let constant = call.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let arrays = match constant {
            true => call.args.iter().map(|argument| argument.to_array(1)).collect::<Result<Vec<ArrayRef>>>()?,
            false => {
                // A constant is made for each row here.
                for argument in &call.args {
                    if let ColumnarValue::Scalar(scalar) = argument {
                        fits_batch("||", (scalar.size() as u64).saturating_mul(call.number_rows as u64))?;
                    }
                }
                ColumnarValue::values_to_arrays(&call.args)?
            }
        };
        let columns: Vec<(ArrayRef, bool)> = arrays.into_iter().map(|array| (array, false)).collect();
        let rows = columns[0].0.len();
        if !fit_together(&columns, rows) {
            let mut total: u64 = 0;
            for row in 0..rows {
                let bytes = Growth::Sum.bytes(&growth::Row { columns: &columns, row })?;
                fits_value("||", bytes)?;
                total = total.saturating_add(bytes);
            }
            fits_batch("||", total)?;
        }
        let pasted = concat_elements_dyn(&columns[0].0, &columns[1].0)?;
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&pasted, 0)?),
            false => ColumnarValue::Array(pasted),
        })
    }
}

/// A constant that is there once for each row of a batch.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Counted {
    signature: Signature,
}

impl ScalarUDFImpl for Counted {
    fn name(&self) -> &'static str {
        "counted"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }

    fn invoke_with_args(&self, mut call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let value = call.args.swap_remove(0);
        if let ColumnarValue::Scalar(scalar) = &value {
            fits_batch("a constant", (scalar.size() as u64).saturating_mul(call.number_rows as u64))?;
        }
        Ok(value)
    }
}

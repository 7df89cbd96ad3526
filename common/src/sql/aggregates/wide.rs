//! `sum` of decimals that may leave the 38 digits of their type: then it is an error, and never another number.
//!
//! Each number is two: whole multiples of 10¹⁹ and the rest. Sums of either cannot leave their registers, whatever the
//! number of events, and are put together at the end.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray, BooleanArray, Decimal128Array},
        datatypes::{DataType, Decimal128Type, Field, FieldRef},
        error::ArrowError,
    },
    common::ScalarValue,
    error::Result,
    functions_aggregate::sum::sum_udaf,
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature,
        function::{AccumulatorArgs, StateFieldsArgs},
    },
};

const UNIT: i128 = 10_i128.pow(19);
const MAX: i128 = 10_i128.pow(38) - 1;

pub(super) fn sum() -> Arc<AggregateUDF> {
    let inner = sum_udaf();
    let signature = inner.signature().clone();
    Arc::new(AggregateUDF::new_from_impl(Sum { inner, signature }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Sum {
    inner: Arc<AggregateUDF>,
    signature: Signature,
}

fn half() -> DataType {
    DataType::Decimal128(38, 0)
}

fn scale(data_type: &DataType) -> i8 {
    match data_type {
        DataType::Decimal128(_, scale) => *scale,
        _ => 0,
    }
}

/// `args` for one half.
fn within<'a>(args: &AccumulatorArgs<'a>, fields: &'a [FieldRef]) -> AccumulatorArgs<'a> {
    AccumulatorArgs { return_field: fields[0].clone(), expr_fields: fields, ..args.clone() }
}

fn fields() -> [FieldRef; 1] {
    [Arc::new(Field::new("half", half(), true))]
}

impl AggregateUDFImpl for Sum {
    fn name(&self) -> &'static str {
        "sum"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(types.to_vec())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Decimal128(38, scale(&types[0])))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let field = |part: &str| Arc::new(Field::new(format!("{}[{part}]", args.name), half(), true));
        Ok(vec![field("high"), field("low")])
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let fields = fields();
        let new = || self.inner.accumulator(within(&args, &fields));
        Ok(Box::new(One { high: new()?, low: new()?, scale: scale(args.return_type()) }))
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        let fields = fields();
        let new = || self.inner.create_groups_accumulator(within(&args, &fields));
        Ok(Box::new(Many { high: new()?, low: new()?, scale: scale(args.return_type()) }))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let fields = fields();
        let new = || self.inner.create_sliding_accumulator(within(&args, &fields));
        Ok(Box::new(One { high: new()?, low: new()?, scale: scale(args.return_type()) }))
    }
}

fn split(array: &ArrayRef) -> Result<(ArrayRef, ArrayRef)> {
    let numbers = array.as_primitive::<Decimal128Type>();
    let part = |of: fn(i128) -> i128| -> Result<ArrayRef> {
        let part: Decimal128Array = numbers.unary::<_, Decimal128Type>(of);
        Ok(Arc::new(part.with_precision_and_scale(38, 0)?))
    };
    Ok((part(|number| number / UNIT)?, part(|number| number % UNIT)?))
}

fn joined(high: i128, low: i128) -> Result<i128, ArrowError> {
    let sum = high.checked_mul(UNIT).and_then(|high| high.checked_add(low));
    sum.filter(|sum| sum.unsigned_abs() <= MAX.unsigned_abs()).ok_or_else(|| {
        ArrowError::ArithmeticOverflow(format!("a sum has more than 38 digits: {high} times 10^19 and {low}"))
    })
}

#[derive(Debug)]
struct One {
    high: Box<dyn Accumulator>,
    low: Box<dyn Accumulator>,
    scale: i8,
}

impl Accumulator for One {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (high, low) = split(&values[0])?;
        self.high.update_batch(&[high])?;
        self.low.update_batch(&[low])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let sum = match (self.high.evaluate()?, self.low.evaluate()?) {
            (ScalarValue::Decimal128(Some(high), ..), ScalarValue::Decimal128(Some(low), ..)) => {
                Some(joined(high, low)?)
            }
            _ => None,
        };
        Ok(ScalarValue::Decimal128(sum, 38, self.scale))
    }

    fn size(&self) -> usize {
        self.high.size() + self.low.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(self.high.state()?.into_iter().chain(self.low.state()?).collect())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.high.merge_batch(&states[..1])?;
        self.low.merge_batch(&states[1..])
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (high, low) = split(&values[0])?;
        self.high.retract_batch(&[high])?;
        self.low.retract_batch(&[low])
    }

    fn supports_retract_batch(&self) -> bool {
        self.high.supports_retract_batch()
    }
}

struct Many {
    high: Box<dyn GroupsAccumulator>,
    low: Box<dyn GroupsAccumulator>,
    scale: i8,
}

impl GroupsAccumulator for Many {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        let (high, low) = split(&values[0])?;
        self.high.update_batch(&[high], groups, filter, total)?;
        self.low.update_batch(&[low], groups, filter, total)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let (high, low) = (self.high.evaluate(emit_to)?, self.low.evaluate(emit_to)?);
        let (high, low) = (high.as_primitive::<Decimal128Type>(), low.as_primitive::<Decimal128Type>());
        let sums: Decimal128Array = datafusion::arrow::compute::try_binary(high, low, joined)?;
        Ok(Arc::new(sums.with_precision_and_scale(38, self.scale)?))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(self.high.state(emit_to)?.into_iter().chain(self.low.state(emit_to)?).collect())
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.high.merge_batch(&states[..1], groups, total)?;
        self.low.merge_batch(&states[1..], groups, total)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let (high, low) = split(&values[0])?;
        let high = self.high.convert_to_state(&[high], filter)?;
        Ok(high.into_iter().chain(self.low.convert_to_state(&[low], filter)?).collect())
    }

    fn size(&self) -> usize {
        self.high.size() + self.low.size()
    }
}

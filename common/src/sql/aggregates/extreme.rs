//! `min` and `max` of floating-point numbers, in the order of SQL: NaN is the greatest.
//!
//! The numbers are compared as integers whose order is theirs. States are the numbers themselves.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, BooleanArray},
        datatypes::{DataType, Field, FieldRef, Float32Type, Float64Type, Int32Type, Int64Type},
    },
    common::ScalarValue,
    error::Result,
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, function::AccumulatorArgs,
    },
};

use super::super::floats::{canonical_f32, canonical_f64};

/// DataFusion's `min` or `max`, for floating-point numbers.
pub(super) fn of(inner: Arc<AggregateUDF>) -> Arc<AggregateUDF> {
    let signature = inner.signature().clone();
    Arc::new(AggregateUDF::new_from_impl(Extreme { inner, signature }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Extreme {
    inner: Arc<AggregateUDF>,
    signature: Signature,
}

/// `args` for the integers.
fn within<'a>(args: &AccumulatorArgs<'a>, fields: &'a [FieldRef]) -> AccumulatorArgs<'a> {
    AccumulatorArgs { return_field: fields[0].clone(), expr_fields: fields, ..args.clone() }
}

fn fields(data_type: &DataType) -> [FieldRef; 1] {
    let integer = match data_type {
        DataType::Float32 => DataType::Int32,
        _ => DataType::Int64,
    };
    [Arc::new(Field::new("order", integer, true))]
}

impl AggregateUDFImpl for Extreme {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(types.to_vec())
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let fields = fields(args.return_type());
        Ok(Box::new(One(self.inner.accumulator(within(&args, &fields))?)))
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        let fields = fields(args.return_type());
        Ok(Box::new(Many(self.inner.create_groups_accumulator(within(&args, &fields))?)))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let fields = fields(args.return_type());
        Ok(Box::new(One(self.inner.create_sliding_accumulator(within(&args, &fields))?)))
    }
}

/// All bits but the sign of a negative number are turned, which makes the order of the bits that of the numbers; twice
/// is not at all.
fn turned_64(bits: i64) -> i64 {
    bits ^ (((bits >> 63).cast_unsigned()) >> 1).cast_signed()
}

fn turned_32(bits: i32) -> i32 {
    bits ^ (((bits >> 31).cast_unsigned()) >> 1).cast_signed()
}

fn encoded(array: &ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Float32 => Arc::new(
            array
                .as_primitive::<Float32Type>()
                .unary::<_, Int32Type>(|x| turned_32(canonical_f32(x).to_bits().cast_signed())),
        ),
        DataType::Float64 => Arc::new(
            array
                .as_primitive::<Float64Type>()
                .unary::<_, Int64Type>(|x| turned_64(canonical_f64(x).to_bits().cast_signed())),
        ),
        _ => array.clone(),
    }
}

fn decoded(array: &ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Int32 => Arc::new(
            array
                .as_primitive::<Int32Type>()
                .unary::<_, Float32Type>(|bits| f32::from_bits(turned_32(bits).cast_unsigned())),
        ),
        DataType::Int64 => Arc::new(
            array
                .as_primitive::<Int64Type>()
                .unary::<_, Float64Type>(|bits| f64::from_bits(turned_64(bits).cast_unsigned())),
        ),
        _ => array.clone(),
    }
}

fn decoded_scalar(scalar: &ScalarValue) -> Result<ScalarValue> {
    ScalarValue::try_from_array(&decoded(&scalar.to_array()?), 0)
}

fn all_encoded(arrays: &[ArrayRef]) -> Vec<ArrayRef> {
    arrays.iter().map(encoded).collect()
}

#[derive(Debug)]
struct One(Box<dyn Accumulator>);

impl Accumulator for One {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.update_batch(&all_encoded(values))
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        decoded_scalar(&self.0.evaluate()?)
    }

    fn size(&self) -> usize {
        self.0.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.0.state()?.iter().map(decoded_scalar).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.0.merge_batch(&all_encoded(states))
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.retract_batch(&all_encoded(values))
    }

    fn supports_retract_batch(&self) -> bool {
        self.0.supports_retract_batch()
    }
}

struct Many(Box<dyn GroupsAccumulator>);

impl GroupsAccumulator for Many {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.0.update_batch(&all_encoded(values), groups, filter, total)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        Ok(decoded(&self.0.evaluate(emit_to)?))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(self.0.state(emit_to)?.iter().map(decoded).collect())
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.0.merge_batch(&all_encoded(states), groups, total)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        Ok(self.0.convert_to_state(&all_encoded(values), filter)?.iter().map(decoded).collect())
    }

    fn size(&self) -> usize {
        self.0.size()
    }
}

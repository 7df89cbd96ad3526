//! `percentile_cont` with all digits of its fraction: DataFusion keeps six of them.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, RecordBatch, RecordBatchOptions},
        datatypes::{DataType, FieldRef, Float64Type, Schema},
    },
    common::{DataFusionError, ScalarValue},
    error::Result,
    functions_aggregate::percentile_cont::percentile_cont_udaf,
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, EmitTo, GroupsAccumulator, Signature,
        function::{AccumulatorArgs, StateFieldsArgs},
    },
};

use super::super::floats::canonical_f64;

pub(super) fn cont() -> Arc<AggregateUDF> {
    let inner = percentile_cont_udaf();
    let signature = inner.signature().clone();
    Arc::new(AggregateUDF::new_from_impl(Percentile { inner, signature }))
}

/// Collects as DataFusion's does: its states are the values.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Percentile {
    inner: Arc<AggregateUDF>,
    signature: Signature,
}

impl AggregateUDFImpl for Percentile {
    fn name(&self) -> &'static str {
        "percentile_cont"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        self.inner.state_fields(args)
    }

    fn supports_within_group_clause(&self) -> bool {
        true
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let fraction = fraction(&args)?;
        Ok(Box::new(One { inner: self.inner.accumulator(args)?, fraction }))
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        let fraction = fraction(&args)?;
        Ok(Box::new(Many { inner: self.inner.create_groups_accumulator(args)?, fraction }))
    }
}

/// Which share of the values lies below, counted from the least; DataFusion checks its range.
fn fraction(args: &AccumulatorArgs<'_>) -> Result<f64> {
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let none = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)?;
    let ColumnarValue::Scalar(value) = args.exprs[1].evaluate(&none)? else {
        return Err(DataFusionError::Plan("the fraction of `percentile_cont` is a constant".to_owned()));
    };
    let ScalarValue::Float64(Some(fraction)) = value.cast_to(&DataType::Float64)? else {
        return Err(DataFusionError::Plan("the fraction of `percentile_cont` is NULL".to_owned()));
    };
    let descending = args.order_bys.first().is_some_and(|key| key.options.descending);
    Ok(if descending { 1.0 - fraction } else { fraction })
}

/// The value at `fraction` of the way through `values`, between two of them where it must.
fn percentile(values: &dyn Array, fraction: f64) -> Option<f64> {
    let mut values: Vec<f64> = values.as_primitive::<Float64Type>().iter().flatten().map(canonical_f64).collect();
    let last = values.len().checked_sub(1)?;
    values.sort_unstable_by(f64::total_cmp);
    #[allow(clippy::cast_precision_loss, reason = "a group of more than 2^53 values does not fit in memory")]
    let place = fraction * last as f64;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a length")]
    let (low, high) = (place.floor() as usize, place.ceil() as usize);
    let (below, above) = (*values.get(low)?, *values.get(high)?);
    // Two of the same are not subtracted: infinity from infinity is no number.
    Some(if below == above { below } else { below + (above - below) * (place - place.floor()) })
}

#[derive(Debug)]
struct One {
    inner: Box<dyn Accumulator>,
    fraction: f64,
}

impl Accumulator for One {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.update_batch(values)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let state = self.inner.state()?;
        let value = match state.first() {
            Some(ScalarValue::List(list)) if !list.is_empty() && list.is_valid(0) => {
                percentile(&list.value(0), self.fraction)
            }
            _ => None,
        };
        // The state has been handed over, and the accumulator may go on, as in a window.
        let states: Result<Vec<ArrayRef>> = state.iter().map(ScalarValue::to_array).collect();
        self.inner.merge_batch(&states?)?;
        Ok(ScalarValue::Float64(value))
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.retract_batch(values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }
}

struct Many {
    inner: Box<dyn GroupsAccumulator>,
    fraction: f64,
}

impl GroupsAccumulator for Many {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.inner.update_batch(values, groups, filter, total)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let state = self.inner.state(emit_to)?;
        let lists = state[0].as_list::<i32>();
        let values = lists.iter().map(|values| percentile(values?.as_ref(), self.fraction));
        Ok(Arc::new(values.collect::<Float64Array>()))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.inner.state(emit_to)
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.inner.merge_batch(states, groups, total)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        self.inner.convert_to_state(values, filter)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }
}

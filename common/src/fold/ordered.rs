//! Aggregates over an order: `array_agg`, `string_agg` and `nth_value` with `ORDER BY`.
//!
//! DataFusion's own ask for sorted input, one order for all aggregates of a query. Here each keeps its rows with their
//! sort keys, in no order, and sorts when it gives its result out: what the states of a group come to does not depend on
//! how they were merged, and every aggregate of a view has an order of its own.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, BooleanArray, ListArray, StructArray, UInt64Array},
        buffer::{NullBuffer, OffsetBuffer},
        compute::{LexicographicalComparator, SortColumn, SortOptions, take},
        datatypes::{DataType, Field, FieldRef, Fields, Schema},
    },
    common::{Result, ScalarValue},
    functions_aggregate::array_agg::array_agg_udaf,
    logical_expr::{
        Accumulator, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
        function::{AccumulatorArgs, StateFieldsArgs},
        utils::format_state_name,
    },
};

/// What of the rows in order is the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Take {
    /// The values of all.
    All,
    /// The value of the nth, from 1; from the end where it is negative.
    Nth(i64),
}

/// The aggregate. Its first argument is the value, the others are what it is sorted by.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Ordered {
    signature: Signature,
    order: Order,
}

/// By which columns rows are sorted, and which are taken then.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Order {
    by: Vec<(usize, SortOptions)>,
    take: Take,
}

impl Ordered {
    /// `by` says which arguments are sorted by, and how: the order must be total, but for rows that are the same.
    pub(super) fn new(by: Vec<(usize, SortOptions)>, take: Take) -> Self {
        Self { signature: Signature::variadic_any(Volatility::Immutable), order: Order { by, take } }
    }
}

impl AggregateUDFImpl for Ordered {
    fn name(&self) -> &'static str {
        "ordered"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let value = arguments.first().cloned().unwrap_or(DataType::Null);
        Ok(match self.order.take {
            Take::All => DataType::List(Arc::new(Field::new_list_field(value, true))),
            Take::Nth(_) => value,
        })
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let rows = Field::new_list_field(DataType::Struct(row_fields(args.input_fields)), true);
        Ok(vec![Arc::new(Field::new_list(format_state_name(args.name, "rows"), rows, true))])
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let fields = row_fields(args.expr_fields);
        let all = with_rows(&args, &fields, |args| array_agg_udaf().accumulator(args))?;
        Ok(Box::new(OneList { all, fields, order: self.order.clone() }))
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        let fields = row_fields(args.expr_fields);
        let all = with_rows(&args, &fields, |args| array_agg_udaf().create_groups_accumulator(args))?;
        Ok(Box::new(Lists { all, fields, order: self.order.clone() }))
    }
}

/// The columns of a kept row: the value, then what it is sorted by.
fn row_fields(arguments: &[FieldRef]) -> Fields {
    let field = |(index, argument): (usize, &FieldRef)| {
        let name = if index == 0 { "value".to_owned() } else { format!("by{index}") };
        Field::new(name, argument.data_type().clone(), true)
    };
    arguments.iter().enumerate().map(field).collect()
}

/// Calls `make` with what `array_agg` over the rows has to know.
fn with_rows<T>(
    args: &AccumulatorArgs<'_>,
    fields: &Fields,
    make: impl FnOnce(AccumulatorArgs<'_>) -> Result<T>,
) -> Result<T> {
    let row: FieldRef = Arc::new(Field::new("row", DataType::Struct(fields.clone()), true));
    let list = Field::new_list("rows", Field::new_list_field(row.data_type().clone(), true), true);
    make(AccumulatorArgs {
        return_field: Arc::new(list),
        schema: &Schema::new([row.clone()]),
        ignore_nulls: false,
        order_bys: &[],
        is_reversed: false,
        name: args.name,
        is_distinct: false,
        exprs: args.exprs,
        expr_fields: &[row],
    })
}

fn rows(fields: &Fields, columns: &[ArrayRef]) -> Result<ArrayRef> {
    Ok(Arc::new(StructArray::try_new(fields.clone(), columns.to_vec(), None)?))
}

impl Order {
    /// Which of the rows of each list are taken, in order.
    fn sorted(&self, lists: &ListArray) -> Result<Vec<Vec<u64>>> {
        let rows = lists.values().as_struct();
        let column = |&(index, options): &(usize, SortOptions)| SortColumn {
            values: rows.column(index).clone(),
            options: Some(options),
        };
        let order = LexicographicalComparator::try_new(&self.by.iter().map(column).collect::<Vec<_>>())?;
        let offsets = lists.value_offsets();
        let sorted = (0..lists.len()).map(|list| {
            if lists.is_null(list) {
                return Ok(Vec::new());
            }
            let (start, end) = (usize::try_from(offsets[list]), usize::try_from(offsets[list + 1]));
            let mut rows: Vec<usize> = match (start, end) {
                (Ok(start), Ok(end)) => (start..end).collect(),
                _ => Vec::new(),
            };
            rows.sort_unstable_by(|&left, &right| order.compare(left, right));
            if let Take::Nth(n) = self.take {
                let wanted = usize::try_from(n.unsigned_abs()).unwrap_or(usize::MAX);
                if n < 0 {
                    rows.drain(..rows.len().saturating_sub(wanted));
                } else {
                    rows.truncate(wanted);
                }
            }
            Ok(rows.into_iter().map(|row| row as u64).collect())
        });
        sorted.collect()
    }

    /// The rows that can still be in a result.
    fn state(&self, lists: &ArrayRef) -> Result<ArrayRef> {
        if self.take == Take::All {
            return Ok(lists.clone());
        }
        let lists = lists.as_list::<i32>();
        self.list(lists, self.sorted(lists)?, lists.values())
    }

    /// The result of each list of rows.
    fn result(&self, lists: &ArrayRef) -> Result<ArrayRef> {
        let lists = lists.as_list::<i32>();
        let sorted = self.sorted(lists)?;
        let values = lists.values().as_struct().column(0);
        let Take::Nth(n) = self.take else { return self.list(lists, sorted, values) };
        let wanted = usize::try_from(n.unsigned_abs()).unwrap_or(usize::MAX);
        let nth = |rows: Vec<u64>| match rows.len() == wanted {
            false => None,
            true if n < 0 => rows.first().copied(),
            true => rows.last().copied(),
        };
        let taken: UInt64Array = sorted.into_iter().map(nth).collect();
        Ok(take(values, &taken, None)?)
    }

    fn list(&self, lists: &ListArray, rows: Vec<Vec<u64>>, values: &ArrayRef) -> Result<ArrayRef> {
        let offsets = OffsetBuffer::from_lengths(rows.iter().map(Vec::len));
        let taken = UInt64Array::from(rows.concat());
        let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
        let nulls: Option<NullBuffer> = lists.nulls().cloned();
        Ok(Arc::new(ListArray::try_new(field, offsets, take(values, &taken, None)?, nulls)?))
    }
}

/// The rows of many groups.
struct Lists {
    all: Box<dyn GroupsAccumulator>,
    fields: Fields,
    order: Order,
}

impl GroupsAccumulator for Lists {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.all.update_batch(&[rows(&self.fields, values)?], group_indices, filter, total_num_groups)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.all.merge_batch(values, group_indices, total_num_groups)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.order.state(&self.all.evaluate(emit_to)?)?])
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        self.order.result(&self.all.evaluate(emit_to)?)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        self.all.convert_to_state(&[rows(&self.fields, values)?], filter)
    }

    fn size(&self) -> usize {
        self.all.size()
    }
}

/// The rows of one group.
#[derive(Debug)]
struct OneList {
    all: Box<dyn Accumulator>,
    fields: Fields,
    order: Order,
}

impl Accumulator for OneList {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.all.update_batch(&[rows(&self.fields, values)?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.all.merge_batch(states)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let lists = self.all.evaluate()?.to_array()?;
        Ok(vec![ScalarValue::try_from_array(&self.order.state(&lists)?, 0)?])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let lists = self.all.evaluate()?.to_array()?;
        ScalarValue::try_from_array(&self.order.result(&lists)?, 0)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.all.size()
    }
}

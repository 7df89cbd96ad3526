//! Functions over the values of a subquery, which come as one list: `NULL` when there are none.

use std::{
    collections::HashSet,
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, BooleanArray, ListArray, UInt64Array},
        compute::{cast, take},
        datatypes::{DataType, Float32Type, Float64Type},
        row::{OwnedRow, Row, RowConverter, SortField},
    },
    common::{ScalarValue, exec_err, internal_err, plan_err},
    error::{DataFusionError, Result},
    logical_expr::{
        ColumnarValue, Operator, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
        type_coercion::binary::comparison_coercion,
    },
};

/// `x <operator> ANY (list)`, with SQL's three values: without values it is false, whatever `x` is.
#[derive(Debug)]
pub(super) struct AnyOf {
    operator: Operator,
    signature: Signature,
    /// What was made of the last list that was the same for all rows.
    last: Mutex<Option<(Arc<ListArray>, Arc<Values>)>>,
}

impl AnyOf {
    pub(super) fn new(operator: Operator) -> Self {
        Self { operator, signature: Signature::user_defined(Volatility::Immutable), last: Mutex::new(None) }
    }

    /// Whether values can be looked for by this operator.
    pub(super) fn knows(operator: Operator) -> bool {
        use Operator as O;
        matches!(operator, O::Eq | O::NotEq | O::Lt | O::LtEq | O::Gt | O::GtEq)
    }

    fn holds(&self, left: Row<'_>, right: Row<'_>) -> bool {
        match self.operator {
            Operator::Eq => left == right,
            Operator::NotEq => left != right,
            Operator::Lt => left < right,
            Operator::LtEq => left <= right,
            Operator::Gt => left > right,
            _ => left >= right,
        }
    }

    fn holds_for_any(&self, left: Row<'_>, values: &Values) -> bool {
        let Some((least, greatest)) = &values.ends else { return false };
        match self.operator {
            Operator::Eq => values.all.contains(left.as_ref()),
            Operator::NotEq => left != least.row() || left != greatest.row(),
            Operator::Lt | Operator::LtEq => self.holds(left, greatest.row()),
            _ => self.holds(left, least.row()),
        }
    }

    /// The same list for all rows.
    fn of_one(&self, left: &ArrayRef, list: &Arc<ListArray>) -> Result<BooleanArray> {
        if list.is_null(0) || list.value_length(0) == 0 {
            return Ok(BooleanArray::from(vec![false; left.len()]));
        }
        let converter = RowConverter::new(vec![SortField::new(left.data_type().clone())])?;
        let values = self.values(list, left.data_type(), &converter)?;
        let rows = converter.convert_columns(&[comparable(left)?])?;
        let nulls = left.logical_nulls();
        let is_null = |row: usize| nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
        let of_row = |row: usize| match !is_null(row) && self.holds_for_any(rows.row(row), &values) {
            true => Some(true),
            false if is_null(row) || values.has_null => None,
            false => Some(false),
        };
        Ok((0..left.len()).map(of_row).collect())
    }

    fn values(&self, list: &Arc<ListArray>, data_type: &DataType, converter: &RowConverter) -> Result<Arc<Values>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, values)) = last.as_ref().filter(|(of, _)| Arc::ptr_eq(of, list)) {
            return Ok(values.clone());
        }
        let values = Arc::new(Values::of(&cast(&list.value(0), data_type)?, converter)?);
        *last = Some((list.clone(), values.clone()));
        Ok(values)
    }

    /// A list for each row.
    fn of_many(&self, left: &ArrayRef, lists: &ListArray) -> Result<BooleanArray> {
        let converter = RowConverter::new(vec![SortField::new(left.data_type().clone())])?;
        let values = cast(lists.values(), left.data_type())?;
        let value_nulls = values.logical_nulls();
        let value_rows = converter.convert_columns(&[comparable(&values)?])?;
        let rows = converter.convert_columns(&[comparable(left)?])?;
        let nulls = left.logical_nulls();
        let offsets = lists.value_offsets();
        let of_row = |row: usize| -> Result<Option<bool>> {
            let (start, end) = (place(offsets[row])?, place(offsets[row + 1])?);
            if lists.is_null(row) || start == end {
                return Ok(Some(false));
            }
            if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                return Ok(None);
            }
            let mut outcome = Some(false);
            for value in start..end {
                if value_nulls.as_ref().is_some_and(|nulls| nulls.is_null(value)) {
                    outcome = None;
                } else if self.holds(rows.row(row), value_rows.row(value)) {
                    return Ok(Some(true));
                }
            }
            Ok(outcome)
        };
        (0..left.len()).map(of_row).collect()
    }
}

impl PartialEq for AnyOf {
    fn eq(&self, other: &Self) -> bool {
        self.operator == other.operator
    }
}

impl Eq for AnyOf {}

impl Hash for AnyOf {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.operator.hash(state);
    }
}

impl ScalarUDFImpl for AnyOf {
    fn name(&self) -> &str {
        "any_of"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [left, DataType::List(item)] = types else {
            return internal_err!("a subquery's values come as a list");
        };
        match comparison_coercion(left, item.data_type()) {
            Some(common) => Ok(vec![common, types[1].clone()]),
            None => plan_err!("{left} cannot be compared with the subquery's {}", item.data_type()),
        }
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (left, list) = pair(&call.args)?;
        match list {
            ColumnarValue::Scalar(ScalarValue::List(list)) => match left {
                ColumnarValue::Scalar(left) => {
                    let found = self.of_one(&left.to_array()?, list)?;
                    Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&found, 0)?))
                }
                ColumnarValue::Array(left) => Ok(ColumnarValue::Array(Arc::new(self.of_one(left, list)?))),
            },
            list => {
                let left = left.to_array(call.number_rows)?;
                let lists = list.to_array(call.number_rows)?;
                Ok(ColumnarValue::Array(Arc::new(self.of_many(&left, lists.as_list::<i32>())?)))
            }
        }
    }
}

/// Values that are looked for often.
#[derive(Debug)]
struct Values {
    all: HashSet<Box<[u8]>>,
    /// The least and the greatest; there are none when all are NULL.
    ends: Option<(OwnedRow, OwnedRow)>,
    has_null: bool,
}

impl Values {
    fn of(values: &ArrayRef, converter: &RowConverter) -> Result<Self> {
        let rows = converter.convert_columns(&[comparable(values)?])?;
        let nulls = values.logical_nulls();
        let is_value = |row: &usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(*row));
        let present = || (0..values.len()).filter(is_value).map(|row| rows.row(row));
        let ends = present().min().zip(present().max()).map(|(least, greatest)| (least.owned(), greatest.owned()));
        let all = present().map(|row| Box::from(row.as_ref())).collect();
        Ok(Self { all, ends, has_null: nulls.is_some_and(|nulls| nulls.null_count() > 0) })
    }
}

/// `=` takes both zeros for one number, and NaN for one value.
fn comparable(values: &ArrayRef) -> Result<ArrayRef> {
    Ok(match values.data_type() {
        DataType::Float32 => Arc::new(
            values
                .as_primitive::<Float32Type>()
                .unary::<_, Float32Type>(|x| if x.is_nan() { f32::NAN } else { x + 0.0 }),
        ),
        DataType::Float64 => Arc::new(
            values
                .as_primitive::<Float64Type>()
                .unary::<_, Float64Type>(|x| if x.is_nan() { f64::NAN } else { x + 0.0 }),
        ),
        _ => values.clone(),
    })
}

/// The value of a subquery that must have one row at most.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct OnlyOf {
    signature: Signature,
}

impl OnlyOf {
    pub(super) fn new() -> Self {
        Self { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for OnlyOf {
    fn name(&self) -> &str {
        "only_of"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [DataType::List(item)] => Ok(item.data_type().clone()),
            _ => internal_err!("a subquery's values come as a list"),
        }
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(lists) = call.args.first() else { return internal_err!("a subquery's values are missing") };
        let lists = lists.to_array(call.number_rows)?;
        let lists = lists.as_list::<i32>();
        let offsets = lists.value_offsets();
        let first = |row: usize| -> Result<Option<u64>> {
            match offsets[row + 1] - offsets[row] {
                _ if lists.is_null(row) => Ok(None),
                0 => Ok(None),
                1 => Ok(u64::try_from(offsets[row]).ok()),
                _ => exec_err!("a subquery that is used as a value has more than one row"),
            }
        };
        let places = (0..lists.len()).map(first).collect::<Result<UInt64Array>>()?;
        Ok(ColumnarValue::Array(take(lists.values(), &places, None)?))
    }
}

fn pair(arguments: &[ColumnarValue]) -> Result<(&ColumnarValue, &ColumnarValue)> {
    match arguments {
        [left, right] => Ok((left, right)),
        _ => internal_err!("a value and a list were expected"),
    }
}

fn place(offset: i32) -> Result<usize> {
    usize::try_from(offset).map_err(|error| DataFusionError::External(Box::new(error)))
}

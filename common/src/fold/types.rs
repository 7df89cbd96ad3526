//! The types of a view's columns: those of the catalog, so that what stands in a batch view is what the SQL says.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Fields, TimeUnit};

use super::Refusal;
use crate::values::sql_type_name;

/// The type in which a view has a column whose expression is of `data_type`: the same values, in a type of the catalog.
/// Else what to write.
pub(super) fn column_type(name: &str, data_type: &DataType) -> Result<DataType, Refusal> {
    column(data_type).map_err(|hint| {
        let reason = format!("column `{name}` is of type {}, which a view cannot hold", sql_type_name(data_type));
        Refusal { reason, hint, at: None }
    })
}

/// The type in which a view groups by a key whose expression is of `data_type`.
pub(super) fn key_type(expression: &str, data_type: &DataType) -> Result<DataType, Refusal> {
    let key = if data_type.is_nested() { Err(nested(data_type)) } else { column(data_type) };
    key.map_err(|hint| {
        let reason = format!("`{expression}` is of type {}, by which a view cannot group", sql_type_name(data_type));
        Refusal { reason, hint, at: None }
    })
}

fn nested(data_type: &DataType) -> String {
    match data_type {
        DataType::Struct(_) => "group by its members: `GROUP BY x.a, x.b`",
        _ => "group by a text of it, such as `array_to_string(x, ',')`, or by an element, such as `x[1]`",
    }
    .to_owned()
}

fn column(data_type: &DataType) -> Result<DataType, String> {
    use DataType as T;
    Ok(match data_type {
        T::Boolean | T::Int16 | T::Int32 | T::Int64 | T::Float32 | T::Float64 | T::Date32 => data_type.clone(),
        T::Decimal128(_, _) | T::Utf8 | T::Binary => data_type.clone(),
        T::Int8 | T::UInt8 => T::Int16,
        T::UInt16 => T::Int32,
        // Functions that count give these; what does not fit fails where it is computed.
        T::UInt32 | T::UInt64 => T::Int64,
        T::Float16 => T::Float32,
        T::Decimal32(precision, scale) | T::Decimal64(precision, scale) => T::Decimal128(*precision, *scale),
        T::Utf8View | T::LargeUtf8 => T::Utf8,
        T::BinaryView | T::LargeBinary | T::FixedSizeBinary(_) => T::Binary,
        T::Timestamp(_, None) => T::Timestamp(TimeUnit::Microsecond, None),
        T::Timestamp(_, Some(_)) => T::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        T::Dictionary(_, values) => column(values)?,
        T::List(item) | T::LargeList(item) | T::FixedSizeList(item, _) => {
            T::List(Arc::new(Field::new("element", column(item.data_type())?, true)))
        }
        T::Struct(fields) => T::Struct(members(fields)?),
        T::Null => return Err("say of which type it is: `CAST(NULL AS TEXT)`".to_owned()),
        T::Duration(_) | T::Interval(_) => {
            return Err("write the seconds of it, `date_part('epoch', x)`, or keep the times themselves and subtract \
                        them when you query the view"
                .to_owned());
        }
        T::Time32(_) | T::Time64(_) => {
            return Err("write it as a text, `to_char(created_at, '%H:%M:%S')`, or its parts, \
                        `date_part('hour', created_at)`"
                .to_owned());
        }
        T::Decimal256(_, scale) => return Err(format!("cast it: `CAST(x AS DECIMAL(38,{scale}))`")),
        T::Date64 => return Err("cast it: `CAST(x AS DATE)`".to_owned()),
        _ => return Err("cast it to a type of the catalog, such as `CAST(x AS TEXT)`".to_owned()),
    })
}

/// A table has its own idea of a member's name.
fn members(fields: &Fields) -> Result<Fields, String> {
    let mut seen = std::collections::BTreeSet::new();
    let member = |field: &Arc<Field>| {
        let name = field.name();
        let is_plain = !name.is_empty() && !name.contains([' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '=']);
        if !is_plain || !seen.insert(name.to_lowercase()) {
            return Err(format!("give member `{name}` a name of its own: `named_struct('a', x, 'b', y)`"));
        }
        Ok(Arc::new(Field::new(name, column(field.data_type())?, true)))
    };
    fields.iter().map(member).collect()
}

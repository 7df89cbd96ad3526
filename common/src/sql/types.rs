//! SQL types as Arrow types, in casts and literals. What a type's name says and its Arrow type would not keep is
//! refused.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::{DataType, Field, FieldRef, TimeUnit},
    common::plan_err,
    error::Result,
    logical_expr::planner::TypePlanner,
};
use sqlparser::ast::{DataType as Sql, ExactNumberInfo, TimezoneInfo};

/// The one time zone of `TIMESTAMPTZ`.
pub(super) const UTC: &str = "UTC";

/// `TIMESTAMP`, or `TIMESTAMPTZ` where `zoned`.
pub(super) fn timestamp(zoned: bool) -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, zoned.then(|| UTC.into()))
}

/// Plans the types that mean something else, or less, in DataFusion.
#[derive(Debug)]
pub(super) struct Types;

impl TypePlanner for Types {
    fn plan_type_field(&self, sql: &Sql) -> Result<Option<FieldRef>> {
        let data_type = match sql {
            Sql::Timestamp(None | Some(6), zone) => {
                timestamp(matches!(zone, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone))
            }
            Sql::Timestamp(Some(_), _) => {
                return plan_err!(
                    "`{sql}` keeps fewer digits than a time has: write `TIMESTAMP`, and `date_trunc` for less"
                );
            }
            // A time without fractions of microseconds, as PostgreSQL has it.
            Sql::Float(ExactNumberInfo::None) => DataType::Float64,
            Sql::Float(ExactNumberInfo::Precision(bits)) if (1..=53).contains(bits) => match bits {
                ..=24 => DataType::Float32,
                _ => DataType::Float64,
            },
            Sql::Decimal(ExactNumberInfo::None)
            | Sql::Numeric(ExactNumberInfo::None)
            | Sql::Dec(ExactNumberInfo::None) => {
                return plan_err!(
                    "type `{sql}` has no precision: write `DECIMAL(12,2)` for 12 digits, 2 of them after the point"
                );
            }
            Sql::Varchar(Some(_))
            | Sql::CharVarying(Some(_))
            | Sql::CharacterVarying(Some(_))
            | Sql::Nvarchar(Some(_))
            | Sql::Char(_)
            | Sql::Character(_)
            | Sql::String(Some(_)) => {
                return plan_err!("the length in `{sql}` is not kept: write `TEXT`, and `left(x, n)` to cut it");
            }
            _ => return Ok(None),
        };
        Ok(Some(Arc::new(Field::new("", data_type, true))))
    }
}

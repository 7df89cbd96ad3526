//! SQL types as Arrow types.

use std::{collections::BTreeSet, sync::Arc};

use datafusion::arrow::datatypes::{DataType as Arrow, Field, TimeUnit};
use sqlparser::ast::{ArrayElemTypeDef, DataType as Sql, ExactNumberInfo, StructField, TimezoneInfo};

use super::{canonical::folded, near};

/// The name that Delta gives to a list's elements: what is written comes back with it.
const ELEMENT: &str = "element";
/// How many digits a `DECIMAL` can have.
const PRECISION_MAX: u64 = 38;

const NAMES: &[&str] = &[
    "BOOLEAN",
    "SMALLINT",
    "INT",
    "BIGINT",
    "REAL",
    "DOUBLE",
    "DECIMAL",
    "TEXT",
    "BYTEA",
    "DATE",
    "TIMESTAMP",
    "TIMESTAMPTZ",
    "STRUCT",
];

/// Why a type cannot be an event's, and what to write instead.
pub(super) type Refused = (String, String);

/// The Arrow type of a SQL type. One Arrow type for each, so that a dataset's schema is pinned by its SQL.
pub(super) fn arrow_type(sql: &Sql) -> Result<Arrow, Refused> {
    Ok(match sql {
        Sql::Boolean | Sql::Bool => Arrow::Boolean,
        Sql::SmallInt(None) | Sql::Int2(None) => Arrow::Int16,
        Sql::Int(None) | Sql::Integer(None) | Sql::Int4(None) => Arrow::Int32,
        Sql::BigInt(None) | Sql::Int8(None) => Arrow::Int64,
        Sql::Real | Sql::Float4 => Arrow::Float32,
        Sql::Double(ExactNumberInfo::None) | Sql::DoublePrecision | Sql::Float8 => Arrow::Float64,
        Sql::Decimal(info) | Sql::Numeric(info) | Sql::Dec(info) => decimal(sql, *info)?,
        Sql::Text | Sql::String(None) | Sql::Varchar(None) => Arrow::Utf8,
        Sql::Bytea => Arrow::Binary,
        Sql::Date => Arrow::Date32,
        Sql::Timestamp(None | Some(6), zone) => Arrow::Timestamp(
            TimeUnit::Microsecond,
            matches!(zone, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone).then(|| "UTC".into()),
        ),
        Sql::Array(ArrayElemTypeDef::SquareBracket(element, None) | ArrayElemTypeDef::AngleBracket(element)) => {
            Arrow::List(Arc::new(Field::new(ELEMENT, arrow_type(element)?, true)))
        }
        Sql::Struct(fields, _) => Arrow::Struct(members(fields)?),
        other => return Err(refused(other)),
    })
}

fn decimal(sql: &Sql, info: ExactNumberInfo) -> Result<Arrow, Refused> {
    let (precision, scale) = match info {
        ExactNumberInfo::None => {
            return Err((
                format!("type `{sql}` has no precision"),
                "write `DECIMAL(12,2)` for 12 digits, 2 of them after the point".to_owned(),
            ));
        }
        ExactNumberInfo::Precision(precision) => (precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (precision, scale),
    };
    let is_scale = u64::try_from(scale).is_ok_and(|scale| scale <= precision);
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(digits), Ok(scale)) if (1..=PRECISION_MAX).contains(&precision) && is_scale => {
            Ok(Arrow::Decimal128(digits, scale))
        }
        _ => Err((
            format!("type `{sql}` is out of range"),
            format!("write `DECIMAL(p,s)` with `p` from 1 to {PRECISION_MAX} and `s` from 0 to `p`"),
        )),
    }
}

fn members(fields: &[StructField]) -> Result<datafusion::arrow::datatypes::Fields, Refused> {
    let hint = || "write `STRUCT<name TEXT, age INT>`".to_owned();
    let mut seen = BTreeSet::new();
    let mut members = Vec::new();
    for field in fields {
        let Some(name) = field.field_name.as_ref().map(folded) else {
            return Err((format!("member `{field}` of a STRUCT has no name"), hint()));
        };
        if field.options.is_some() {
            return Err((format!("member `{name}` of a STRUCT has options"), hint()));
        }
        if !seen.insert(name.to_lowercase()) {
            return Err((
                format!("member `{name}` of a STRUCT is there twice"),
                "give one of them another name".to_owned(),
            ));
        }
        members.push(Field::new(name, arrow_type(&field.field_type)?, true));
    }
    if members.is_empty() {
        return Err(("a STRUCT has no members".to_owned(), hint()));
    }
    Ok(members.into())
}

fn refused(sql: &Sql) -> Refused {
    let hint = match sql {
        Sql::Varchar(Some(_)) | Sql::Char(_) | Sql::Character(_) | Sql::CharVarying(_) | Sql::CharacterVarying(_) => {
            "write `TEXT`, with `CHECK (char_length(column) <= 10)` to bound its length"
        }
        Sql::JSON | Sql::JSONB => "write `STRUCT<name TEXT, …>` for an object, or `TEXT` for a string that holds JSON",
        Sql::Float(_) | Sql::Float32 | Sql::Float64 => "write `DOUBLE` for 64 bits or `REAL` for 32",
        Sql::TinyInt(_) => "write `SMALLINT`",
        Sql::IntUnsigned(_) | Sql::IntegerUnsigned(_) | Sql::BigIntUnsigned(_) | Sql::SmallIntUnsigned(_) => {
            "write the signed type, with `CHECK (column >= 0)`"
        }
        Sql::Timestamp(Some(_), _) => "write `TIMESTAMP`: times are kept in microseconds",
        Sql::Datetime(_) => "write `TIMESTAMP`",
        Sql::Uuid => "write `TEXT`",
        Sql::Blob(_) | Sql::Binary(_) | Sql::Varbinary(_) | Sql::Bytes(_) => "write `BYTEA`",
        Sql::Array(_) => "write the elements' type, then `[]`: `TEXT[]`",
        Sql::Unspecified => return ("the column has no type".to_owned(), format!("give it one of {}", names())),
        _ => "",
    };
    let hint = match hint {
        "" => near::did_you_mean(&sql.to_string(), NAMES.iter().copied())
            .unwrap_or_else(|| format!("write one of {}", names())),
        hint => hint.to_owned(),
    };
    (format!("type `{sql}` is not known"), hint)
}

fn names() -> String {
    let names: Vec<String> = NAMES.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

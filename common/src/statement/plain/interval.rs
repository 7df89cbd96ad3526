//! Intervals with a time of day: `'1 day 04:05:06'`.

use sqlparser::ast::{DataType, Expr, Interval, TypedString, Value, ValueWithSpan};

use super::text;

pub(super) fn written_out(expression: &mut Expr) {
    let literal = match expression {
        Expr::Interval(Interval { value, leading_field: None, .. }) => value.as_mut(),
        Expr::Cast { expr, data_type: DataType::Interval { .. }, .. } => expr.as_mut(),
        Expr::TypedString(TypedString { data_type: DataType::Interval { .. }, value, .. }) => {
            if let Value::SingleQuotedString(written) = &mut value.value
                && let Some(plain) = in_units(written)
            {
                *written = plain;
            }
            return;
        }
        _ => return,
    };
    if let Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(written), .. }) = literal
        && let Some(plain) = in_units(written)
    {
        *literal = text(plain);
    }
}

/// The interval with its time of day in hours, minutes and seconds; `None` if it has none.
fn in_units(written: &str) -> Option<String> {
    if !written.contains(':') {
        return None;
    }
    let parts: Option<Vec<String>> = written
        .split_whitespace()
        .map(|part| if part.contains(':') { time(part) } else { Some(part.to_owned()) })
        .collect();
    Some(parts?.join(" "))
}

fn time(written: &str) -> Option<String> {
    let (sign, unsigned) = match written.strip_prefix('-') {
        Some(unsigned) => ("-", unsigned),
        None => ("", written.strip_prefix('+').unwrap_or(written)),
    };
    let fields: Vec<&str> = unsigned.split(':').collect();
    let is_number = |field: &&str| !field.is_empty() && field.chars().all(|c| c.is_ascii_digit() || c == '.');
    if !fields.iter().all(is_number) {
        return None;
    }
    match fields.as_slice() {
        [hours, minutes] => Some(format!("{sign}{hours} hours {sign}{minutes} minutes")),
        [hours, minutes, seconds] => {
            Some(format!("{sign}{hours} hours {sign}{minutes} minutes {sign}{seconds} seconds"))
        }
        _ => None,
    }
}

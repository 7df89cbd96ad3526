//! `age(later, earlier)`: the time between in years, months, days and a time of day, as a calendar counts it.

use std::sync::Arc;

use chrono::{Datelike, NaiveDate, NaiveDateTime, NaiveTime, Timelike};
use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray, IntervalMonthDayNanoArray},
        datatypes::{DataType, IntervalMonthDayNano, IntervalUnit, TimeUnit, TimestampMicrosecondType},
        temporal_conversions::timestamp_us_to_datetime,
    },
    common::{ScalarValue, exec_err, plan_err},
    error::Result,
    logical_expr::{
        ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        simplify::{ExprSimplifyResult, SimplifyContext},
    },
};

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Age {
    signature: Signature,
}

impl Age {
    pub(super) fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Stable) }
    }
}

const MICROSECONDS: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

impl ScalarUDFImpl for Age {
    fn name(&self) -> &str {
        "age"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Interval(IntervalUnit::MonthDayNano))
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let is_time = |data_type: &DataType| {
            matches!(data_type, DataType::Timestamp(..) | DataType::Date32 | DataType::Utf8 | DataType::Null)
        };
        match types {
            [_] | [_, _] if types.iter().all(is_time) => Ok(vec![MICROSECONDS; types.len()]),
            _ => plan_err!("`age` is of one time, or between two: write `age(later, earlier)`"),
        }
    }

    /// Of one time it is the age at the beginning of this day.
    fn simplify(&self, arguments: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        match (<[Expr; 1]>::try_from(arguments), info.query_execution_start_time()) {
            (Ok([earlier]), Some(now)) => {
                let today = now.date_naive().and_time(NaiveTime::MIN).and_utc().timestamp_micros();
                let today = Expr::Literal(ScalarValue::TimestampMicrosecond(Some(today), None), None);
                Ok(ExprSimplifyResult::Simplified(ScalarUDF::from(Self::new()).call(vec![today, earlier])))
            }
            (Ok([earlier]), None) => Ok(ExprSimplifyResult::Original(vec![earlier])),
            (Err(arguments), _) => Ok(ExprSimplifyResult::Original(arguments)),
        }
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [later, earlier] = call.args.as_slice() else { return exec_err!("`age` has no day to count from") };
        let (later, earlier) = (later.to_array(call.number_rows)?, earlier.to_array(call.number_rows)?);
        let times = |array: &ArrayRef| array.as_primitive::<TimestampMicrosecondType>().clone();
        let (later, earlier) = (times(&later), times(&earlier));
        let between = later.iter().zip(earlier.iter()).map(|pair| match pair {
            (Some(later), Some(earlier)) => {
                match (timestamp_us_to_datetime(later), timestamp_us_to_datetime(earlier)) {
                    (Some(later), Some(earlier)) => Ok(Some(age(later, earlier))),
                    _ => exec_err!("`age` of a time that no calendar has"),
                }
            }
            _ => Ok(None),
        });
        let between: IntervalMonthDayNanoArray = between.collect::<Result<_>>()?;
        Ok(ColumnarValue::Array(Arc::new(between)))
    }
}

fn age(later: NaiveDateTime, earlier: NaiveDateTime) -> IntervalMonthDayNano {
    if later < earlier {
        let IntervalMonthDayNano { months, days, nanoseconds } = age(earlier, later);
        return IntervalMonthDayNano::new(-months, -days, -nanoseconds);
    }
    let of_day = |time: NaiveDateTime| {
        i64::from(time.num_seconds_from_midnight()) * 1_000_000_000 + i64::from(time.nanosecond())
    };
    let month = |time: NaiveDateTime| time.year() * 12 + time.month0().cast_signed();
    let mut nanoseconds = of_day(later) - of_day(earlier);
    let mut days = later.day().cast_signed() - earlier.day().cast_signed();
    let mut months = month(later) - month(earlier);
    if nanoseconds < 0 {
        nanoseconds += 86_400_000_000_000;
        days -= 1;
    }
    if days < 0 {
        days += days_of_month(earlier);
        months -= 1;
    }
    IntervalMonthDayNano::new(months, days, nanoseconds)
}

/// A day that is borrowed is one of the month that the age begins in.
fn days_of_month(time: NaiveDateTime) -> i32 {
    let (year, month) = match time.month() {
        12 => (time.year() + 1, 1),
        month => (time.year(), month + 1),
    };
    let last = NaiveDate::from_ymd_opt(year, month, 1).and_then(|first| first.pred_opt());
    last.map_or(31, |last| last.day().cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_by_the_calendar() {
        let check = |later: &str, earlier: &str, months: i32, days: i32, seconds: i64| {
            let time = |text: &str| text.parse::<NaiveDateTime>().unwrap();
            let expected = IntervalMonthDayNano::new(months, days, seconds * 1_000_000_000);
            assert_eq!(age(time(later), time(earlier)), expected, "{later} {earlier}");
            let negative = IntervalMonthDayNano::new(-months, -days, -seconds * 1_000_000_000);
            assert_eq!(age(time(earlier), time(later)), negative, "{earlier} {later}");
        };
        check("2001-04-10T00:00:00", "1957-06-13T00:00:00", 43 * 12 + 9, 27, 0);
        check("2026-03-01T00:00:00", "2026-02-28T23:59:58", 0, 0, 2);
        check("2026-03-01T00:00:00", "2026-01-31T00:00:00", 1, 1, 0);
        check("2024-03-01T12:00:00", "2024-02-29T13:00:00", 0, 0, 23 * 3600);
        check("2026-01-01T00:00:00", "2026-01-01T00:00:00", 0, 0, 0);
    }
}

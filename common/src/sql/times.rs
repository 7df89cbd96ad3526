//! Functions of time over the whole range of `TIMESTAMP`: DataFusion's count nanoseconds, which end in the year 2262.

use std::sync::Arc;

use chrono::{Datelike, Duration, Months, NaiveDateTime, Offset, TimeZone};
use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray, PrimitiveArray, timezone::Tz},
        datatypes::{
            DataType, Decimal128Type, Int64Type, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
            TimestampMicrosecondType,
        },
        error::ArrowError,
        temporal_conversions::as_datetime,
    },
    common::{ScalarValue, exec_err, plan_err},
    error::Result,
    functions::datetime,
    logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};

use super::types::timestamp;

/// The calendar, its weeks too, is the same again after 400 years.
const CYCLE_US: i64 = 146_097 * DAY_US;
const DAY_US: i64 = 86_400_000_000;
/// What nanoseconds can count, from 1970 on and back.
const NANOSECONDS_US: i64 = i64::MAX / 1000 - DAY_US * 366;

type Times = PrimitiveArray<TimestampMicrosecondType>;

/// `date_trunc(unit, time)`.
pub(super) fn date_trunc() -> Arc<ScalarUDF> {
    let inner = datetime::date_trunc();
    let signature = inner.signature().clone();
    Arc::new(ScalarUDF::new_from_impl(DateTrunc { inner, signature, aliases: vec!["datetrunc".to_owned()] }))
}

/// `date_bin(stride, time [, origin])`.
pub(super) fn date_bin() -> Arc<ScalarUDF> {
    let inner = datetime::date_bin();
    Arc::new(ScalarUDF::new_from_impl(DateBin { inner, signature: Signature::user_defined(Volatility::Immutable) }))
}

/// `timezone(zone, time)`, which is also written `time AT TIME ZONE zone`.
pub(super) fn timezone() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(Timezone { signature: Signature::user_defined(Volatility::Immutable) }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct DateTrunc {
    inner: Arc<ScalarUDF>,
    signature: Signature,
    aliases: Vec<String>,
}

impl ScalarUDFImpl for DateTrunc {
    fn name(&self) -> &'static str {
        "date_trunc"
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[1].clone())
    }

    /// Times beyond nanoseconds are brought into their range by whole cycles of the calendar.
    fn invoke_with_args(&self, mut call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if !matches!(call.args[1].data_type(), DataType::Timestamp(TimeUnit::Microsecond, _)) {
            return self.inner.invoke_with_args(call);
        }
        let scalar = matches!(call.args[1], ColumnarValue::Scalar(_));
        let array = call.args[1].to_array(if scalar { 1 } else { call.number_rows })?;
        let times = array.as_primitive::<TimestampMicrosecondType>();
        // What lies under a NULL is truncated with the others, and may be any number.
        if times.values().iter().all(|us| us.unsigned_abs() <= NANOSECONDS_US.unsigned_abs()) {
            return self.inner.invoke_with_args(call);
        }
        let zone = times.timezone().map(Arc::from);
        let shifted = times.unary::<_, TimestampMicrosecondType>(within_cycle).with_timezone_opt(zone.clone());
        call.args[1] = ColumnarValue::Array(Arc::new(shifted));
        let rows = call.number_rows;
        let truncated = self.inner.invoke_with_args(call)?.into_array(rows)?;
        let truncated = truncated.as_primitive::<TimestampMicrosecondType>();
        let back: Times = datafusion::arrow::compute::try_binary(truncated, times, |truncated, us| {
            let left_out = within_cycle(us) - truncated;
            us.checked_sub(left_out).ok_or_else(|| out_of_range(us))
        })?;
        columnar(Arc::new(back.with_timezone_opt(zone)), scalar)
    }
}

/// The same time of the calendar in the 400 years around 1970.
fn within_cycle(us: i64) -> i64 {
    let in_cycle = us.rem_euclid(CYCLE_US);
    if in_cycle < CYCLE_US / 2 { in_cycle } else { in_cycle - CYCLE_US }
}

fn out_of_range(us: i64) -> ArrowError {
    ArrowError::ComputeError(format!("{us} microseconds are out of the range of TIMESTAMP"))
}

fn columnar(array: ArrayRef, scalar: bool) -> Result<ColumnarValue> {
    Ok(match scalar {
        true => ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?),
        false => ColumnarValue::Array(array),
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct DateBin {
    inner: Arc<ScalarUDF>,
    signature: Signature,
}

impl ScalarUDFImpl for DateBin {
    fn name(&self) -> &'static str {
        "date_bin"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let (Some(stride), Some(time), true) = (types.first(), types.get(1), types.len() <= 3) else {
            return plan_err!("`date_bin` takes a stride, a time and perhaps an origin: `date_bin('5 minutes', x)`");
        };
        let stride = match stride {
            DataType::Interval(_) | DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 | DataType::Null => {
                DataType::Interval(IntervalUnit::MonthDayNano)
            }
            other => return plan_err!("the stride of `date_bin` is of type `{other}`: write `INTERVAL '5 minutes'`"),
        };
        let time = match time {
            DataType::Timestamp(_, zone) => timestamp(zone.is_some()),
            DataType::Date32 | DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 | DataType::Null => {
                timestamp(false)
            }
            DataType::Time64(_) | DataType::Time32(_) => DataType::Time64(TimeUnit::Nanosecond),
            other => return plan_err!("`date_bin` is of times, not of type `{other}`"),
        };
        let origin = types.get(2).map(|_| time.clone());
        Ok([stride, time].into_iter().chain(origin).collect())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[1].clone())
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if !matches!(call.args[1].data_type(), DataType::Timestamp(..)) {
            return self.inner.invoke_with_args(call);
        }
        let ColumnarValue::Scalar(ScalarValue::IntervalMonthDayNano(stride)) = &call.args[0] else {
            return exec_err!("the stride of `date_bin` is one interval for all rows");
        };
        let origin = match call.args.get(2) {
            None => Some(0),
            Some(ColumnarValue::Scalar(ScalarValue::TimestampMicrosecond(origin, _))) => *origin,
            Some(_) => return exec_err!("the origin of `date_bin` is one time for all rows"),
        };
        let scalar = matches!(call.args[1], ColumnarValue::Scalar(_));
        let array = call.args[1].to_array(if scalar { 1 } else { call.number_rows })?;
        let times = array.as_primitive::<TimestampMicrosecondType>();
        let zone = times.timezone().map(Arc::from);
        let binned: Times = match (stride, origin) {
            (Some(stride), Some(origin)) => {
                let stride = Stride::of(stride.months, stride.days, stride.nanoseconds)?;
                times.try_unary(|us| stride.bin(us, origin).ok_or_else(|| out_of_range(us)))?
            }
            _ => Times::new_null(times.len()),
        };
        columnar(Arc::new(binned.with_timezone_opt(zone)), scalar)
    }
}

/// How wide the bins are.
enum Stride {
    Months(i64),
    Microseconds(i64),
}

impl Stride {
    fn of(months: i32, days: i32, nanoseconds: i64) -> Result<Self> {
        let us = i64::from(days).checked_mul(DAY_US).and_then(|us| us.checked_add(nanoseconds / 1000));
        match (months, us) {
            (months @ 1.., Some(0)) if nanoseconds == 0 => Ok(Self::Months(i64::from(months))),
            (0, Some(us @ 1..)) if nanoseconds % 1000 == 0 => Ok(Self::Microseconds(us)),
            (0, Some(..=0)) | (..0, _) => exec_err!("the stride of `date_bin` is not greater than nothing"),
            (0, _) => exec_err!("the stride of `date_bin` has parts of a microsecond"),
            _ => exec_err!("the stride of `date_bin` has months together with days or less: write one or the other"),
        }
    }

    /// The begin of the bin that `us` is in; `None` where it is out of range.
    fn bin(&self, us: i64, origin: i64) -> Option<i64> {
        match self {
            Self::Microseconds(stride) => {
                let (stride, distance) = (i128::from(*stride), i128::from(us) - i128::from(origin));
                i64::try_from(i128::from(origin) + distance.div_euclid(stride) * stride).ok()
            }
            Self::Months(stride) => {
                let (time, origin) = (naive(us)?, naive(origin)?);
                let month = |time: NaiveDateTime| i64::from(time.year()) * 12 + i64::from(time.month0());
                let bin = (month(time) - month(origin)).div_euclid(*stride) * stride;
                let begin = shifted(origin, bin)?;
                // The origin need not be the first of a month.
                let begin = if begin > time { shifted(origin, bin - stride)? } else { begin };
                Some(begin.and_utc().timestamp_micros())
            }
        }
    }
}

fn shifted(time: NaiveDateTime, months: i64) -> Option<NaiveDateTime> {
    let distance = Months::new(u32::try_from(months.unsigned_abs()).ok()?);
    if months < 0 { time.checked_sub_months(distance) } else { time.checked_add_months(distance) }
}

fn naive(us: i64) -> Option<NaiveDateTime> {
    as_datetime::<TimestampMicrosecondType>(us)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Timezone {
    signature: Signature,
}

impl ScalarUDFImpl for Timezone {
    fn name(&self) -> &'static str {
        "timezone"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [_, time] = types else {
            return plan_err!("`AT TIME ZONE` takes a time and the name of a zone");
        };
        let time = match time {
            DataType::Timestamp(_, zone) => timestamp(zone.is_some()),
            DataType::Date32 => timestamp(false),
            // A text that is a time says which one, as `TIMESTAMPTZ '…'` does.
            DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 | DataType::Null => timestamp(true),
            other => return plan_err!("`AT TIME ZONE` is of times, not of type `{other}`"),
        };
        Ok(vec![DataType::Utf8, time])
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(timestamp(!matches!(types[1], DataType::Timestamp(_, Some(_)))))
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let ColumnarValue::Scalar(ScalarValue::Utf8(name)) = &call.args[0] else {
            return exec_err!("the zone of `AT TIME ZONE` is one text for all rows, such as 'Europe/Berlin'");
        };
        let scalar = matches!(call.args[1], ColumnarValue::Scalar(_));
        let array = call.args[1].to_array(if scalar { 1 } else { call.number_rows })?;
        let times = array.as_primitive::<TimestampMicrosecondType>();
        let is_instant = times.timezone().is_some();
        let Some(name) = name else {
            let zone: Option<Arc<str>> = (!is_instant).then(|| super::types::UTC.into());
            return columnar(Arc::new(Times::new_null(times.len()).with_timezone_opt(zone)), scalar);
        };
        let Ok(zone) = name.parse::<Tz>() else {
            return exec_err!("there is no time zone `{name}`: write one such as 'Europe/Berlin' or '+01:00'");
        };
        let moved: Times = match is_instant {
            true => times
                .try_unary(|us| local(us, zone).ok_or_else(|| out_of_range(us)))?
                .with_timezone_opt(None::<Arc<str>>),
            false => times
                .try_unary(|us| instant(us, zone).ok_or_else(|| out_of_range(us)))?
                .with_timezone(super::types::UTC),
        };
        columnar(Arc::new(moved), scalar)
    }
}

/// What clocks in `zone` show at an instant.
fn local(us: i64, zone: Tz) -> Option<i64> {
    let offset = zone.offset_from_utc_datetime(&naive(us)?).fix();
    us.checked_add(i64::from(offset.local_minus_utc()) * 1_000_000)
}

/// The instant at which clocks in `zone` show a time. An hour that comes twice is the second one, and one that is left
/// out is counted on from before, as PostgreSQL does.
fn instant(us: i64, zone: Tz) -> Option<i64> {
    let time = naive(us)?;
    let offset = zone.offset_from_local_datetime(&time).latest();
    let offset = offset.or_else(|| zone.offset_from_local_datetime(&(time - Duration::hours(3))).latest())?;
    us.checked_sub(i64::from(offset.fix().local_minus_utc()) * 1_000_000)
}

/// How long an interval is, in nanoseconds: a month has 30 days and a day 24 hours, as PostgreSQL compares them.
pub(super) fn length(interval: Expr) -> Expr {
    ScalarUDF::new_from_impl(Length { signature: Signature::any(1, Volatility::Immutable) }).call(vec![interval])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Length {
    signature: Signature,
}

impl ScalarUDFImpl for Length {
    fn name(&self) -> &'static str {
        "length_of_interval"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Decimal128(38, 0))
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = matches!(call.args[0], ColumnarValue::Scalar(_));
        let array = call.args[0].to_array(if scalar { 1 } else { call.number_rows })?;
        let lengths = match array.data_type() {
            // As an interval the longest would be out of range.
            DataType::Duration(unit) => {
                let nanoseconds: i128 = match unit {
                    TimeUnit::Second => 1_000_000_000,
                    TimeUnit::Millisecond => 1_000_000,
                    TimeUnit::Microsecond => 1_000,
                    TimeUnit::Nanosecond => 1,
                };
                let counts = datafusion::arrow::compute::cast(&array, &DataType::Int64)?;
                let counts = counts.as_primitive::<Int64Type>();
                counts.unary::<_, Decimal128Type>(|count| i128::from(count) * nanoseconds)
            }
            _ => {
                let parts = datafusion::arrow::compute::cast(&array, &DataType::Interval(IntervalUnit::MonthDayNano))?;
                parts.as_primitive::<IntervalMonthDayNanoType>().unary::<_, Decimal128Type>(|part| {
                    let days = i128::from(part.months) * 30 + i128::from(part.days);
                    days * i128::from(DAY_US) * 1000 + i128::from(part.nanoseconds)
                })
            }
        };
        columnar(Arc::new(lengths.with_precision_and_scale(38, 0)?), scalar)
    }
}

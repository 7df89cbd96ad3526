//! Dates and times, between text and what Arrow holds. All times are UTC.

use chrono::{Datelike, NaiveDate};

use super::number::Why;

/// Days from the first of January of year 1 to that of 1970.
const EPOCH_DAYS: i32 = 719_163;
const DAY_SECONDS: i64 = 86_400;
const SECOND_US: i64 = 1_000_000;
/// 0001-01-01T00:00:00 and 10000-01-01T00:00:00, which is the first that four digits cannot write.
const START_US: i64 = -62_135_596_800 * SECOND_US;
const END_US: i64 = 253_402_300_800 * SECOND_US;

const NOT_A_DATE: Why = "is not a date such as \"2026-01-03\"";
const NOT_A_TIME: Why = "is not a time such as \"2026-01-03T17:05:00Z\"";
const OUT_OF_RANGE: Why = "is not between the years 1 and 9999";

/// `YYYY-MM-DD` as days since 1970.
pub(super) fn date(text: &str) -> Result<i32, Why> {
    if text.len() != 10 {
        return Err(NOT_A_DATE);
    }
    days(text.as_bytes()).ok_or(NOT_A_DATE)
}

/// An RFC 3339 time, with `T` or a space, as microseconds since 1970, rounded to the nearest. Without an offset it is
/// UTC.
pub(super) fn timestamp(text: &str) -> Result<i64, Why> {
    let bytes = text.as_bytes();
    let (seconds, rest) = date_and_time(bytes).ok_or(NOT_A_TIME)?;
    let (fraction_us, rest) = fraction(rest).ok_or(NOT_A_TIME)?;
    let offset_seconds = offset(rest).ok_or(NOT_A_TIME)?;
    let us = (seconds - offset_seconds) * SECOND_US + fraction_us;
    if (START_US..END_US).contains(&us) { Ok(us) } else { Err(OUT_OF_RANGE) }
}

/// The same, but for digits below a microsecond: those are refused.
pub(super) fn exact_timestamp(text: &str) -> Result<i64, Why> {
    let us = timestamp(text)?;
    let fraction = text.split_once('.').map_or("", |(_, rest)| rest);
    let digits = fraction.bytes().take_while(u8::is_ascii_digit);
    match digits.skip(6).all(|digit| digit == b'0') {
        true => Ok(us),
        false => Err("is not a whole number of microseconds"),
    }
}

fn date_and_time(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (time, rest) = bytes.split_at_checked(19)?;
    if !matches!(time[10], b'T' | b't' | b' ') || time[13] != b':' || time[16] != b':' {
        return None;
    }
    let (hour, minute, second) = (two(&time[11..])?, two(&time[14..])?, two(&time[17..])?);
    // Second 60 is a leap second; like PostgreSQL, it counts as the first one of the next minute.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days = i64::from(days(time)?);
    Some((days * DAY_SECONDS + i64::from(hour * 3600 + minute * 60 + second), rest))
}

/// Microseconds from `.` and digits, if they are there, and what follows.
fn fraction(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let Some(digits) = bytes.strip_prefix(b".") else { return Some((0, bytes)) };
    let count = digits.iter().take_while(|b| b.is_ascii_digit()).count();
    if count == 0 {
        return None;
    }
    let digit = |place: usize| if place < count { i64::from(digits[place] - b'0') } else { 0 };
    let us = (0..6).fold(0, |us, place| us * 10 + digit(place));
    Some((us + i64::from(digit(6) >= 5), &digits[count..]))
}

/// Seconds east of UTC.
fn offset(bytes: &[u8]) -> Option<i64> {
    match bytes {
        [] | [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (two(&[*h1, *h2])?, two(&[*m1, *m2])?);
            let seconds = i64::from(hours * 3600 + minutes * 60);
            (hours <= 23 && minutes <= 59).then_some(if *sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

/// Days since 1970 of the `YYYY-MM-DD` that `bytes` begins with.
fn days(bytes: &[u8]) -> Option<i32> {
    if bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let year = two(bytes)? * 100 + two(&bytes[2..])?;
    let (month, day) = (two(&bytes[5..])?, two(&bytes[8..])?);
    let date = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day)?;
    (year > 0).then(|| date.num_days_from_ce() - EPOCH_DAYS)
}

/// The number that the first two bytes write.
fn two(bytes: &[u8]) -> Option<u32> {
    match bytes {
        [a @ b'0'..=b'9', b @ b'0'..=b'9', ..] => Some(u32::from(a - b'0') * 10 + u32::from(b - b'0')),
        _ => None,
    }
}

/// Writes days since 1970 as `YYYY-MM-DD`; `false` when they are beyond every calendar.
pub(super) fn write_date(days: i64, out: &mut Vec<u8>) -> bool {
    let Some(date) = i32::try_from(days)
        .ok()
        .and_then(|days| days.checked_add(EPOCH_DAYS))
        .and_then(NaiveDate::from_num_days_from_ce_opt)
    else {
        return false;
    };
    let year = date.year();
    if !(0..=9999).contains(&year) {
        out.push(if year < 0 { b'-' } else { b'+' });
    }
    let year = year.unsigned_abs();
    if year > 9999 {
        out.extend_from_slice(year.to_string().as_bytes());
    } else {
        write_padded(year.into(), 4, out);
    }
    out.push(b'-');
    write_padded(date.month().into(), 2, out);
    out.push(b'-');
    write_padded(date.day().into(), 2, out);
    true
}

/// Writes a time since 1970 in units of which there are `per_second`, as `YYYY-MM-DDTHH:MM:SS`, with a fraction of six
/// digits (nine, if nanoseconds need them) when there is one.
pub(super) fn write_timestamp(value: i64, per_second: i64, out: &mut Vec<u8>) -> bool {
    let (seconds, part) = (value.div_euclid(per_second), value.rem_euclid(per_second));
    if !write_date(seconds.div_euclid(DAY_SECONDS), out) {
        return false;
    }
    out.push(b'T');
    let second_of_day = seconds.rem_euclid(DAY_SECONDS).unsigned_abs();
    write_padded(second_of_day / 3600, 2, out);
    out.push(b':');
    write_padded(second_of_day / 60 % 60, 2, out);
    out.push(b':');
    write_padded(second_of_day % 60, 2, out);
    let nanoseconds = (part * (1_000_000_000 / per_second)).unsigned_abs();
    if nanoseconds > 0 {
        out.push(b'.');
        match nanoseconds % 1000 {
            0 => write_padded(nanoseconds / 1000, 6, out),
            _ => write_padded(nanoseconds, 9, out),
        }
    }
    true
}

/// Writes the last `width` digits of `number`.
fn write_padded(number: u64, width: u32, out: &mut Vec<u8>) {
    for place in (0..width).rev() {
        let [digit, ..] = (number / 10_u64.pow(place) % 10).to_le_bytes();
        out.push(b'0' + digit);
    }
}

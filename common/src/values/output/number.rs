//! Numbers in decimal digits.

use datafusion::arrow::error::ArrowError;

/// Writes an integer.
pub(super) fn write_integer(number: i128, out: &mut Vec<u8>) {
    if number < 0 {
        out.push(b'-');
    }
    write_digits(number.unsigned_abs(), 1, out);
}

/// Writes `number` over ten to the `scale`, with `scale` digits after the point.
pub(super) fn write_decimal(number: i128, scale: u32, out: &mut Vec<u8>) {
    if number < 0 {
        out.push(b'-');
    }
    let start = out.len();
    write_digits(number.unsigned_abs(), scale as usize + 1, out);
    if scale > 0 {
        let point = out.len() - scale as usize;
        debug_assert!(point > start, "there is a digit before the point");
        out.insert(point, b'.');
    }
}

/// Writes at least `width` digits.
fn write_digits(number: u128, width: usize, out: &mut Vec<u8>) {
    // 39 digits hold every `u128`; a scale is at most 38.
    let mut digits = [b'0'; 40];
    let mut start = digits.len();
    let mut digit = |rest: u64| {
        start -= 1;
        let [digit, ..] = (rest % 10).to_le_bytes();
        digits[start] = b'0' + digit;
        rest / 10
    };
    let mut wide = number;
    let mut rest = loop {
        match u64::try_from(wide) {
            Ok(rest) => break rest,
            Err(_) => {
                // The remainder of a division by ten to the 19 fits, and all of its digits count.
                let mut low = u64::try_from(wide % 10_u128.pow(19)).unwrap_or(0);
                wide /= 10_u128.pow(19);
                (0..19).for_each(|_| low = digit(low));
            }
        }
    };
    while rest > 0 {
        rest = digit(rest);
    }
    let start = start.min(digits.len() - width.min(digits.len()));
    out.extend_from_slice(&digits[start..]);
}

/// Writes the shortest number that reads back as the same; the three that are none by their names, `quoted` in JSON.
pub(super) fn write_float<T: Into<f64> + serde::Serialize + Copy>(
    number: T,
    quoted: bool,
    out: &mut Vec<u8>,
) -> Result<(), ArrowError> {
    let wide: f64 = number.into();
    let name = if wide.is_finite() {
        return serde_json::to_writer(out, &number).map_err(|error| ArrowError::JsonError(error.to_string()));
    } else if wide.is_nan() {
        "NaN"
    } else if wide > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    };
    let quote: &[u8] = if quoted { b"\"" } else { b"" };
    [quote, name.as_bytes(), quote].into_iter().for_each(|part| out.extend_from_slice(part));
    Ok(())
}

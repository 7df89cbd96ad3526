//! Numbers from their digits: exact, or refused.

use std::str::FromStr;

/// Why a text is no value of the type that is wanted, to follow the text in a sentence.
pub(super) type Why = &'static str;

const NOT_A_NUMBER: Why = "is not a number";
const OUT_OF_RANGE: Why = "is out of its range";
/// The longest a `DECIMAL` can be.
const DECIMAL_DIGITS_MAX: u32 = 38;

/// An integer. `1.0` and `1e3` are none, whatever their value.
pub(super) fn integer<T: FromStr>(text: &str) -> Result<T, Why> {
    text.parse().map_err(|_| {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
            OUT_OF_RANGE
        } else if float::<f64>(digits) != Err(NOT_A_NUMBER) {
            if digits.contains('.') { "has a fraction" } else { "has an exponent" }
        } else {
            NOT_A_NUMBER
        }
    })
}

/// A floating point number, the nearest to the text; never infinite.
pub(super) fn float<T: FromStr + Into<f64> + Copy>(text: &str) -> Result<T, Why> {
    // The standard library also takes words such as `inf`.
    if !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e' | b'E')) {
        return Err(NOT_A_NUMBER);
    }
    let number: T = text.parse().map_err(|_| NOT_A_NUMBER)?;
    if number.into().is_finite() { Ok(number) } else { Err(OUT_OF_RANGE) }
}

/// A decimal times ten to the `scale`. Never rounded: a digit after the last place that there is room for is refused,
/// be it a zero. An exponent moves the point before the places are counted.
pub(super) fn decimal(text: &str, precision: u8, scale: i8) -> Result<i128, Why> {
    let (negative, unsigned) = match text.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let digits = Digits::read(unsigned)?;
    let places = i64::from(scale).saturating_sub(digits.places);
    if places < 0 {
        return Err("has more fractional digits than that");
    }
    if digits.count == 0 {
        return Ok(0);
    }
    let limit = 10_u128.pow(u32::from(precision));
    let number = u32::try_from(places)
        .ok()
        .filter(|&places| places <= DECIMAL_DIGITS_MAX && digits.count <= DECIMAL_DIGITS_MAX)
        .and_then(|places| digits.number.checked_mul(10_u128.pow(places)))
        .filter(|&number| number < limit)
        .and_then(|number| i128::try_from(number).ok())
        .ok_or(OUT_OF_RANGE)?;
    Ok(if negative { -number } else { number })
}

/// An unsigned number: all its digits, and how many of them stand after the point.
struct Digits {
    /// Meaningless when there are more than 38 of them.
    number: u128,
    /// How many there are, from the first that is not zero.
    count: u32,
    places: i64,
}

impl Digits {
    fn read(text: &[u8]) -> Result<Self, Why> {
        let mut digits = Self { number: 0, count: 0, places: 0 };
        let (mut any, mut point) = (false, false);
        for (i, &byte) in text.iter().enumerate() {
            match byte {
                b'0'..=b'9' => {
                    any = true;
                    digits.push(byte - b'0');
                    digits.places += i64::from(point);
                }
                b'.' if !point => point = true,
                b'e' | b'E' if any => {
                    digits.places = digits.places.saturating_sub(exponent(&text[i + 1..])?);
                    return Ok(digits);
                }
                _ => return Err(NOT_A_NUMBER),
            }
        }
        if any { Ok(digits) } else { Err(NOT_A_NUMBER) }
    }

    fn push(&mut self, digit: u8) {
        if self.count < DECIMAL_DIGITS_MAX {
            self.number = self.number * 10 + u128::from(digit);
        }
        self.count = self.count.saturating_add(u32::from(self.count > 0 || digit > 0));
    }
}

/// The exponent after the `e`, no larger than an `i64` however many digits it has.
fn exponent(text: &[u8]) -> Result<i64, Why> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(NOT_A_NUMBER);
    }
    let exponent =
        digits.iter().fold(0_i64, |sum, digit| sum.saturating_mul(10).saturating_add(i64::from(digit - b'0')));
    Ok(if negative { -exponent } else { exponent })
}

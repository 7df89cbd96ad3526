//! What would make values of any size is an error, for constants and columns.

use std::collections::BTreeSet;

use datafusion::prelude::{SessionConfig, SessionContext};

use super::{
    super::{Stop, session},
    answer, check,
};
use crate::sql::bounded;

/// Functions whose results are about as large as their arguments at most, whatever these are. A new one is looked at
/// before it is written here: what may make more is in `bounded/growth.rs`.
const NO_LARGER: &str = "
    abs acos acosh array_add array_any_value array_avg array_compact array_dims array_distance array_distinct
    array_element array_except array_has array_has_all array_has_any array_intersect array_length array_max
    array_min array_ndims array_normalize array_pop_back array_pop_front array_position array_product array_remove
    array_remove_all array_remove_n array_reverse array_scale array_slice array_sort array_subtract array_sum
    arrow_field arrow_metadata arrow_typeof ascii asin asinh atan atan2 atanh bit_length btrim cardinality
    cast_to_type cbrt ceil character_length chr coalesce contains cos cosh cosine_distance cot current_date
    current_time date_bin date_part date_trunc decode degrees digest empty ends_with exp factorial file_row_index
    find_in_set flatten floor from_unixtime gcd get_field greatest initcap inner_product input_file_name isnan
    iszero lcm least left levenshtein ln log log10 log2 lower ltrim make_date make_time map_entries map_extract
    map_keys map_values md5 named_struct nanvl now nullif nvl nvl2 octet_length pi power radians random regexp_count
    regexp_instr regexp_like reverse right round rtrim sha224 sha256 sha384 sha512 signum sin sinh split_part sqrt
    starts_with strpos struct substr substr_index tan tanh timezone to_date to_hex to_local_time to_time
    to_timestamp to_timestamp_micros to_timestamp_millis to_timestamp_nanos to_timestamp_seconds to_unixtime trunc
    try_cast_to_type union_extract union_tag upper uuid version with_metadata
";

#[test]
fn every_function_has_been_looked_at() {
    let state = session(SessionConfig::new()).build();
    let functions = state.scalar_functions().values();
    let names: BTreeSet<&str> =
        functions.filter(|function| !bounded::may_grow(function)).map(|function| function.name()).collect();
    let looked_at: BTreeSet<&str> = NO_LARGER.split_whitespace().collect();
    let new: Vec<&&str> = names.difference(&looked_at).collect();
    let gone: Vec<&&str> = looked_at.difference(&names).collect();
    assert!(new.is_empty() && gone.is_empty(), "new: {new:?}, gone: {gone:?}");
}

#[tokio::test]
async fn what_is_too_large_is_an_error_before_it_is_made() {
    let large = "makes at most";
    for (sql, expected) in [
        ("SELECT rpad('a', v) FROM (VALUES (9223372036854775807)) t(v)", Err("`rpad` would make a value of")),
        ("SELECT rpad('a', 9223372036854775807)", Err("`rpad` would make a value of 9223372036854775808 bytes")),
        ("SELECT lpad('a', n) FROM m WHERE n > 1", Err(large)),
        ("SELECT lpad('a', n, 'ß') FROM m WHERE n > 1", Err(large)),
        ("SELECT lpad('a', n, '') FROM m WHERE n < 1 ORDER BY n", Ok(" | ")),
        ("SELECT rpad(k, s, 'xy') FROM m WHERE s = 200 OR s = 1 ORDER BY s DESC LIMIT 1 OFFSET 1", Ok("a")),
        ("SELECT repeat(arrow_cast('a', 'LargeUtf8'), n) FROM m WHERE n > 1", Err("`repeat` would make a value of")),
        ("SELECT repeat('ab', 3), repeat(k, p) FROM m WHERE p = 1", Ok("ababab a")),
        ("SELECT array_resize([1], n, 0) FROM m WHERE n > 1", Err("`array_resize` would make a value")),
        ("SELECT array_resize([1], 3, 0)", Ok("[1, 0, 0]")),
        ("SELECT array_repeat(k, n) FROM m WHERE n > 1", Err("`array_repeat` would make a value of")),
        ("SELECT range(0, n) FROM m WHERE n > 1", Err("`range` would make a value")),
        ("SELECT generate_series(n, 0, -1) FROM m WHERE n > 1", Err("`generate_series` would make a value")),
        ("SELECT range(n, -n) FROM m WHERE n = 1", Ok("[]")),
        ("SELECT generate_series(1, 10, 4), range(5, 1, -2)", Ok("[1, 5, 9] [5, 3]")),
        (
            "SELECT range(TIMESTAMP '2026-01-01', TIMESTAMP '2026-03-01', INTERVAL '1 month -30 days')",
            Err("without end"),
        ),
        ("SELECT range(DATE '2026-01-01', DATE '2026-01-03', INTERVAL '1 day')", Ok("[2026-01-01, 2026-01-02]")),
        ("SELECT generate_series(DATE '0001-01-01', DATE '9999-01-01', INTERVAL '1 day') IS NULL", Ok("false")),
        ("SELECT replace(repeat('a', 60000), 'a', v) FROM (VALUES (repeat('b', 60000))) t(v)", Err("`replace`")),
        ("SELECT length(replace(repeat('ab', 6000), 'b', repeat('c', 6000)))", Ok("36006000")),
        ("SELECT regexp_replace(repeat('a', 60000), 'a', repeat('b', 60000), 'g')", Err("`regexp_replace`")),
        ("SELECT regexp_replace('aaa', 'a', 'b\\0', 'g')", Ok("bababa")),
        (
            "SELECT regexp_match(v, repeat('(', 20) || 'b*' || repeat(')', 20)) FROM (VALUES (repeat('b', 5000000))) t(v)",
            Err("`regexp_match`"),
        ),
        ("SELECT array_to_string(range(0, 100000), repeat('b', 60000))", Err("`array_to_string`")),
        ("SELECT array_to_string([1, NULL, 3], ', ', 'none')", Ok("1, none, 3")),
        (
            "SELECT concat(v, v) FROM (VALUES (repeat('b', 40000000))) t(v)",
            Err("`concat` would make a value of 80000000"),
        ),
        ("SELECT v || v FROM (VALUES (repeat('b', 40000000))) t(v)", Err("`||` would make a value of 80000000")),
        ("SELECT k || '-' || k, 'a' || NULL, 'a' || 'b' FROM m WHERE p = 1", Ok("a-a NULL ab")),
        ("SELECT k || 1, 1 || 'a', [1] || [2] FROM m WHERE p = 1", Ok("a1 1a [1, 2]")),
        ("SELECT to_char(ts, repeat('%c', 5000000)) FROM m", Err("`to_char`")),
        ("SELECT arrow_cast(NULL, 'FixedSizeBinary(2000000000)')", Err("choose a type")),
        ("SELECT arrow_cast(1, 'Int32')", Ok("1")),
        ("SELECT array_concat(v, v) IS NULL FROM (VALUES (range(0, 5000000))) t(v)", Err("`array_concat`")),
        ("SELECT lpad(k, p), rpad(k, p, 'x') FROM m WHERE p < 0", Ok("NULL NULL")),
    ] {
        check(sql, expected).await;
    }
}

#[tokio::test]
async fn what_a_function_calls_a_defect_is_a_matter_of_its_arguments() {
    for (sql, expected) in [
        ("SELECT array_resize([1], -1, 0)", Err("`array_resize` cannot be computed of these arguments")),
        ("SELECT array_position([1], 1, n) FROM m WHERE n < 0", Err("out of bounds")),
        ("SELECT array_position([1, 1], 1, 2)", Ok("2")),
        ("SELECT regexp_replace('a', 'a', 'b', '[')", Err("`regexp_replace` cannot be computed of these arguments")),
        ("SELECT log(v) FROM (VALUES (-1.5), (1e-10)) t(v)", Err("`log` cannot be computed of these arguments")),
        ("SELECT max([n]) OVER () FROM m", Err("`max` over a window is not of lists")),
        ("SELECT percentile_cont(x, n) OVER () FROM m", Err("one number for all rows")),
        ("SELECT log(2, 8), power(2, 3), log(2, power(2, x)) FROM m WHERE n = 0 OR x = 1 LIMIT 1", Ok("3.0 8.0 1.0")),
    ] {
        check(sql, expected).await;
    }
}

/// A query has one of these with its options, as the serving layer's have.
#[tokio::test]
async fn constants_are_few_together_and_functions_stop() {
    let mut config = SessionConfig::new();
    let stop = Stop::default();
    config.options_mut().extensions.insert(stop.clone());
    let context = SessionContext::new_with_state(session(config).build());
    let many: Vec<String> = (0..24).map(|n| format!("octet_length(repeat('{n}', 25000000))")).collect();
    let error = answer(&context, &format!("SELECT {}", many.join(", "))).await.unwrap_err().strip_backtrace();
    assert!(error.contains("the constants of the query come to"), "{error}");
    drop(stop.on_drop());
    let error = answer(&context, "SELECT upper(v) FROM (VALUES ('a'), ('b')) t(v)").await.unwrap_err();
    assert!(error.strip_backtrace().contains("the query was stopped"), "{error}");
}

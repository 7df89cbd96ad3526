//! Every operator, function and aggregate that is drawn, with how the engines write it.
//!
//! Where engines differ in meaning, the operator is written so that they agree; [`super::differences`] names those.

use super::sql::{Op, op};

/// What a value is computed from others with.
pub(super) const OPS: &[Op] = &[
    op('b', "**", "({0} = {1})"),
    op('b', "**", "({0} <> {1})"),
    op('b', "**", "({0} < {1})"),
    op('b', "**", "({0} <= {1})"),
    op('b', "**", "({0} > {1})"),
    op('b', "**", "({0} >= {1})"),
    op('b', "**", "({0} IS DISTINCT FROM {1})"),
    op('b', "**", "({0} IS NOT DISTINCT FROM {1})"),
    op('b', "***", "({0} BETWEEN {1} AND {2})"),
    op('b', "***", "({0} NOT BETWEEN {1} AND {2})"),
    op('b', "***", "({0} IN ({1}, {2}))"),
    op('b', "***", "({0} NOT IN ({1}, {2}))"),
    op('b', "*", "({0} IS NULL)"),
    op('b', "*", "({0} IS NOT NULL)"),
    op('b', "bb", "({0} AND {1})"),
    op('b', "bb", "({0} OR {1})"),
    op('b', "b", "(NOT {0})"),
    op('b', "b", "({0} IS TRUE)").needs("truth"),
    op('b', "b", "({0} IS NOT TRUE)").needs("truth"),
    op('b', "b", "({0} IS NOT FALSE)").needs("truth"),
    op('b', "b", "({0} IS UNKNOWN)").duck("({0} IS NULL)").needs("truth"),
    op('b', "b**", "({0} IS DISTINCT FROM true AND {1} = {2})").needs("precedence"),
    op('b', "**b", "({0} IS NOT DISTINCT FROM {1} OR {2})").needs("precedence"),
    op('b', "**b", "(NOT {0} = {1} AND {2})").needs("precedence"),
    op('b', "lll", "({0} % 3 + {1} % 5 * {2} % 7 > 2)").needs("precedence"),
    op('b', "***b", "({0} NOT BETWEEN {1} AND {2} AND {3})").needs("precedence"),
    op('b', "bb**", "({0} OR {1} AND {2} <= {3})").needs("precedence"),
    op('b', "**", "({0} = {1} IS NULL)").needs("precedence"),
    op('b', "t", "({0} LIKE 'a%')"),
    op('b', "t", "({0} LIKE '%b_')"),
    op('b', "t", "({0} NOT LIKE '%a%')"),
    op('b', "t", "({0} ILIKE 'A_%')"),
    op('b', "tt", "starts_with({0}, {1})"),
    op('b', "il", "({0} = {1})"),
    op('b', "sl", "({0} < {1})"),
    op('b', "ld", "({0} > {1})"),
    op('b', "nl", "({0} <= {1})"),
    op('b', "nd", "({0} < {1})").needs("mixed"),
    op('b', "rd", "({0} = {1})"),
    op('b', "en", "({0} > {1})"),
    op('b', "DT", "({0} < {1})"),
    op('b', "n", "({0} > 12.5)").needs("decimal_literals"),
    op('b', "p", "({0} <> 0.0001)").needs("decimal_literals"),
    op('b', "TT", "({0} - {1} > INTERVAL '1 day')").needs("far_times"),
    op('*', "b**", "CASE WHEN {0} THEN {1} ELSE {2} END"),
    op('*', "***", "CASE {0} WHEN {1} THEN {2} END"),
    op('*', "**", "coalesce({0}, {1})"),
    op('*', "**", "nullif({0}, {1})"),
    op('*', "**", "greatest({0}, {1})"),
    op('*', "**", "least({0}, {1})"),
    op('l', "ll", "({0} + {1})"),
    op('l', "ll", "({0} - {1})"),
    op('l', "ll", "({0} * {1})"),
    op('i', "ii", "({0} + {1})"),
    op('i', "ii", "({0} * {1})"),
    op('s', "ss", "({0} - {1})"),
    op('l', "il", "({0} + {1})"),
    op('l', "l", "({0} / 3)").duck("({0} // 3)"),
    op('l', "l", "({0} % 7)"),
    op('l', "ll", "({0} / {1})").duck("({0} // {1})").needs("row_errors"),
    op('l', "ll", "({0} % {1})").needs("row_errors"),
    op('l', "l", "abs({0})"),
    op('l', "l", "(- {0})").duck("CAST((- {0}) AS BIGINT)"),
    op('l', "i", "CAST({0} AS BIGINT)"),
    op('l', "s", "CAST({0} AS BIGINT)"),
    op('i', "l", "CAST({0} AS INT)").needs("row_errors"),
    op('s', "i", "CAST({0} AS SMALLINT)").needs("row_errors"),
    op('l', "n", "CAST({0} AS BIGINT)").needs("casts"),
    op('l', "f", "CAST({0} AS BIGINT)").needs("casts"),
    op('i', "b", "CAST({0} AS INT)"),
    op('l', "t", "CAST({0} AS BIGINT)").needs("row_errors"),
    op('l', "t", "CAST(length({0}) AS BIGINT)"),
    op('l', "tt", "CAST(strpos({0}, {1}) AS BIGINT)"),
    op('l', "T", "CAST(extract(year FROM {0}) AS BIGINT)"),
    op('l', "T", "CAST(extract(quarter FROM {0}) AS BIGINT)"),
    op('l', "T", "CAST(extract(hour FROM {0}) AS BIGINT)"),
    op('l', "T", "CAST(extract(week FROM {0}) AS BIGINT)"),
    op('l', "Z", "CAST(extract(minute FROM {0}) AS BIGINT)"),
    op('l', "D", "CAST(extract(dow FROM {0}) AS BIGINT)"),
    op('l', "D", "CAST(extract(doy FROM {0}) AS BIGINT)"),
    op('l', "D", "CAST(date_part('month', {0}) AS BIGINT)"),
    op('d', "dd", "({0} + {1})"),
    op('d', "dd", "({0} * {1})"),
    op('f', "f", "({0} / 2)"),
    op('d', "d", "abs({0})"),
    op('d', "d", "floor({0})"),
    op('d', "d", "ceil({0})"),
    op('d', "d", "sqrt(abs({0}))"),
    op('d', "d", "sqrt({0})").needs("row_errors"),
    op('d', "dd", "({0} / {1})").needs("row_errors"),
    op('d', "i", "CAST({0} AS DOUBLE)").postgres("CAST({0} AS DOUBLE PRECISION)"),
    op('d', "n", "CAST({0} AS DOUBLE)").postgres("CAST({0} AS DOUBLE PRECISION)"),
    op('d', "r", "CAST({0} AS DOUBLE)").postgres("CAST({0} AS DOUBLE PRECISION)"),
    op('r', "rr", "({0} - {1})"),
    op('e', "nn", "({0} + {1})"),
    op('e', "nn", "({0} - {1})"),
    op('e', "nn", "({0} * {1})"),
    op('e', "np", "({0} * {1})"),
    op('e', "n", "({0} * 1.1)").needs("decimal_literals"),
    op('e', "n", "abs({0})"),
    op('e', "n", "(- {0})"),
    op('e', "n", "round({0}, 1)").needs("casts"),
    op('n', "l", "CAST({0} AS DECIMAL(12,2))").needs("row_errors"),
    op('n', "p", "CAST({0} AS DECIMAL(12,2))").needs("casts"),
    op('t', "t", "upper({0})"),
    op('t', "t", "lower({0})"),
    op('t', "tt", "({0} || {1})"),
    op('t', "tt", "concat({0}, {1})"),
    op('t', "tt", "concat_ws('-', {0}, {1})"),
    op('t', "t", "substr({0}, 2)"),
    op('t', "t", "substr({0}, 1, 3)"),
    op('t', "t", "left({0}, 2)"),
    op('t', "t", "right({0}, 2)"),
    op('t', "t", "trim({0})"),
    op('t', "t", "replace({0}, 'a', 'bb')"),
    op('t', "t", "reverse({0})"),
    op('t', "t", "md5({0})"),
    op('t', "t", "repeat({0}, 2)"),
    op('t', "t", "lpad({0}, 5, '*')"),
    op('t', "t", "split_part({0}, 'a', 1)"),
    op('t', "t", "translate({0}, 'ab', 'x')"),
    op('t', "l", "CAST({0} AS TEXT)"),
    op('t', "s", "CAST({0} AS TEXT)"),
    op('t', "b", "CAST({0} AS TEXT)"),
    op('t', "D", "CAST({0} AS TEXT)"),
    op('t', "n", "CAST({0} AS TEXT)"),
    op('t', "x", "encode({0}, 'hex')").duck("lower(hex({0}))"),
    op('T', "T", "date_trunc('year', {0})").needs("times_as_keys"),
    op('T', "T", "date_trunc('month', {0})").needs("times_as_keys"),
    op('T', "T", "date_trunc('week', {0})").needs("times_as_keys"),
    op('T', "T", "date_trunc('day', {0})"),
    op('T', "T", "date_trunc('hour', {0})"),
    op('T', "T", "date_trunc('second', {0})"),
    op('Z', "Z", "date_trunc('day', {0})"),
    op('Z', "Z", "date_trunc('month', {0})").needs("times_as_keys"),
    op('D', "D", "CAST(date_trunc('month', {0}) AS DATE)").needs("times_as_keys"),
    op('T', "T", "date_bin(INTERVAL '1 hour', {0})")
        .duck("time_bucket(INTERVAL '1 hour', {0}, TIMESTAMP '1970-01-01')")
        .postgres("date_bin('1 hour', {0}, TIMESTAMP '1970-01-01')")
        .needs("times_as_keys"),
    op('T', "T", "({0} + INTERVAL '1 day')").needs("times_as_keys"),
    op('T', "T", "({0} - INTERVAL '1 month')").needs("times_as_keys"),
    op('Z', "Z", "({0} + INTERVAL '90 minutes')").needs("times_as_keys"),
    op('D', "D", "CAST({0} + INTERVAL '1 day' AS DATE)").needs("times_as_keys"),
    op('D', "T", "CAST({0} AS DATE)"),
    op('D', "Z", "CAST({0} AS DATE)"),
    op('T', "D", "CAST({0} AS TIMESTAMP)").needs("times_as_keys"),
    op('T', "Z", "CAST({0} AS TIMESTAMP)").needs("times_as_keys"),
    op('T', "Z", "({0} AT TIME ZONE 'Europe/Berlin')").needs("zones"),
    op('Z', "T", "({0} AT TIME ZONE 'Europe/Berlin')").needs("zones"),
];

/// What folds rows, in views and queries.
pub(super) const AGGREGATES: &[Op] = &[
    op('l', "", "count(*){f}"),
    op('l', "*", "count({0}){f}"),
    op('l', "*", "count(DISTINCT {0}){f}"),
    op('l', "i", "sum({0}){f}").duck("CAST(sum({0}){f} AS BIGINT)"),
    op('l', "s", "sum({0}){f}").duck("CAST(sum({0}){f} AS BIGINT)"),
    op('e', "l", "sum({0}){f}").duck("CAST(sum({0}){f} AS DECIMAL(38,0))"),
    op('e', "n", "sum({0}){f}"),
    op('e', "p", "sum({0}){f}"),
    op('f', "f", "sum({0}){f}"),
    op('l', "i", "sum(DISTINCT {0}){f}").duck("CAST(sum(DISTINCT {0}){f} AS BIGINT)"),
    op('a', "f", "avg({0}){f}"),
    op('a', "i", "avg({0}){f}"),
    op('a', "n", "avg({0}){f}"),
    op('a', "f", "avg(DISTINCT {0}){f}"),
    op('*', "*", "min({0}){f}").postgres("(array_agg({0} ORDER BY {0}){f})[1]"),
    op('*', "*", "max({0}){f}").postgres("(array_agg({0} ORDER BY {0} DESC NULLS LAST){f})[1]"),
    op('l', "l", "bit_and({0}){f}"),
    op('l', "l", "bit_or({0}){f}"),
    op('i', "i", "bit_xor({0}){f}"),
    op('b', "b", "bool_and({0}){f}"),
    op('b', "b", "bool_or({0}){f}"),
    op('a', "f", "stddev({0}){f}"),
    op('a', "f", "stddev_pop({0}){f}"),
    op('a', "f", "var_samp({0}){f}"),
    op('a', "f", "var_pop({0}){f}"),
    op('a', "ff", "corr({0}, {1}){f}").duck("nullif(corr({0}, {1}){f}, 'NaN'::DOUBLE)").needs("regression"),
    op('a', "ff", "covar_samp({0}, {1}){f}").needs("regression"),
    op('a', "ff", "covar_pop({0}, {1}){f}").needs("regression"),
    op('a', "ff", "regr_slope({0}, {1}){f}").duck("nullif(regr_slope({0}, {1}){f}, 'NaN'::DOUBLE)").needs("regression"),
    op('a', "ff", "regr_intercept({0}, {1}){f}")
        .duck("nullif(regr_intercept({0}, {1}){f}, 'NaN'::DOUBLE)")
        .needs("regression"),
    op('l', "ff", "regr_count({0}, {1}){f}").needs("regression"),
    op('a', "ff", "regr_avgx({0}, {1}){f}").needs("regression"),
    op('a', "ff", "regr_avgy({0}, {1}){f}").needs("regression"),
    op('a', "ff", "regr_sxx({0}, {1}){f}").needs("regression"),
    op('a', "ff", "regr_syy({0}, {1}){f}").needs("regression"),
    op('a', "ff", "regr_sxy({0}, {1}){f}").needs("regression"),
    op('a', "f", "median({0}){f}").postgres("percentile_cont(0.5) WITHIN GROUP (ORDER BY {0}){f}").needs("percentiles"),
    op('a', "f", "percentile_cont(0.95) WITHIN GROUP (ORDER BY {0}){f}")
        .duck("quantile_cont({0}, 0.95){f}")
        .needs("percentiles"),
    op('h', "t", "approx_distinct({0}){f}").duck("count(DISTINCT {0}){f}").postgres("count(DISTINCT {0}){f}"),
    op('h', "l", "approx_distinct({0}){f}").duck("count(DISTINCT {0}){f}").postgres("count(DISTINCT {0}){f}"),
    op('g', "f", "approx_median({0}){f}").duck("max({0}){f}").postgres("max({0}){f}"),
    op('g', "f", "approx_percentile_cont(0.9) WITHIN GROUP (ORDER BY {0}){f}")
        .duck("max({0}){f}")
        .postgres("max({0}){f}"),
    // Whichever it is, it is one if there is one.
    op('g', "f", "any_value({0}){f}").plain("max({0}){f}").postgres("max({0}){f}"),
    op('a', "f", "mean({0}){f}").duck("avg({0}){f}").postgres("avg({0}){f}"),
    op('a', "l", "avg({0}){f}"),
    op('a', "f", "stddev_samp({0}){f}"),
    op('a', "f", "var({0}){f}").duck("var_samp({0}){f}").postgres("var_samp({0}){f}"),
    op('a', "f", "var_sample({0}){f}").duck("var_samp({0}){f}").postgres("var_samp({0}){f}"),
    op('a', "f", "var_population({0}){f}").duck("var_pop({0}){f}").postgres("var_pop({0}){f}"),
    op('a', "ff", "covar({0}, {1}){f}")
        .duck("covar_samp({0}, {1}){f}")
        .postgres("covar_samp({0}, {1}){f}")
        .needs("regression"),
    op('a', "f", "quantile_cont({0}, 0.25){f}")
        .postgres("percentile_cont(0.25) WITHIN GROUP (ORDER BY {0}){f}")
        .needs("percentiles"),
    // A weight is greater than nothing.
    op(
        'g',
        "fb",
        "approx_percentile_cont_with_weight(CASE WHEN {1} THEN 2 ELSE 1 END, 0.5) WITHIN GROUP (ORDER BY {0}){f}",
    )
    .duck("max({0}){f}")
    .postgres("max({0}){f}")
    .needs("percentiles"),
    op('A', "i", "array_agg(DISTINCT {0} ORDER BY {0}){f}").duck("list(DISTINCT {0} ORDER BY {0} NULLS LAST){f}"),
    op('t', "t", "string_agg({0}, '|' ORDER BY {0}){f}")
        .duck("string_agg({0}, '|' ORDER BY {0} NULLS LAST){f}")
        .needs("two_orders"),
];

/// What depends on the order of its input: the event's position breaks ties. In views only.
pub(super) const ORDERED: &[Op] = &[
    op('*', "*T", "first_value({0} ORDER BY {1}){f}")
        .plain("first_value({0} ORDER BY {1}, _partition, _offset){f}")
        .duck("first({0} ORDER BY {1} NULLS LAST, _partition, _offset){f}")
        .postgres("(array_agg({0} ORDER BY {1}, _partition, _offset){f})[1]"),
    op('*', "*l", "last_value({0} ORDER BY {1}){f}")
        .plain("last_value({0} ORDER BY {1}, _partition, _offset){f}")
        .duck("last({0} ORDER BY {1} NULLS LAST, _partition, _offset){f}")
        .postgres("(array_agg({0} ORDER BY {1} DESC, _partition DESC, _offset DESC){f})[1]"),
    op('*', "*d", "last_value({0} ORDER BY {1} DESC){f}")
        .plain("last_value({0} ORDER BY {1} DESC, _partition, _offset){f}")
        .duck("last({0} ORDER BY {1} DESC NULLS FIRST, _partition, _offset){f}")
        .postgres("(array_agg({0} ORDER BY {1}, _partition DESC, _offset DESC){f})[1]"),
    op('*', "*t", "nth_value({0}, 2 ORDER BY {1}){f}")
        .plain("nth_value({0}, 2 ORDER BY {1}, _partition, _offset){f}")
        .duck("(list({0} ORDER BY {1} NULLS LAST, _partition, _offset){f})[2]")
        .postgres("(array_agg({0} ORDER BY {1}, _partition, _offset){f})[2]"),
    op('A', "il", "array_agg({0} ORDER BY {1}){f}")
        .plain("array_agg({0} ORDER BY {1}, _partition, _offset){f}")
        .duck("list({0} ORDER BY {1} NULLS LAST, _partition, _offset){f}")
        .postgres("array_agg({0} ORDER BY {1}, _partition, _offset){f}"),
    op('t', "tn", "string_agg({0}, ',' ORDER BY {1}){f}")
        .plain("string_agg({0}, ',' ORDER BY {1}, _partition, _offset){f}")
        .duck("string_agg({0}, ',' ORDER BY {1} NULLS LAST, _partition, _offset){f}")
        .postgres("string_agg({0}, ',' ORDER BY {1}, _partition, _offset){f}"),
    op('*', "*", "last_value({0} ORDER BY _partition, _offset){f}")
        .duck("last({0} ORDER BY _partition, _offset){f}")
        .postgres("(array_agg({0} ORDER BY _partition DESC, _offset DESC){f})[1]")
        .needs("by_position"),
    op('*', "*", "first_value({0} ORDER BY _offset DESC){f}")
        .plain("first_value({0} ORDER BY _offset DESC, _partition){f}")
        .duck("first({0} ORDER BY _offset DESC, _partition){f}")
        .postgres("(array_agg({0} ORDER BY _offset DESC, _partition){f})[1]")
        .needs("by_position"),
    op('A', "iT", "array_agg({0} ORDER BY {1}, {1} DESC, _offset){f}")
        .plain("array_agg({0} ORDER BY {1}, _offset, _partition){f}")
        .duck("list({0} ORDER BY {1} NULLS LAST, _offset, _partition){f}")
        .postgres("array_agg({0} ORDER BY {1}, _offset, _partition){f}")
        .needs("by_position"),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// What no other engine computes alike, and `differences` pins.
    const DIFFERENT: &[&str] = &["regr_r2"];

    #[test]
    fn every_aggregate_of_views_is_drawn() {
        let drawn = |name: &&&str| {
            let call = format!("{name}(");
            AGGREGATES.iter().chain(ORDERED).any(|op| op.sql[0].starts_with(&call))
        };
        let missing: Vec<_> =
            common::fold::AGGREGATES.iter().filter(|name| !drawn(name) && !DIFFERENT.contains(name)).collect();
        assert_eq!(missing, Vec::<&&str>::new());
    }
}

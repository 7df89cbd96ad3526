//! What a view may be written as, against the plain query that means the same.

use super::{check_all, check_as, dataset, query};
use crate::fold::{Fold, Refusal};

#[tokio::test]
async fn an_order_by_position_is_an_order() {
    let check = async |order: &str, total: &str| {
        for aggregate in
            ["first_value(name", "last_value(name", "array_agg(name", "nth_value(name, 2", "string_agg(name, '-'"]
        {
            let view = format!("select k, {aggregate} order by {order}) as v from t group by k");
            let plain = format!("select k, {aggregate} order by {total}) as v from t group by k");
            check_as(&view, &plain, 0..3).await;
        }
    };
    check("_offset", "_offset, _partition").await;
    check("_offset desc", "_offset desc, _partition").await;
    check("_partition", "_partition, _offset").await;
    check("_partition, _offset", "_partition, _offset").await;
    check("_offset, _partition", "_offset, _partition").await;
    check("_timestamp, _offset", "_timestamp, _offset, _partition").await;
    check("at, at", "at, _partition, _offset").await;
    check("at, at desc", "at, _partition, _offset").await;
    check("at desc, _offset desc", "at desc, _offset desc, _partition").await;
    check("arrow_cast(at, 'Timestamp(Microsecond, None)'), at", "at, _partition, _offset").await;
    check("q + 1, q + 1", "q + 1, _partition, _offset").await;
    check("name", "name, _partition, _offset").await;
    check("q desc nulls last, 1", "q desc nulls last, _partition, _offset").await;
}

#[tokio::test]
async fn every_aggregate_of_a_view_has_an_order_of_its_own() {
    let columns = [
        "array_agg(q order by at)",
        "array_agg(q order by at desc)",
        "nth_value(q, 2 order by q desc)",
        "nth_value(name, -1 order by at)",
        "string_agg(name, ',' order by name)",
        "string_agg(name, ',' order by at desc)",
        "first_value(x order by at)",
        "last_value(x order by q)",
        "array_agg(distinct q)",
        "array_agg(distinct q order by q desc)",
        "percentile_cont(0.5) within group (order by x)",
        "percentile_cont(0.5) within group (order by q desc)",
    ];
    let named = columns.iter().enumerate().map(|(place, column)| format!("{column} as c{place}"));
    let view = format!("select k, {} from t group by k", named.collect::<Vec<_>>().join(", "));
    // DataFusion's own have one order a query.
    let total = |column: &str| match column {
        "array_agg(distinct q)" => "array_agg(distinct q order by q)".to_owned(),
        column if column.contains("distinct") || column.contains("within") => column.to_owned(),
        column => column.replace(')', ", _partition, _offset)"),
    };
    let part = |(place, column): (usize, &&str)| {
        format!("(select k, {} as c{place} from t group by k) as t{place}", total(column))
    };
    let parts: Vec<String> = columns.iter().enumerate().map(part).collect();
    let joined =
        (1..columns.len()).map(|place| format!("join {} on t{place}.k is not distinct from t0.k", parts[place]));
    let names: Vec<String> = (0..columns.len()).map(|place| format!("c{place}")).collect();
    let plain = format!("select t0.k, {} from {} {}", names.join(", "), parts[0], joined.collect::<Vec<_>>().join(" "));
    check_as(&view, &plain, 0..4).await;
}

#[tokio::test]
async fn what_means_a_plain_fold_is_one() {
    let total = "_partition, _offset";
    let cases = [
        ("select k, count(*) as n from t group by all", "select k, count(*) as n from t group by k"),
        ("select distinct k, name from t", "select k, name from t group by k, name"),
        ("select distinct k, count(*) as n from t group by k", "select k, count(*) as n from t group by k"),
        (
            "select distinct upper(name) as n from t where q > 0",
            "select upper(name) as n from t where q > 0 group by 1",
        ),
        (
            "with x as (select * from t where q > 0) select k, count(*) as n from x group by k",
            "select k, count(*) as n from t where q > 0 group by k",
        ),
        (
            "with x as (select k, q + 1 as p, at from t), y as (select k as kk, p * 2 as pp, at from x where p > 2) select kk, sum(pp) as s, first_value(pp order by at) as f from y group by kk",
            "select k as kk, sum((q + 1) * 2) as s, first_value((q + 1) * 2 order by at, _partition, _offset) as f from t where q + 1 > 2 group by k",
        ),
        (
            "select k, n * 2 as m from (select k, count(*) as n from t group by k) as x where n > 1",
            "select k, count(*) * 2 as m from t group by k having count(*) > 1",
        ),
        (
            "with g as (select k, count(*) as n from t group by k) select * from g",
            "select k, count(*) as n from t group by k",
        ),
        (
            "select k, array_agg(distinct q) as a from t group by k",
            "select k, array_agg(distinct q order by q) as a from t group by k",
        ),
        (
            "select k, array_agg(distinct q order by q desc) as a from t group by k",
            "select k, array_agg(distinct q order by q desc) as a from t group by k",
        ),
        (
            "select k, array_agg(distinct name) filter (where q > 0) as a from t group by k",
            "select k, array_agg(distinct name order by name) filter (where q > 0) as a from t group by k",
        ),
        (
            "select k, string_agg(distinct name, ';') as a from t group by k",
            "select k, string_agg(distinct name, ';' order by name) as a from t group by k",
        ),
        (
            "select k, first_value(distinct q order by at) as v from t group by k",
            &format!("select k, first_value(q order by at, {total}) as v from t group by k"),
        ),
        (
            "select k, any_value(q) as v from t group by k",
            &format!("select k, first_value(q order by {total}) filter (where q is not null) as v from t group by k"),
        ),
        (
            "select k, array_agg(q order by at) ignore nulls as v from t group by k",
            &format!("select k, array_agg(q order by at, {total}) filter (where q is not null) as v from t group by k"),
        ),
        (
            "select k, max_by(name, at) as v from t group by k",
            &format!(
                "select k, first_value(name order by at desc, {total}) filter (where name is not null and at is not null) as v from t group by k"
            ),
        ),
        (
            "select k, arg_min(name, q) filter (where x > 0) as v from t group by k",
            &format!(
                "select k, first_value(name order by q, {total}) filter (where name is not null and q is not null and x > 0) as v from t group by k"
            ),
        ),
        (
            "select k, count_if(q > 3) as v from t group by k",
            "select k, count(*) filter (where q > 3) as v from t group by k",
        ),
        ("select k, every(q > 0) as v from t group by k", "select k, bool_and(q > 0) as v from t group by k"),
        (
            "select k, last(name, at) as v from t group by k",
            &format!("select k, last_value(name order by at nulls first, {total}) as v from t group by k"),
        ),
        (
            "select k, percentile_disc(0.5) within group (order by q) as v from t group by k",
            "select k, array_sort(array_agg(q) filter (where q is not null))[cast(greatest(ceil(0.5 * count(q)), 1) as bigint)] as v from t group by k",
        ),
        (
            "select year(at) as y, count(*) as n from t group by 1",
            "select date_part('year', at) as y, count(*) as n from t group by 1",
        ),
        (
            "select sum(q) as a, sum(q::bigint) as b, sum(q::double) as c from t",
            "select sum(q) as a, sum(arrow_cast(q, 'Int64')) as b, sum(arrow_cast(q, 'Float64')) as c from t",
        ),
        (
            "select q as a, q::bigint as b, count(*) as n from t group by q, q::bigint",
            "select q as a, arrow_cast(q, 'Int64') as b, count(*) as n from t group by 1, 2",
        ),
        (
            "select percentile_cont(0.9) within group (order by x) as a, percentile_cont(0.9) within group (order by x desc) as b from t",
            "select percentile_cont(0.9) within group (order by x) as a, percentile_cont(0.1) within group (order by x) as b from t",
        ),
    ];
    check_all(cases, 0..4).await;
}

/// Keys of types that a table does not have group in those that it has.
#[tokio::test]
async fn keys_of_any_type_group() {
    let keys = [
        "date_trunc('month', at)",
        "date_trunc('month', at::date)",
        "at::timestamp",
        "to_timestamp_millis(q)",
        "to_timestamp_seconds(k)",
        "date_bin(interval '1 hour', at)",
        "arrow_cast(name, 'Utf8View')",
        "arrow_cast(name, 'LargeUtf8')",
        "arrow_cast(k, 'UInt64')",
        "arrow_cast(q, 'Int8')",
        "arrow_cast(at, 'Timestamp(Millisecond, None)')",
        "arrow_cast(name, 'Dictionary(Int32, Utf8)')",
        "arrow_cast(amount, 'Decimal64(12, 2)')",
        "md5(name)",
    ];
    let sql =
        keys.map(|key| format!("select {key} as key, count(*) as n, upper({key}::text) as u from t group by {key}"));
    check_all(sql.iter().map(|sql| (sql.as_str(), sql.as_str())), 0..2).await;
    let view = |key: &str| format!("select {key} as key, count(*) as n from t group by 1");
    let buckets = [
        ("time_bucket('1 hour', at)", "date_bin(interval '1 hour', at)"),
        ("time_bucket(interval '1 week', at)", "date_bin(interval '1 week', at, timestamp '2000-01-03')"),
        ("time_bucket('2 months', at)", "date_bin(interval '2 months', at, timestamp '2000-01-01')"),
        ("year(at)", "date_part('year', at)"),
    ];
    let buckets = buckets.map(|(bucket, means)| (view(bucket), view(means)));
    check_all(buckets.iter().map(|(sql, means)| (sql.as_str(), means.as_str())), 0..2).await;
}

#[test]
fn a_refusal_says_what_to_write() {
    let mut different = Vec::new();
    let mut check = |sql: &str, expected: &str, instead: &str| match Fold::plan(&dataset(), &query(sql)) {
        Ok(_) => different.push(format!("{sql} is a view")),
        Err(Refusal { reason, hint, .. }) => {
            let is_ours =
                [&reason, &hint].iter().all(|text| !text.contains("bug in DataFusion") && !text.contains("Utf8"));
            if !reason.contains(expected) || !hint.contains(instead) || !is_ours {
                different.push(format!("{sql}: {reason}: {hint}"));
            }
        }
    };
    let view = |columns: &str| format!("select k, {columns} from t group by k");
    let ordered = "depends on the order of its input";
    check(&view("array_agg(x) as a"), ordered, "`array_agg(x ORDER BY …)`");
    check(&view("\"array_agg\"(x) as a"), ordered, "`array_agg(x ORDER BY …)`");
    check(&view("\"first_value\"(x) as a"), ordered, "`first_value(x ORDER BY …)`");
    check(&view("FIRST_VALUE(x) as a"), ordered, "`first_value(x ORDER BY …)`");
    check(&view("first_value(distinct x) as a"), ordered, "`first_value(x ORDER BY …)`");
    check(&view("sum((q).x) as a"), "`(…).name` is not known", "without parentheses");
    check(&view("listagg(name, ',') as a"), "there is no function `listagg`", "`string_agg(x, ',' ORDER BY y)`");
    check(&view("nth_value(q, 2 order by at) ignore nulls as v"), "NULLS", "FILTER (WHERE x IS NOT NULL)");
    check(&view("string_agg(name, ',') as a"), ordered, "`string_agg(name, ',' ORDER BY …)`");
    check(&view("array_agg(distinct q order by at) as a"), "ordered by themselves", "remove its `ORDER BY`");
    check(&view("nth_value(q, 0 order by at) as a"), "nth", "`nth_value(x, 2 ORDER BY …)`");
    check(&view("corr(distinct q, x) as a"), "no `DISTINCT`", "remove `DISTINCT`");
    check(&view("count(*)"), "no name of its own", "write `count(*) AS some_name`");
    check(&view("sum(amount) as \"total amount\""), "`\"total amount\"`", "write `sum(amount) AS total_amount`");
    check(&view("mode(q) as a"), "there is no function `mode`", "the greatest `n`");
    check(&view("kurtosis(q) as a"), "there is no function `kurtosis`", "sum(x * x)");
    check(&view("nopes(q) as a"), "there is no function `nopes`", "");
    check(&view("avg(at) as a"), "avg", "");
    check(&view("avg(q > 1) as a"), "avg", "");
    check(&view("max(at) - min(at) as a"), "INTERVAL", "date_part('epoch'");
    check(&view("null as a"), "NULL", "CAST(NULL AS TEXT)");
    check("select array[q] as a, count(*) as n from t group by 1", "by which a view cannot group", "array_to_string");
    check("select unnest(array[q, k]) as a, count(*) as n from t group by 1", "unnest", "array_to_string");
    check("select count(*) as n from (select distinct k from t) as x", "groups groups", "inner query");
    check("select distinct on (k) k, x from t", "DISTINCT ON", "first_value(x ORDER BY …)");
    check("with x as (select 1 as a) select k, count(*) as n from t group by k", "one dataset", "FROM t");
    check("with x as (select * from t) select k, count(*) as n from t group by k", "not read", "FROM x");
    check("with recursive x as (select * from t) select k, count(*) as n from x group by k", "recursive", "FROM t");
    check("select * from t group by k", "`*`", "list the group keys");
    check("select k, count(*) as n from t tablesample (10 percent) group by k", "sample", "WHERE");
    assert!(different.is_empty(), "{different:#?}");
}

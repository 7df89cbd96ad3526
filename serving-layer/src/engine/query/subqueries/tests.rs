use datafusion::{
    arrow::util::display::array_value_to_string,
    config::Dialect,
    prelude::{SessionConfig, SessionContext},
};

use crate::engine::query::{statement::prepare, subqueries};

/// A session as queries have one, with what `tables` say.
async fn session(tables: &[&str]) -> SessionContext {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    for table in tables {
        context.sql(table).await.unwrap().collect().await.unwrap();
    }
    context
}

/// The rows of a query, in their order by text.
async fn rows(context: &SessionContext, sql: &str) -> Result<Vec<String>, String> {
    let failed = |error: datafusion::error::DataFusionError| error.strip_backtrace();
    let state = context.state();
    let mut statement = state.sql_to_statement(sql, &Dialect::Generic).map_err(failed)?;
    prepare(&mut statement, &[], &state).map_err(|error| error.to_string())?;
    let plan = state.statement_to_plan(statement).await.map_err(failed)?;
    let plan = subqueries::rewrite(plan).map_err(failed)?;
    let batches = context.execute_logical_plan(plan).await.map_err(failed)?.collect().await.map_err(failed)?;
    let mut rows = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let cells = batch.columns().iter().map(|column| match column.is_null(row) {
                true => "-".to_owned(),
                false => array_value_to_string(column, row).unwrap(),
            });
            rows.push(cells.collect::<Vec<String>>().join(" "));
        }
    }
    rows.sort();
    Ok(rows)
}

/// A row: its number, its key and its value.
type Item = (i64, Option<i64>, Option<i64>);

fn table(name: &str, items: &[Item]) -> String {
    let shown = |value: &Option<i64>| value.map_or("NULL".to_owned(), |value| value.to_string());
    let rows = items.iter().map(|(id, k, x)| format!("({id}, {}, {})", shown(k), shown(x)));
    let rows = rows.collect::<Vec<String>>().join(", ");
    let typed = "CAST(column1 AS BIGINT) AS id, CAST(column2 AS BIGINT) AS k, CAST(column3 AS BIGINT) AS x";
    // Without a row there are no values to take a type from.
    match items.is_empty() {
        true => format!("CREATE TABLE {name} AS SELECT {typed} FROM (VALUES (0, 0, 0)) WHERE false"),
        false => format!("CREATE TABLE {name} AS SELECT {typed} FROM (VALUES {rows})"),
    }
}

/// `left op ANY (values)` by SQL's three values.
fn any(left: Option<i64>, op: &str, values: &[Option<i64>]) -> Option<bool> {
    let holds = |value: &Option<i64>| {
        let (left, right) = (left?, (*value)?);
        Some(match op {
            "=" => left == right,
            "<>" => left != right,
            "<" => left < right,
            "<=" => left <= right,
            ">" => left > right,
            _ => left >= right,
        })
    };
    let found: Vec<Option<bool>> = values.iter().map(holds).collect();
    match found.contains(&Some(true)) {
        true => Some(true),
        false if found.contains(&None) => None,
        false => Some(false),
    }
}

fn not(value: Option<bool>) -> Option<bool> {
    value.map(|value| !value)
}

/// A predicate in SQL, and by hand.
fn predicate(form: &str, left: Option<i64>, values: &[Option<i64>]) -> Option<bool> {
    match form.split_once(' ') {
        Some(("NOT", "IN")) => not(any(left, "=", values)),
        Some((op, "ANY")) => any(left, op, values),
        Some((op, _)) => {
            let opposite = match op {
                "=" => "<>",
                "<>" => "=",
                "<" => ">=",
                "<=" => ">",
                ">" => "<=",
                _ => "<",
            };
            not(any(left, opposite, values))
        }
        None => any(left, "=", values),
    }
}

const FORMS: &[&str] = &["IN", "NOT IN", "= ANY", "<> ALL", "= ALL", "<> ANY", "< ANY", "<= ALL", "> ANY", ">= ALL"];

/// Every place where a predicate can stand, and which rows it lets pass there.
async fn everywhere(context: &SessionContext, outer: &[Item], inner: &[Item], seed: usize) {
    let shown = |value: Option<bool>| value.map_or("-".to_owned(), |value| value.to_string());
    for (number, form) in FORMS.iter().enumerate() {
        for (left, subquery, is_correlated) in [
            ("t.x", "SELECT x FROM s", false),
            ("t.x", "SELECT x FROM s WHERE s.k = t.k", true),
            ("2", "SELECT x FROM s", false),
            ("NULL", "SELECT x FROM s WHERE s.k = t.k", true),
            ("t.x + 1", "SELECT DISTINCT x FROM s WHERE x IS NOT NULL", false),
            ("t.x", "SELECT x FROM s WHERE s.k < t.k", true),
        ] {
            let is_range = subquery.contains('<');
            let sql = format!("{left} {form} ({subquery})");
            let of_row = |(_, k, x): &Item| {
                let values: Vec<Option<i64>> = inner
                    .iter()
                    .filter(|(_, key, x)| match (is_correlated, is_range) {
                        (false, _) => !subquery.contains("NOT NULL") || x.is_some(),
                        (true, false) => key.zip(*k).is_some_and(|(key, k)| key == k),
                        (true, true) => key.zip(*k).is_some_and(|(key, k)| key < k),
                    })
                    .map(|(_, _, x)| *x)
                    .collect();
                let left = match left {
                    "2" => Some(2),
                    "NULL" => None,
                    "t.x" => *x,
                    _ => x.map(|x| x + 1),
                };
                predicate(form, left, &values)
            };
            let id = |item: &Item| item.0.to_string();
            let passing = |passes: &dyn Fn(&Item) -> bool| -> Vec<String> {
                let mut ids: Vec<String> = outer.iter().filter(|item| passes(item)).map(id).collect();
                ids.sort();
                ids
            };
            let mut cases = vec![
                (format!("SELECT id FROM t WHERE {sql}"), passing(&|item| of_row(item) == Some(true))),
                (format!("SELECT id FROM t WHERE NOT ({sql})"), passing(&|item| of_row(item) == Some(false))),
                (
                    format!("SELECT id FROM t WHERE id = 1 OR {sql}"),
                    passing(&|item| item.0 == 1 || of_row(item) == Some(true)),
                ),
                (format!("SELECT id FROM t WHERE ({sql}) IS NULL"), passing(&|item| of_row(item).is_none())),
            ];
            if !is_range {
                let mut column: Vec<String> =
                    outer.iter().map(|item| format!("{} {}", item.0, shown(of_row(item)))).collect();
                column.sort();
                cases.push((format!("SELECT id, {sql} FROM t"), column.clone()));
                cases.push((
                    format!("SELECT id, CASE WHEN {sql} THEN true WHEN NOT {sql} THEN false END FROM t"),
                    column,
                ));
            }
            if !is_correlated && left == "t.x" {
                let passes = passing(&|item| of_row(item) == Some(true));
                cases.push((format!("SELECT t.id FROM t JOIN one ON {sql}"), passes.clone()));
                cases
                    .push((format!("SELECT min(id) FROM t GROUP BY id, x HAVING {}", sql.replace("t.x", "x")), passes));
            }
            for (place, (sql, expected)) in cases.into_iter().enumerate() {
                // Not every form in every place with every data: the places are the same code for all.
                if (number + place + seed).is_multiple_of(3) || number < 2 {
                    let got = rows(context, &sql).await;
                    assert_eq!(got.as_ref(), Ok(&expected), "{sql}\nt: {outer:?}\ns: {inner:?}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn membership_has_three_values() {
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    for seed in 0..4_usize {
        let mut items = |count: i64| -> Vec<Item> {
            let mut value = || Some(next(4).cast_signed()).filter(|value| *value != 3);
            (0..count).map(|id| (id, value(), value())).collect()
        };
        let outer = items(7);
        // None, one, and some: with a NULL among them or not.
        let inner = items([0, 1, 4, 6][seed]);
        let tables = [table("t", &outer), table("s", &inner), "CREATE TABLE one AS SELECT 1 AS one".to_owned()];
        let context = session(&tables.each_ref().map(String::as_str)).await;
        everywhere(&context, &outer, &inner, seed).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn subqueries_stand_anywhere() {
    let context = session(&[
        "CREATE TABLE t AS SELECT * FROM (VALUES (1, 10, 'a'), (2, 20, 'b'), (3, NULL, 'c')) AS t(id, k, v)",
        "CREATE TABLE s AS SELECT * FROM (VALUES (10, 'x', 1), (10, 'y', 2), (20, 'z', 3)) AS s(k, y, at)",
        "CREATE TABLE f AS SELECT * FROM (VALUES (1, 0.0::double, [1, 2]), (2, 'NaN'::double, []), (3, -0.0::double, NULL), (4, 5.0::double, [7])) AS f(id, x, tags)",
    ])
    .await;
    let mut wrong = Vec::new();
    for (sql, expected) in [
        // `EXISTS` as a column, and in a condition.
        ("SELECT id, EXISTS (SELECT 1 FROM s WHERE s.k = t.k) FROM t", Ok("1 true|2 true|3 false")),
        ("SELECT id, NOT EXISTS (SELECT 1 FROM s) FROM t", Ok("1 false|2 false|3 false")),
        ("SELECT id FROM t WHERE id = 3 OR EXISTS (SELECT 1 FROM s WHERE s.k = t.k AND at > 2)", Ok("2|3")),
        ("SELECT id FROM t WHERE EXISTS (SELECT count(*) FROM s WHERE s.k = t.k)", Ok("1|2|3")),
        ("SELECT id FROM t WHERE EXISTS (SELECT 1 FROM s WHERE s.k = t.k OFFSET 1)", Ok("1")),
        ("SELECT id FROM t WHERE NOT EXISTS (SELECT 1 FROM s WHERE s.k = t.k LIMIT 1)", Ok("3")),
        // An aggregate of no rows is a row.
        ("SELECT id FROM t WHERE 0 IN (SELECT count(*) FROM s WHERE s.k = t.k)", Ok("3")),
        ("SELECT id, 1 NOT IN (SELECT count(*) FROM s WHERE s.k = t.k) FROM t", Ok("1 true|2 false|3 true")),
        (
            "SELECT id FROM t WHERE 0 IN (SELECT n FROM (SELECT count(*) AS n FROM s WHERE s.k = t.k) AS c WHERE n < 5)",
            Err("aggregates all its rows below its top"),
        ),
        // Values of one row.
        ("SELECT id, (SELECT max(y) FROM s WHERE s.k = t.k) FROM t", Ok("1 y|2 z|3 -")),
        ("SELECT id, (SELECT y FROM s WHERE s.k = t.k AND at <> 1) FROM t", Ok("1 y|2 z|3 -")),
        ("SELECT id, (SELECT y FROM s WHERE s.k = t.k) FROM t", Err("more than one row")),
        ("SELECT id, (SELECT y FROM s WHERE s.k = t.k) FROM t WHERE id > 1", Ok("2 z|3 -")),
        ("SELECT id, (SELECT y FROM s WHERE s.k = t.k ORDER BY at DESC LIMIT 1) FROM t", Ok("1 y|2 z|3 -")),
        (
            "SELECT id, (SELECT y FROM s WHERE s.k = t.k ORDER BY at LIMIT 1) AS first FROM t WHERE id < 3",
            Ok("1 x|2 z"),
        ),
        ("SELECT id FROM t WHERE (SELECT y FROM s WHERE s.k = t.k AND at > 1) = 'z'", Ok("2")),
        ("SELECT id, (SELECT y FROM s WHERE s.k > t.k) FROM t", Err("write it as a join")),
        ("SELECT sum((SELECT at FROM s WHERE s.k = t.k LIMIT 1)) FROM t", Err("only supported in the `SELECT` list")),
        ("SELECT id FROM t WHERE 'y' IN (SELECT y FROM s WHERE s.k = t.k ORDER BY at LIMIT 1)", Ok("")),
        // One number has two zeros, and NaN is a value.
        ("SELECT id FROM f WHERE x IN (SELECT -0.0::double)", Ok("1|3")),
        ("SELECT id FROM f WHERE x NOT IN (SELECT x FROM f WHERE id < 3)", Ok("4")),
        // What is beside a row.
        ("SELECT f.id, u.n FROM f CROSS JOIN unnest(f.tags) AS u(n)", Ok("1 1|1 2|4 7")),
        ("SELECT id, n FROM f CROSS JOIN LATERAL unnest(tags) AS u(n)", Ok("1 1|1 2|4 7")),
        ("SELECT id, n FROM f, unnest(tags) AS u(n) WHERE n > 1", Ok("1 2|4 7")),
        ("SELECT id, n FROM f LEFT JOIN unnest(tags) AS u(n) ON true", Ok("1 1|1 2|2 -|3 -|4 7")),
        (
            "SELECT id, l.y FROM t, LATERAL (SELECT y FROM s WHERE s.k = t.k ORDER BY at DESC LIMIT 1) AS l",
            Ok("1 y|2 z"),
        ),
        (
            "SELECT id, l.y FROM t LEFT JOIN LATERAL (SELECT y, at FROM s WHERE s.k = t.k ORDER BY at LIMIT 1 OFFSET 1) AS l ON true",
            Ok("1 y|2 -|3 -"),
        ),
        ("SELECT id, l.more FROM t, LATERAL (SELECT t.id + 1 AS more) AS l", Ok("1 2|2 3|3 4")),
        ("SELECT t.id, g.n FROM t, generate_series(1, 2) AS g(n) WHERE t.id = 1", Ok("1 1|1 2")),
        ("SELECT * FROM range(1, 3)", Ok("1|2")),
        // Rows and patterns.
        ("SELECT id FROM t WHERE (id, k) IN ((1, 10), (3, 3))", Ok("1")),
        ("SELECT id FROM t WHERE (id, k) NOT IN ((1, 10), (3, 3))", Ok("2")),
        ("SELECT id FROM t WHERE (k, v) IN (SELECT k, 'a' FROM s)", Ok("1")),
        ("SELECT id FROM t WHERE id > 0 AND (k, id) IN (SELECT k, at FROM s WHERE s.k = t.k)", Ok("1")),
        ("SELECT id FROM t WHERE EXISTS (SELECT 1 FROM (SELECT y FROM s WHERE s.k = t.k) AS z WHERE y = 'z')", Ok("2")),
        (
            "SELECT id, EXISTS (SELECT 1 FROM (SELECT k, y FROM s WHERE s.k = t.k) AS z) FROM t",
            Ok("1 true|2 true|3 false"),
        ),
        // The third row's key is NULL: it may be the same as any.
        ("SELECT id FROM t WHERE (k, id) NOT IN (SELECT k, at FROM s)", Ok("2")),
        ("SELECT id FROM t WHERE (k, v) NOT IN (SELECT k, 'a' FROM s)", Ok("2|3")),
        ("SELECT id FROM t WHERE NOT ((k, v) IN (SELECT k, 'c' FROM s)) OR id = 1", Ok("1|2")),
        ("SELECT id FROM t WHERE v SIMILAR TO 'a|b%'", Ok("1|2")),
        ("SELECT 'a%b' LIKE 'a!%b' ESCAPE '!', 'axb' LIKE 'a!%b' ESCAPE '!'", Ok("true false")),
        ("SELECT id FROM t ORDER BY id FETCH FIRST 2 ROWS ONLY", Ok("1|2")),
        ("SELECT k, k::text, count(*), count(*) FROM t WHERE id = 1 GROUP BY k", Ok("10 10 1 1")),
        ("SELECT extract(minute FROM INTERVAL '1 year 2 months 3 days 04:05:06')", Ok("5")),
    ] {
        let got = rows(&context, sql).await.map(|rows| rows.join("|"));
        let is_right = match (&got, expected) {
            (Ok(rows), Ok(expected)) => rows == expected,
            (Err(error), Err(expected)) => error.contains(expected),
            _ => false,
        };
        if !is_right {
            wrong.push(format!("{sql}\n  {got:?}\n  instead of {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

//! Where engines differ in meaning: by name, and what shows that it is so. The generator goes around each.

use anyhow::Result;

use super::{
    compare::Rows,
    plan::Plan,
    reference::Reference,
    trial::{Bench, text},
};

/// A difference in meaning.
#[derive(Debug)]
struct Difference {
    name: &'static str,
    /// A query that all three can read.
    sql: &'static str,
    lamina: &'static str,
    duck: &'static str,
    postgres: &'static str,
}

const fn differ(name: &'static str, sql: &'static str, [lamina, duck, postgres]: [&'static str; 3]) -> Difference {
    Difference { name, sql, lamina, duck, postgres }
}

/// All that are known; `docs/catalog.md` has the same table.
const DIFFERENCES: &[Difference] = &[
    differ("division of integers", "SELECT 7 / 2", ["3", "3.5", "3"]),
    differ(
        "NULL in a descending order",
        "SELECT x FROM (VALUES (1), (NULL)) AS t(x) ORDER BY x DESC LIMIT 1",
        ["NULL", "1", "NULL"],
    ),
    differ("integers without a cast", "SELECT 2147483647 + 1", ["2147483648", "error", "error"]),
    differ("division by zero in floating point", "SELECT CAST(1 AS REAL) / CAST(0 AS REAL)", ["inf", "inf", "error"]),
    differ("floating-point overflow", "SELECT CAST('3e38' AS REAL) * CAST(10 AS REAL)", ["inf", "inf", "error"]),
    differ("root of a negative number", "SELECT sqrt(CAST(-1 AS REAL))", ["error", "NaN", "error"]),
    differ("escape in LIKE", "SELECT 'a_' LIKE 'a\\_'", ["true", "false", "true"]),
    differ("fraction of a second", "SELECT extract(second FROM TIMESTAMP '2026-01-01 00:00:01.5')", ["1", "1", "1.5"]),
    differ("least of booleans", "SELECT min(x) FROM (VALUES (true), (false)) AS t(x)", ["false", "false", "error"]),
    differ("a half in floating point", "SELECT round(CAST(2.5 AS REAL))", ["3.0", "3.0", "2.0"]),
    differ("average of integers", "SELECT avg(x) FROM (VALUES (1), (2)) AS t(x)", ["1.5", "1.5", "1.5"]),
    differ(
        "regression without variance",
        "SELECT regr_slope(x, x) FROM (VALUES (CAST(3 AS REAL)), (CAST(3 AS REAL))) AS t(x)",
        ["NULL", "NaN", "NULL"],
    ),
    differ(
        "fit of a level line",
        "SELECT regr_r2(y, x) FROM (VALUES (CAST(3 AS REAL), CAST(1 AS REAL)), (CAST(3 AS REAL), CAST(2 AS REAL))) AS t(y, x)",
        ["NULL", "1.0", "1.0"],
    ),
];

/// What is said wrongly.
pub async fn check() -> Result<Vec<String>> {
    let mut reference = Reference::start()?;
    reference.reset().await?;
    let mut bench = Bench::start(&Plan::default()).await?;
    let mut wrong = Vec::new();
    for Difference { name, sql, lamina, duck, postgres } in DIFFERENCES {
        let others = reference.ask_sql(sql, sql).await?;
        let answers = [bench.answer(sql).await?, others.duck, others.postgres];
        for ((engine, expected), answer) in
            ["Lamina", "DuckDB", "PostgreSQL"].iter().zip([lamina, duck, postgres]).zip(&answers)
        {
            if one(answer) != *expected {
                wrong.push(format!("{name}: {sql}: {engine} gives {}, not {expected}", text(answer).trim()));
            }
        }
    }
    bench.stop().await?;
    reference.stop().await?;
    Ok(wrong)
}

fn one(answer: &Result<Rows, String>) -> String {
    match answer {
        Ok(rows) => rows.iter().flatten().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        Err(_) => "error".to_owned(),
    }
}

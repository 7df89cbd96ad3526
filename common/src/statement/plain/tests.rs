use sqlparser::{dialect::GenericDialect, parser::Parser};

fn rewrite(sql: &str) -> String {
    let mut statements = Parser::parse_sql(&GenericDialect {}, sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    match super::rewrite(&mut statements[0]) {
        Ok(()) => statements[0].to_string(),
        Err(refusal) => refusal.reason,
    }
}

#[test]
fn what_the_planner_does_not_know_is_said_otherwise() {
    for (sql, expected) in [
        ("SELECT x FROM t FETCH FIRST 3 ROWS ONLY", "SELECT x FROM t LIMIT 3"),
        ("SELECT x FROM t OFFSET 2 ROWS FETCH NEXT ROW ONLY", "SELECT x FROM t LIMIT 1 OFFSET 2 ROWS"),
        ("FROM t", "FROM t SELECT *"),
        ("SELECT x LIKE 'a!%b%' ESCAPE '!'", r"SELECT x LIKE 'a\%b%'"),
        ("SELECT x LIKE 'a!!!b' ESCAPE '!'", "SELECT x LIKE 'a!b'"),
        (r"SELECT x NOT ILIKE 'a\_' ESCAPE ''", r"SELECT x NOT ILIKE 'a\\_'"),
        (r"SELECT x LIKE 'a\_' ESCAPE '\'", r"SELECT x LIKE 'a\_' ESCAPE '\'"),
        ("SELECT x LIKE y ESCAPE '!'", "the pattern of `LIKE … ESCAPE` is no text"),
        ("SELECT x LIKE 'a!' ESCAPE '!'", "the pattern ends with its escape character"),
        ("SELECT x LIKE 'a' ESCAPE '!!'", "`ESCAPE` is not one character"),
        ("SELECT x SIMILAR TO 'a%(b|c)_.'", r"SELECT (x ~ '(?s)^(?:a.*(b|c).\.)$')"),
        (r"SELECT x NOT SIMILAR TO '[_%]!%' ESCAPE '!'", r"SELECT (x !~ '(?s)^(?:[_%]\%)$')"),
        ("SELECT INTERVAL '1 day 04:05:06'", "SELECT INTERVAL '1 day 04 hours 05 minutes 06 seconds'"),
        ("SELECT '-1:30'::interval", "SELECT '-1 hours -30 minutes'::INTERVAL"),
        ("SELECT INTERVAL '1 day'", "SELECT INTERVAL '1 day'"),
        ("SELECT (a, b) = (1, 2)", "SELECT ((a = 1 AND b = 2))"),
        ("SELECT (a, b) <> (1, 2)", "SELECT ((a <> 1 OR b <> 2))"),
        ("SELECT (a, b) <= (1, 2)", "SELECT ((a < 1 OR (a = 1 AND b <= 2)))"),
        ("SELECT (a, b) NOT IN ((1, 2), (3, 4))", "SELECT (NOT ((a = 1 AND b = 2) OR (a = 3 AND b = 4)))"),
        ("SELECT (a, b) IS NULL", "SELECT ((a IS NULL AND b IS NULL))"),
        ("SELECT (a, b) = (1, 2, 3)", "a row is compared in a way that is not supported"),
        ("SELECT (a, b) BETWEEN (1, 2) AND (3, 4)", "a row is compared in a way that is not supported"),
        (
            "SELECT 1 WHERE x AND (a, b) IN (SELECT c, d FROM u)",
            "SELECT 1 WHERE x AND EXISTS (SELECT 1 FROM (SELECT c, d FROM u) AS \"__row\" (\"__1\", \"__2\") WHERE \
             (\"__1\" = a AND \"__2\" = b))",
        ),
    ] {
        assert_eq!(rewrite(sql), expected, "{sql}");
    }
}

//! Operators bind as PostgreSQL's documentation says, for each pair of them.

use super::*;

/// From the closest on; operators of one line are of one level, and stand between two operands.
const LEVELS: &[&[&str]] = &[
    &["^"],
    &["*", "/", "%"],
    &["+", "-"],
    &["||", "&", "|", "<<", ">>", "~", "!~"],
    &["LIKE", "ILIKE", "NOT LIKE"],
    &["=", "<>", "<", "<=", ">", ">="],
    &["IS DISTINCT FROM", "IS NOT DISTINCT FROM"],
    &["AND"],
    &["OR"],
];

fn level(operator: &str) -> usize {
    LEVELS.iter().position(|level| level.contains(&operator)).unwrap()
}

fn parsed(sql: &str) -> Result<ast::Expr, sqlparser::parser::ParserError> {
    let parsed = Parser::new(&Dialect).try_with_sql(sql).and_then(|mut parser| parser.parse_expr());
    let flat = |mut expr: ast::Expr| {
        let _: std::ops::ControlFlow<()> = ast::visit_expressions_mut(&mut expr, |part| {
            while let ast::Expr::Nested(inner) = part {
                *part = (**inner).clone();
            }
            std::ops::ControlFlow::Continue(())
        });
        expr
    };
    parsed.map(flat)
}

/// Whether both texts are the same expression, apart from parentheses.
fn check(sql: &str, expected: &str) {
    assert_eq!(parsed(sql).unwrap(), parsed(expected).unwrap(), "{sql} is {expected}");
}

#[test]
fn every_pair_of_operators() {
    let all = LEVELS.iter().copied().flatten().copied();
    for first in all.clone() {
        for second in all.clone() {
            let (left, right) = (level(first), level(second));
            let sql = format!("a {first} b {second} c");
            let one_level = left == right;
            let chains = !matches!(LEVELS[left][0], "=" | "LIKE" | "IS DISTINCT FROM") || !one_level;
            if !chains {
                continue;
            }
            match left <= right {
                true => check(&sql, &format!("(a {first} b) {second} c")),
                false => check(&sql, &format!("a {first} (b {second} c)")),
            }
        }
        let between = format!("a {first} b BETWEEN c AND d");
        match level(first) < level("LIKE") {
            true => check(&between, &format!("(a {first} b) BETWEEN c AND d")),
            false if first.contains("LIKE") => {}
            false => check(&between, &format!("a {first} (b BETWEEN c AND d)")),
        }
        let null = format!("a {first} b IS NULL");
        match level(first) < level("IS DISTINCT FROM") {
            true => check(&null, &format!("(a {first} b) IS NULL")),
            false if first.contains("DISTINCT") => {}
            false => check(&null, &format!("a {first} (b IS NULL)")),
        }
        let not = format!("NOT a {first} b");
        match level(first) < level("AND") {
            true => check(&not, &format!("NOT (a {first} b)")),
            false => check(&not, &format!("(NOT a) {first} b")),
        }
        check(&format!("- a {first} b"), &format!("(- a) {first} b"));
        check(&format!("a::int {first} b::int"), &format!("(a::int) {first} (b::int)"));
    }
}

#[test]
fn comparisons_do_not_chain() {
    for sql in ["a < b < c", "a = b = c", "a <> b >= c"] {
        assert!(parsed(sql).unwrap_err().to_string().contains("do not chain"), "{sql}");
    }
    check("(a < b) = c", "(a < b) = c");
    check("a < b AND b < c", "(a < b) AND (b < c)");
}

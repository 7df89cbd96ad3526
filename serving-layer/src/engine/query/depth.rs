//! How deep a query may be.
//!
//! `1 + 1 + …` is a tree as deep as it is long, and whoever walks such a tree needs a stack as deep: a query of some
//! hundred kilobytes would end the process. The parser bounds only what is nested in parentheses and the like, so what
//! is chained is counted here, before anything is parsed.

use datafusion::sql::sqlparser::{
    keywords::Keyword,
    tokenizer::{Token, Tokenizer},
};

use super::Error;

/// So many links a query has at most: operators, keywords that chain, subscripts, and what it joins.
pub(super) const DEPTH_MAX: usize = 500;

/// Keywords that make nothing deeper: they stand once in a clause, or in what the parser bounds itself.
const SHALLOW: &[Keyword] = {
    use Keyword as K;
    &[
        K::NoKeyword,
        K::AS,
        K::ASC,
        K::AVG,
        K::BIGINT,
        K::BY,
        K::CASE,
        K::COUNT,
        K::DATE,
        K::DAY,
        K::DESC,
        K::DISTINCT,
        K::DOUBLE,
        K::ELSE,
        K::END,
        K::FALSE,
        K::FILTER,
        K::FIRST,
        K::FROM,
        K::GROUP,
        K::HAVING,
        K::HOUR,
        K::INT,
        K::LAST,
        K::LIMIT,
        K::MAX,
        K::MIN,
        K::MONTH,
        K::NULL,
        K::NULLS,
        K::ON,
        K::ORDER,
        K::OVER,
        K::PARTITION,
        K::SELECT,
        K::SUM,
        K::TEXT,
        K::THEN,
        K::TIMESTAMP,
        K::TRUE,
        K::VALUE,
        K::WHEN,
        K::WHERE,
        K::WITH,
        K::YEAR,
    ]
};

/// Keywords after which commas no longer part tables, which are joined one by one.
const AFTER_TABLES: &[Keyword] =
    &[Keyword::SELECT, Keyword::WHERE, Keyword::GROUP, Keyword::HAVING, Keyword::ORDER, Keyword::LIMIT];

/// Refuses a query that may be too deep.
pub(super) fn check(sql: &str) -> Result<(), Error> {
    if sql.len() <= DEPTH_MAX {
        return Ok(());
    }
    // What is no SQL is for the parser to say.
    let Ok(tokens) = Tokenizer::new(&common::sql::Dialect, sql).tokenize() else { return Ok(()) };
    match links(&tokens) {
        links if links <= DEPTH_MAX => Ok(()),
        links => Err(Error::refused(
            format!("the query chains {links} operators, joins and the like, and at most {DEPTH_MAX} are taken"),
            "write `IN (…)` for many equalities, or ask several queries",
        )),
    }
}

fn links(tokens: &[Token]) -> usize {
    let mut links = 0;
    // Of each parenthesis that is open, whether tables stand there.
    let mut tables = vec![false];
    let (mut before, mut last) = (&Token::EOF, &Token::EOF);
    for token in tokens.iter().filter(|token| !matches!(token, Token::Whitespace(_))) {
        let in_tables = tables.last().copied().unwrap_or_default();
        let is_link = match token {
            Token::LParen => {
                tables.push(false);
                false
            }
            Token::RParen => {
                tables.pop();
                false
            }
            Token::Word(word) => {
                if let Some(in_tables) = tables.last_mut() {
                    *in_tables = word.keyword == Keyword::FROM || *in_tables && !AFTER_TABLES.contains(&word.keyword);
                }
                !SHALLOW.contains(&word.keyword)
            }
            Token::Comma => in_tables,
            // The star of `count(*)`, `SELECT *` and `a.*`.
            Token::Mul => match last {
                Token::LParen | Token::Comma | Token::Period => false,
                Token::Word(word) => word.keyword != Keyword::SELECT,
                _ => true,
            },
            // `a.b` is a name, and `a.b.c.d` may be a path.
            Token::Period => *before == Token::Period,
            Token::Number(..) | Token::SingleQuotedString(_) => false,
            Token::RBracket | Token::SemiColon | Token::EOF => false,
            _ => true,
        };
        links += usize::from(is_link);
        (before, last) = (last, token);
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_are_bounded_and_lists_are_not() {
        let check = |sql: &str, expected: bool| {
            let shown: String = sql.chars().take(80).collect();
            assert_eq!(super::check(sql).is_ok(), expected, "{shown}");
        };
        let many = |one: &str, between: &str, count: usize| vec![one; count].join(between);
        for between in
            ["+", "*", " OR ", " AND ", " - ", " || ", "::", "[1][", " IS NULL IS ", " UNION ", " AT ", " -> "]
        {
            check(&format!("SELECT {}", many("a", between, DEPTH_MAX / 5)), true);
            check(&format!("SELECT {}", many("a", between, DEPTH_MAX + 2)), false);
        }
        check(&format!("SELECT a{}", ".a".repeat(DEPTH_MAX + 3)), false);
        for tables in [many("a", ",", DEPTH_MAX + 2), many("(SELECT 1, 2)", ",", DEPTH_MAX + 2)] {
            check(&format!("SELECT 1 FROM {tables}"), false);
            check(&format!("SELECT 1 FROM (SELECT a, b FROM {tables})"), false);
        }
        check(&format!("SELECT 1 FROM {}", many("a", " JOIN ", DEPTH_MAX + 2)), false);
        for columns in ["a", "t.a", "count(*)", "sum(a) AS b", "CASE WHEN a THEN 1 ELSE NULL END", "1", "'a'"] {
            check(&format!("SELECT {} FROM t, u WHERE a > 1 GROUP BY a, b", many(columns, ", ", 5_000)), true);
            check(&format!("SELECT * FROM t ORDER BY {}", many(columns, ", ", 5_000)), true);
        }
        check(&format!("SELECT * FROM t WHERE a IN ({})", many("1", ", ", 50_000)), true);
    }
}

//! How deep a query may be.
//!
//! `1 + 1 + …` is a tree as deep as it is long, and whoever walks such a tree needs a stack as deep: a query of some
//! hundred kilobytes would end the process. The parser bounds only what is nested in parentheses and the like, so what
//! is chained is counted here, before anything is parsed.

use datafusion::sql::sqlparser::{
    dialect::GenericDialect,
    keywords::Keyword,
    tokenizer::{Token, Tokenizer},
};

use super::Error;

/// So many operators, keywords and commas a query has at most; lists of literals are not counted.
const DEPTH_MAX: usize = 2_000;

/// Refuses a query that may be too deep.
pub(super) fn check(sql: &str) -> Result<(), Error> {
    if sql.len() <= DEPTH_MAX {
        return Ok(());
    }
    // What is no SQL is for the parser to say.
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, sql).tokenize() else { return Ok(()) };
    let (mut depth, mut after_literal) = (0, false);
    for token in tokens.iter().filter(|token| !matches!(token, Token::Whitespace(_))) {
        let (literal, deeper) = match token {
            Token::Number(..) | Token::SingleQuotedString(_) => (true, false),
            Token::Comma => (false, !after_literal),
            Token::Word(word) => (false, !matches!(word.keyword, Keyword::NoKeyword | Keyword::AS)),
            Token::LParen | Token::RParen | Token::RBracket | Token::SemiColon | Token::EOF => (false, false),
            _ => (false, true),
        };
        after_literal = literal;
        depth += usize::from(deeper);
    }
    match depth > DEPTH_MAX {
        false => Ok(()),
        true => Err(Error::refused(
            format!("the query has {depth} operators, keywords and commas, and at most {DEPTH_MAX} are taken"),
            "write `IN (…)` for many equalities, and ask for less at once",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_are_bounded_and_lists_are_not() {
        let check = |one: &str, between: &str, count: usize, expected: bool| {
            let sql = format!("SELECT {}", vec![one; count].join(between));
            assert_eq!(super::check(&sql).is_ok(), expected, "{one}{between}");
        };
        for (one, between) in
            [("1", "+"), ("a", " OR "), ("a", ","), ("a", "::"), ("a", "["), ("a", "."), ("SELECT 1", " UNION ")]
        {
            check(one, between, DEPTH_MAX / 2, true);
            check(one, between, 2 * DEPTH_MAX, false);
        }
        for one in ["1", "'a'", "-1.5e3"] {
            let signs = if one.starts_with('-') { DEPTH_MAX / 2 } else { 50_000 };
            check(one, ", ", signs, true);
        }
    }
}

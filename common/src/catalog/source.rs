//! A catalog file as statements, each parsed by itself so that one that is broken hides no other's flaws.

use sqlparser::{
    ast::Statement,
    parser::{Parser, ParserError},
    tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer},
};

use super::faults::Report;
use crate::sql::Dialect;

const SHAPES: &str = "write `CREATE TABLE name (column TYPE, …) WITH (…);` or \
                      `CREATE MATERIALIZED VIEW name WITH (…) AS SELECT …;`";

/// A statement and where it stands.
#[derive(Debug)]
pub(super) struct Parsed {
    /// Which file it is in.
    pub(super) file: usize,
    pub(super) statement: Statement,
    /// Where it begins.
    pub(super) at: Location,
    /// Its tokens, without whitespace and comments.
    tokens: Vec<TokenWithSpan>,
}

impl Parsed {
    /// Where the token after the one at `location` begins: sqlparser keeps no places of types and keywords.
    pub(super) fn after(&self, location: Location) -> Location {
        let mut tokens = self.tokens.iter().map(|token| token.span.start);
        tokens.by_ref().find(|&start| start == location);
        tokens.next().unwrap_or(location)
    }

    /// Where the first token after `location` begins that is the keyword or name `word`.
    pub(super) fn word_after(&self, location: Location, word: &str) -> Location {
        let is_word = |token: &&TokenWithSpan| {
            let Token::Word(found) = &token.token else { return false };
            token.span.start > location && found.value.eq_ignore_ascii_case(word)
        };
        self.tokens.iter().find(is_word).map_or(location, |token| token.span.start)
    }
}

/// Parses a file's statements; what cannot be parsed is reported. A mark of byte order at its start is no part of it.
pub(super) fn parse(file: usize, sql: &str, report: &mut Report<'_>) -> Vec<Parsed> {
    let sql = sql.strip_prefix('\u{feff}').unwrap_or(sql);
    let tokens = match Tokenizer::new(&Dialect, sql).tokenize_with_location() {
        Ok(tokens) => tokens,
        Err(error) => {
            let hint = "close what is open: strings end with `'`, quoted names with `\"`, comments with `*/`";
            report.flaw::<()>(error.location, lowercase_first(&error.message), hint);
            return Vec::new();
        }
    };
    let mut statements = Vec::new();
    for tokens in tokens.split(|token| token.token == Token::SemiColon) {
        let is_code = |token: &&TokenWithSpan| !matches!(token.token, Token::Whitespace(_) | Token::EOF);
        let tokens = split_brackets(tokens.iter().filter(is_code).cloned().collect());
        let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else { continue };
        let (at, end) = (first.span.start, last.span.end);
        match statement(tokens.clone()) {
            Ok(statement) => statements.push(Parsed { file, statement, at, tokens }),
            Err(error) => report_error(&error, at, end, report),
        }
    }
    statements
}

/// Parts a `>>` that stands before `[` in two. sqlparser takes the `[]` of `STRUCT<a STRUCT<b INT>>[]` for the inner
/// struct's, which is another type than what is written; nothing is shifted by something that begins with a bracket.
fn split_brackets(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut parted = Vec::with_capacity(tokens.len());
    for (i, token) in tokens.iter().enumerate() {
        let before_bracket = tokens.get(i + 1).is_some_and(|next| next.token == Token::LBracket);
        if token.token == Token::ShiftRight && before_bracket {
            let (start, end) = (token.span.start, token.span.end);
            let middle = Location { line: start.line, column: start.column + 1 };
            parted.push(TokenWithSpan::new(Token::Gt, Span::new(start, middle)));
            parted.push(TokenWithSpan::new(Token::Gt, Span::new(middle, end)));
        } else {
            parted.push(token.clone());
        }
    }
    parted
}

fn statement(tokens: Vec<TokenWithSpan>) -> Result<Statement, ParserError> {
    let mut parser = Parser::new(&Dialect).with_tokens_with_locations(tokens);
    let statement = parser.parse_statement()?;
    let rest = parser.next_token();
    match rest.token {
        Token::EOF => Ok(statement),
        token => {
            Err(ParserError::ParserError(format!("Expected: end of statement, found: {token}{}", rest.span.start)))
        }
    }
}

fn report_error(error: &ParserError, at: Location, end: Location, report: &mut Report<'_>) {
    let message = match error {
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => message.as_str(),
        ParserError::RecursionLimitExceeded => {
            report.flaw::<()>(at, "the statement is nested too deeply", "write it with fewer parentheses");
            return;
        }
    };
    let (message, place) = split_place(message);
    // What ends too early has no place of its own: it is where the statement ends.
    let place = place.unwrap_or(if message.contains("found: EOF") { end } else { at });
    let message = message.replace("Expected: ", "expected ").replace(", found: ", ", but found ");
    let message = message.replace("but found EOF", "but the statement ends");
    if message.starts_with("expected a list of columns in parentheses") {
        let reason = "a word of SQL stands where a column's name is expected, and begins a constraint";
        report.flaw::<()>(place, reason, "write the column's name in quotes, such as `\"key\" TEXT`");
        return;
    }
    report.flaw::<()>(place, lowercase_first(&message), SHAPES);
}

/// Parts sqlparser's message from the place that it ends with.
fn split_place(message: &str) -> (&str, Option<Location>) {
    let Some((text, place)) = message.rsplit_once(" at Line: ") else { return (message, None) };
    let Some((line, column)) = place.split_once(", Column: ") else { return (message, None) };
    match (line.parse(), column.trim_end().parse()) {
        (Ok(line), Ok(column)) => (text, Some(Location { line, column })),
        _ => (message, None),
    }
}

fn lowercase_first(message: &str) -> String {
    let mut chars = message.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

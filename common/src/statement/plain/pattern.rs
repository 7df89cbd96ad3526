//! `LIKE … ESCAPE` and `SIMILAR TO`.

use sqlparser::ast::{BinaryOperator, Expr, Spanned, Value, ValueWithSpan};

use super::{Refusal, bare, binary, text};

/// The planner knows the backslash as the only escape.
pub(super) fn like(expression: &mut Expr) -> Result<(), Refusal> {
    let at = expression.span();
    let (Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. }) = expression else {
        return Ok(());
    };
    let Some(escape) = escape_char.as_ref().map(escape) else { return Ok(()) };
    let escape = escape.ok_or_else(|| not_one(at))?;
    if escape == Some('\\') {
        return Ok(());
    }
    let written = literal(pattern).ok_or_else(|| {
        Refusal::new(
            at,
            "the pattern of `LIKE … ESCAPE` is no text",
            "write the pattern as a text, or escape with `\\`",
        )
    })?;
    let mut plain = String::new();
    let mut characters = written.chars();
    while let Some(character) = characters.next() {
        let literal = match Some(character) == escape {
            true => characters.next().ok_or_else(|| unfinished(at))?,
            false if character == '\\' => character,
            false => {
                plain.push(character);
                continue;
            }
        };
        if matches!(literal, '%' | '_' | '\\') {
            plain.push('\\');
        }
        plain.push(literal);
    }
    **pattern = text(plain);
    *escape_char = None;
    Ok(())
}

/// The planner takes the pattern for a regular expression that may match anywhere.
pub(super) fn similar(expression: &mut Expr) -> Result<(), Refusal> {
    let at = expression.span();
    let Expr::SimilarTo { negated, expr, pattern, escape_char } = expression else { return Ok(()) };
    let escape = match escape_char.as_ref().map(escape) {
        None => Some('\\'),
        Some(escape) => escape.ok_or_else(|| not_one(at))?,
    };
    let written = literal(pattern).ok_or_else(|| {
        Refusal::new(at, "the pattern of `SIMILAR TO` is no text", "write the pattern as a text, or `x ~ expression`")
    })?;
    let mut regular = String::from("(?s)^(?:");
    let mut characters = written.chars();
    let mut in_class = false;
    while let Some(character) = characters.next() {
        if Some(character) == escape {
            let literal = characters.next().ok_or_else(|| unfinished(at))?;
            if !literal.is_alphanumeric() {
                regular.push('\\');
            }
            regular.push(literal);
            continue;
        }
        match character {
            '%' if !in_class => regular.push_str(".*"),
            '_' if !in_class => regular.push('.'),
            '.' | '$' | '\\' => regular.extend(['\\', character]),
            '^' if !in_class => regular.push_str("\\^"),
            character => {
                in_class = character == '[' || in_class && character != ']';
                regular.push(character);
            }
        }
    }
    regular.push_str(")$");
    let op = if *negated { BinaryOperator::PGRegexNotMatch } else { BinaryOperator::PGRegexMatch };
    *expression = Expr::Nested(Box::new(binary(expr.as_ref().clone(), op, text(regular))));
    Ok(())
}

/// `Some(None)` for `ESCAPE ''`, which escapes nothing; `None` for more than a character.
fn escape(written: &ValueWithSpan) -> Option<Option<char>> {
    let Value::SingleQuotedString(written) = &written.value else { return None };
    let mut characters = written.chars();
    match (characters.next(), characters.next()) {
        (first, None) => Some(first),
        _ => None,
    }
}

fn literal(pattern: &Expr) -> Option<&str> {
    match bare(pattern) {
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(written), .. }) => Some(written),
        _ => None,
    }
}

fn not_one(at: sqlparser::tokenizer::Span) -> Refusal {
    Refusal::new(at, "`ESCAPE` is not one character", "write one, such as `ESCAPE '!'`")
}

fn unfinished(at: sqlparser::tokenizer::Span) -> Refusal {
    Refusal::new(at, "the pattern ends with its escape character", "write that character twice")
}

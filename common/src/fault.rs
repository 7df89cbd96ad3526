//! What kind of failure an error is: HTTP status, exit code and whether to try again follow from it.

use std::{borrow::Cow, error::Error};

/// Whose failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// The caller's: the same request fails again.
    User,
    /// Something outside Lamina (broker, object store): it may pass.
    External,
    /// Lamina's own: a defect.
    Internal,
}

/// An error that says what kind of failure it is.
pub trait Fault: Error {
    /// Whose failure it is.
    fn domain(&self) -> Domain;

    /// Whether the same call may succeed later.
    fn retryable(&self) -> bool {
        self.domain() == Domain::External
    }
}

/// The error and everything beneath it, in one line, each cause once.
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}

/// A text for people, in which characters that nobody sees (control characters, marks of byte order and of direction) are
/// written by their number, such as `\u{feff}`. Lines stay lines.
pub fn visible(text: &str) -> Cow<'_, str> {
    let is_hidden = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match is_hidden(c) {
            true => shown.extend(c.escape_unicode()),
            false => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_sees_is_written_by_its_number() {
        assert_eq!(visible("größe\n`x`"), "größe\n`x`");
        assert_eq!(visible("\u{feff}{\0\t}\u{202e}"), "\\u{feff}{\\u{0}\\u{9}}\\u{202e}");
    }
}

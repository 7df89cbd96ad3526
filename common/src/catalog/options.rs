//! `WITH (name = value, …)`.

use std::time::Duration;

use sqlparser::{
    ast::{CreateTableOptions, Expr, Ident, Spanned, SqlOption, UnaryOperator, Value},
    tokenizer::Location,
};

use super::{canonical::folded, faults::Report, near, source::Parsed};

/// The longest name that a topic can have in Kafka.
const TOPIC_LENGTH_MAX: usize = 249;
/// More partitions than a topic of one dataset has any use for: it catches a slip of the finger.
const PARTITIONS_MAX: i32 = 10_000;
const REFRESH_SHORTEST: Duration = Duration::from_secs(1);
const REFRESH_HINT: &str = "write `refresh = '5 minutes'` or `refresh = 'never'`";

/// The options of a statement, each once and each known.
#[derive(Debug)]
pub(super) struct Options<'a> {
    found: Vec<(String, Given<'a>)>,
}

/// What an option is given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given<'a> {
    value: &'a Expr,
    /// Where the value is.
    pub(super) at: Location,
}

impl<'a> Options<'a> {
    /// Reads the options; those that are not `known`, or there twice, are reported.
    pub(super) fn read(
        options: &'a CreateTableOptions,
        known: &[&str],
        parsed: &Parsed,
        report: &mut Report<'_>,
    ) -> Self {
        let hint = format!("write `WITH (…)` with {}", listed(known));
        let given: &[SqlOption] = match options {
            CreateTableOptions::None => &[],
            CreateTableOptions::With(options) => options,
            CreateTableOptions::Options(_) => {
                report.flaw::<()>(parsed.word_after(parsed.at, "OPTIONS"), "`OPTIONS (…)` is not known", hint);
                &[]
            }
            CreateTableOptions::TableProperties(_) => {
                report.flaw::<()>(parsed.word_after(parsed.at, "TBLPROPERTIES"), "`TBLPROPERTIES` is not known", hint);
                &[]
            }
            CreateTableOptions::Plain(options) => {
                let text = options.first().map(ToString::to_string).unwrap_or_default();
                let word = text.split([' ', '=']).next().unwrap_or_default();
                report.flaw::<()>(parsed.word_after(parsed.at, word), format!("`{text}` is not known"), hint);
                &[]
            }
        };
        let mut found: Vec<(String, Given<'a>)> = Vec::new();
        for option in given {
            let SqlOption::KeyValue { key, value } = option else {
                report.flaw::<()>(
                    parsed.word_after(parsed.at, "WITH"),
                    format!("option `{option}` has no value"),
                    listed_hint(known),
                );
                continue;
            };
            let name = folded(key);
            if !known.contains(&name.as_str()) {
                let hint = near::did_you_mean(&name, known.iter().copied()).unwrap_or_else(|| listed_hint(known));
                report.flaw::<()>(key.span.start, format!("option `{name}` is not known"), hint);
            } else if found.iter().any(|(other, _)| *other == name) {
                report.flaw::<()>(key.span.start, format!("option `{name}` is there twice"), "remove one of them");
            } else {
                found.push((name, Given { value, at: place(key, value) }));
            }
        }
        Self { found }
    }

    pub(super) fn get(&self, name: &str) -> Option<Given<'a>> {
        self.found.iter().find(|(found, _)| found == name).map(|(_, given)| *given)
    }

    /// The topic, by default the table's name.
    pub(super) fn topic(&self, table: &str, at: Location, report: &mut Report<'_>) -> Option<String> {
        let (topic, at) = match self.get("topic") {
            Some(given) => (given.text("topic", "write `topic = 'name'`", report)?, given.at),
            None => (table.to_owned(), at),
        };
        let is_name = !topic.is_empty()
            && topic.len() <= TOPIC_LENGTH_MAX
            && !matches!(topic.as_str(), "." | "..")
            && topic.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
        if !is_name {
            let hint =
                format!("use up to {TOPIC_LENGTH_MAX} letters, digits, `.`, `_` and `-`: `WITH (topic = 'name')`");
            return report.flaw(at, format!("`{topic}` cannot be a topic's name"), hint);
        }
        Some(topic)
    }

    /// The format, which can only be JSON yet.
    pub(super) fn format(&self, report: &mut Report<'_>) -> Option<()> {
        let Some(given) = self.get("format") else { return Some(()) };
        let hint = "write `format = 'json'`";
        let format = given.text("format", hint, report)?;
        if format != "json" {
            return report.flaw(given.at, format!("format `{format}` is not known"), hint);
        }
        Some(())
    }

    /// How many partitions a topic gets where Lamina creates it.
    pub(super) fn partitions(&self, report: &mut Report<'_>) -> Option<i32> {
        const DEFAULT: i32 = 4;
        let Some(given) = self.get("partitions") else { return Some(DEFAULT) };
        let text = match literal(given.value) {
            Some(Value::Number(text, _) | Value::SingleQuotedString(text)) => Some(text),
            _ => None,
        };
        match text.and_then(|text| text.parse().ok()) {
            Some(partitions @ 1..=PARTITIONS_MAX) => Some(partitions),
            _ => report.flaw(
                given.at,
                format!("`{}` is no number of partitions", given.value),
                format!("write a whole number from 1 to {PARTITIONS_MAX}, as `partitions = {DEFAULT}`"),
            ),
        }
    }

    /// How often a view is recomputed; `Some(None)` for never.
    pub(super) fn refresh(&self, report: &mut Report<'_>) -> Option<Option<Duration>> {
        const DEFAULT: Duration = Duration::from_secs(60);
        let Some(given) = self.get("refresh") else { return Some(Some(DEFAULT)) };
        let text = given.text("refresh", REFRESH_HINT, report)?;
        if text.trim().eq_ignore_ascii_case("never") {
            return Some(None);
        }
        match humantime::parse_duration(text.trim()) {
            Ok(refresh) if refresh >= REFRESH_SHORTEST => Some(Some(refresh)),
            Ok(_) => report.flaw(given.at, format!("refresh `{text}` is shorter than a second"), REFRESH_HINT),
            Err(_) => report.flaw(given.at, format!("refresh `{text}` is no time span"), REFRESH_HINT),
        }
    }
}

impl Given<'_> {
    /// The string that the option is given.
    pub(super) fn text(&self, name: &str, hint: &str, report: &mut Report<'_>) -> Option<String> {
        match literal(self.value) {
            Some(Value::SingleQuotedString(text)) => Some(text.clone()),
            _ => report.flaw(self.at, format!("option `{name}` must be a string, not `{}`", self.value), hint),
        }
    }
}

fn literal(expression: &Expr) -> Option<&Value> {
    match expression {
        Expr::Value(value) => Some(&value.value),
        _ => None,
    }
}

/// Where an option's value is, as far as the parser has kept it.
fn place(key: &Ident, value: &Expr) -> Location {
    let value = match value {
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => expr.span(),
        value => value.span(),
    };
    if value.start.line > 0 { value.start } else { key.span.start }
}

fn listed(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

fn listed_hint(known: &[&str]) -> String {
    format!("the options are {}", listed(known))
}

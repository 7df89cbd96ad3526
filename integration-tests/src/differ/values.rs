//! Values at the edges of every type, as text: in events and as literals.

use super::{
    features::Features,
    sql::{Node, Texts},
};

/// The columns of the dataset: its name, its type's letter, and whether it must be there.
pub(super) const COLUMNS: &[(&str, char, bool)] = &[
    ("id", 'l', true),
    ("b", 'b', false),
    ("s", 's', false),
    ("i", 'i', false),
    ("l", 'l', false),
    ("r", 'r', false),
    ("d", 'd', false),
    ("f", 'f', false),
    ("g", 'f', false),
    ("n", 'n', false),
    ("p", 'p', false),
    ("t", 't', false),
    ("u", 't', false),
    ("x", 'x', false),
    ("day", 'D', false),
    ("ts", 'T', false),
    ("tz", 'Z', false),
];

/// The type's name by its letter.
pub(super) fn type_name(kind: char, postgres: bool) -> &'static str {
    match kind {
        'b' => "BOOLEAN",
        's' => "SMALLINT",
        'i' => "INT",
        'r' => "REAL",
        'd' | 'f' if postgres => "DOUBLE PRECISION",
        'd' | 'f' => "DOUBLE",
        'n' => "DECIMAL(12,2)",
        'p' => "DECIMAL(20,4)",
        'e' => "DECIMAL(38,4)",
        't' => "TEXT",
        'x' => "BYTEA",
        'D' => "DATE",
        'T' => "TIMESTAMP",
        'Z' => "TIMESTAMPTZ",
        _ => "BIGINT",
    }
}

/// The values of each type that a world uses: few, so that they meet.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    by_kind: Vec<(char, Vec<String>)>,
}

impl Pool {
    /// Some of each type's values.
    pub(super) fn draw(random: &mut fastrand::Rng, features: &Features) -> Self {
        let by_kind = "bsilrdfnptxDTZ".chars().map(|kind| {
            let mut all = edges(kind, features);
            random.shuffle(&mut all);
            all.truncate(random.usize(4..9));
            (kind, all)
        });
        Self { by_kind: by_kind.collect() }
    }

    /// One value, or none, which is NULL.
    pub(super) fn value(&self, kind: char, random: &mut fastrand::Rng) -> Option<&str> {
        let kind = if kind == 'e' { 'n' } else { kind };
        let (_, values) = self.by_kind.iter().find(|(known, _)| *known == kind)?;
        if random.u8(0..8) == 0 {
            return None;
        }
        values.get(random.usize(0..values.len())).map(String::as_str)
    }

    /// A literal.
    pub(super) fn literal(&self, kind: char, random: &mut fastrand::Rng) -> Node {
        // NULL seldom: it swallows what it is in.
        let value = self.value(kind, random).or_else(|| self.value(kind, random));
        literal(kind, value)
    }
}

fn edges(kind: char, features: &Features) -> Vec<String> {
    let mut all: Vec<&str> = match kind {
        'b' => vec!["true", "false"],
        's' | 'i' | 'l' => vec!["0", "1", "-1", "2", "3", "7", "-7", "10", "100"],
        'r' => vec!["0.0", "1.5", "-1.5", "0.1", "7.0", "0.03125", "16777216.0"],
        'd' => vec!["0.0", "1.5", "-1.5", "0.1", "7.0", "0.0009765625", "1e15", "-2.5"],
        'f' => vec!["0.0", "0.125", "1.5", "-1.5", "2.5", "-0.5", "7.0", "100.25", "-1000.875"],
        'n' => vec!["0.00", "0.01", "-0.01", "12.50", "1.00", "99.99", "-7.25"],
        'p' => vec!["0.0000", "0.0001", "-0.0001", "12.5000", "1.0050", "-7.2500"],
        't' => vec![
            "",
            "a",
            "A",
            "ab",
            "abb",
            "b",
            " a ",
            "it's",
            "%",
            "a_b",
            "12",
            "null",
            "\u{fc}",
            "\u{10ffff}",
            "\"q\"",
            "a\nb",
        ],
        'x' => vec!["", "00", "ab", "ab00", "ff", "fb74"],
        'D' => vec!["1970-01-01", "2026-01-03", "2026-02-28", "2024-02-29", "1969-12-31", "2026-01-31"],
        _ => vec![
            "1970-01-01T00:00:00",
            "2026-01-03T00:00:00",
            "2026-01-03T00:00:00.000001",
            "2026-03-29T00:59:59.999999",
            "2026-03-29T01:30:00",
            "2026-10-25T00:30:00",
            "1969-12-31T23:59:59.5",
            "2024-02-29T12:00:00",
        ],
    };
    if features.has("nan") && matches!(kind, 'r' | 'd') {
        all.extend(["NaN", "Infinity", "-Infinity", "NaN"]);
    }
    if features.has("zero") && matches!(kind, 'r' | 'd') {
        all.extend(["-0.0", "-0.0"]);
    }
    if features.has("overflow") {
        all.extend::<&[&str]>(match kind {
            's' => &["32767", "-32768"],
            'i' => &["2147483647", "-2147483648", "100000"],
            'l' => &["9223372036854775807", "-9223372036854775808", "4294967296"],
            'n' => &["9999999999.99", "-9999999999.99"],
            'p' => &["9999999999999999.9999", "100000000000000.0001", "100000000000000.0002"],
            'r' => &["3.4028235e38"],
            'd' => &["1.7976931348623157e308", "-1.7976931348623157e308"],
            _ => &[],
        });
    }
    if features.has("far_times") {
        all.extend::<&[&str]>(match kind {
            'D' => &["9999-12-31", "0001-01-01", "1582-10-10"],
            'T' | 'Z' => {
                &["9999-12-31T23:59:59.999999", "9999-12-31T00:00:00", "0001-01-01T00:00:00", "1600-02-29T00:00:00"]
            }
            _ => &[],
        });
    }
    all.into_iter().map(str::to_owned).collect()
}

/// A value as an event has it.
pub(super) fn json(kind: char, value: &str, random: &mut fastrand::Rng) -> String {
    match kind {
        'b' => value.to_owned(),
        's' | 'i' | 'l' | 'n' | 'p' if random.u8(0..4) > 0 => value.to_owned(),
        'r' | 'd' | 'f' if !value.contains(['N', 'I']) => value.to_owned(),
        'Z' => format!("\"{value}Z\""),
        _ => serde_json::Value::String(value.to_owned()).to_string(),
    }
}

/// A value as each engine writes it; `None` is NULL.
pub(super) fn literal(kind: char, value: Option<&str>) -> Node {
    let sql: Texts<String> = std::array::from_fn(|dialect| {
        let name = type_name(kind, dialect == 3);
        let Some(value) = value else { return format!("CAST(NULL AS {name})") };
        let quoted = format!("'{}'", value.replace('\'', "''"));
        match (kind, dialect) {
            ('b', _) => value.to_owned(),
            ('t', _) => quoted,
            ('l', 0 | 1) if !value.starts_with('-') => value.to_owned(),
            ('x', 0 | 1) => format!("X'{value}'"),
            ('x', 2) => format!("from_hex('{value}')"),
            ('x', _) => format!("'\\x{value}'::bytea"),
            ('D', _) => format!("DATE {quoted}"),
            ('T', _) => format!("TIMESTAMP {quoted}"),
            ('Z', _) => format!("CAST('{value}Z' AS TIMESTAMPTZ)"),
            _ => format!("CAST({quoted} AS {name})"),
        }
    });
    Node::Leaf { kind, sql }
}

//! Expressions as trees, written in each engine's words.

use super::query::Query;

/// Whose words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// A view's definition and queries over it.
    Lamina,
    /// Lamina's own over the plain events, where an order has to be total by itself.
    Plain,
    /// DuckDB.
    Duck,
    /// PostgreSQL.
    Postgres,
}

/// One text for each dialect, in their order.
pub(super) type Texts<T> = [T; 4];

/// A function or operator: `{0}` is its first argument, `{f}` where an aggregate's filter goes.
///
/// Types are letters: `b`ool, `s`mallint, `i`nt, `l` (BIGINT), `r`eal, `d`ouble, `f` (DOUBLE of few digits, whose sums
/// are exact), `n` DECIMAL(12,2), `p` DECIMAL(20,4), `e` (a decimal of any scale), `t`ext, `x` (BYTEA), `D`ate,
/// `T`imestamp, `Z` (TIMESTAMPTZ), `L` (INT[]). `*` is any of them, the same wherever it stands. Only given out are `a`
/// (within a tolerance), `h` (within the error of `approx_distinct`), `g` (digests: only whether it is null).
#[derive(Debug)]
pub(super) struct Op {
    /// The type of its result.
    pub gives: char,
    /// The types of its arguments.
    pub takes: &'static str,
    /// How it is written.
    pub sql: Texts<&'static str>,
    /// The feature that it belongs to.
    pub needs: &'static str,
}

/// An operator that is written alike everywhere.
pub(super) const fn op(gives: char, takes: &'static str, sql: &'static str) -> Op {
    Op { gives, takes, sql: [sql; 4], needs: "" }
}

impl Op {
    pub(super) const fn plain(mut self, sql: &'static str) -> Self {
        self.sql[1] = sql;
        self
    }

    pub(super) const fn duck(mut self, sql: &'static str) -> Self {
        self.sql[2] = sql;
        self
    }

    pub(super) const fn postgres(mut self, sql: &'static str) -> Self {
        self.sql[3] = sql;
        self
    }

    pub(super) const fn needs(mut self, feature: &'static str) -> Self {
        self.needs = feature;
        self
    }
}

/// An expression.
#[derive(Clone, Debug)]
pub(super) enum Node {
    /// A column or a literal.
    Leaf { kind: char, sql: Texts<String> },
    /// An operator or function over others; `kind` is what `*` stands for.
    Call { op: &'static Op, kind: char, args: Vec<Node>, filter: Option<Box<Node>> },
    /// A subquery, at `{q}` of the text.
    Sub { sql: &'static str, kind: char, args: Vec<Node>, query: Box<Query> },
}

impl Node {
    /// A column, called alike everywhere.
    pub(super) fn column(kind: char, name: &str) -> Self {
        Self::Leaf { kind, sql: std::array::from_fn(|_| name.to_owned()) }
    }

    /// What it gives.
    pub(super) fn kind(&self) -> char {
        match self {
            Self::Leaf { kind, .. } | Self::Sub { kind, .. } => *kind,
            Self::Call { op, kind, .. } if op.gives == '*' => *kind,
            Self::Call { op, .. } => op.gives,
        }
    }

    /// In a dialect's words.
    pub(super) fn sql(&self, dialect: Dialect) -> String {
        match self {
            Self::Leaf { sql, .. } => sql[dialect as usize].clone(),
            Self::Call { op, args, filter, .. } => {
                let filter = filter.as_ref().map(|filter| format!(" FILTER (WHERE {})", filter.sql(dialect)));
                let text = fill(op.sql[dialect as usize], args, dialect);
                text.replace("{f}", filter.as_deref().unwrap_or_default())
            }
            Self::Sub { sql, args, query, .. } => fill(&sql.replace("{q}", &query.sql(dialect)), args, dialect),
        }
    }

    /// The same with something less in it, the smallest first.
    pub(super) fn smaller(&self) -> Vec<Self> {
        let mut all = Vec::new();
        let (Self::Call { args, .. } | Self::Sub { args, .. }) = self else { return all };
        all.extend(args.iter().filter(|arg| arg.kind() == self.kind()).cloned());
        for (i, arg) in args.iter().enumerate() {
            for less in arg.smaller() {
                let mut node = self.clone();
                if let Self::Call { args, .. } | Self::Sub { args, .. } = &mut node {
                    args[i] = less;
                }
                all.push(node);
            }
        }
        if let Self::Call { op, kind, args, filter: Some(filter) } = self {
            let with = |filter| Self::Call { op, kind: *kind, args: args.clone(), filter };
            all.push(with(None));
            all.extend(filter.smaller().into_iter().map(|less| with(Some(Box::new(less)))));
        }
        if let Self::Sub { sql, kind, args, query } = self {
            let with = |query| Self::Sub { sql, kind: *kind, args: args.clone(), query: Box::new(query) };
            all.extend(query.smaller().into_iter().map(with));
        }
        all
    }

    /// The aggregates in it.
    pub(super) fn aggregates(&self, found: &mut Vec<Self>) {
        match self {
            Self::Call { op, .. } if op.sql[0].contains("{f}") => found.push(self.clone()),
            Self::Call { args, .. } | Self::Sub { args, .. } => args.iter().for_each(|arg| arg.aggregates(found)),
            Self::Leaf { .. } => {}
        }
    }

    /// Whether a name occurs in it.
    pub(super) fn mentions(&self, name: &str) -> bool {
        self.sql(Dialect::Lamina).contains(name)
    }
}

/// The text with its arguments in their places.
fn fill(text: &str, args: &[Node], dialect: Dialect) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        filled.push_str(&rest[..at]);
        let number = rest[at + 1..].chars().next().and_then(|digit| digit.to_digit(10));
        match number.and_then(|number| args.get(usize::try_from(number).ok()?)) {
            Some(arg) if rest[at + 2..].starts_with('}') => {
                filled.push_str(&arg.sql(dialect));
                rest = &rest[at + 3..];
            }
            _ => {
                filled.push('{');
                rest = &rest[at + 1..];
            }
        }
    }
    filled.push_str(rest);
    filled
}

//! Queries, and views as what they are: queries over the events.

use super::sql::{Dialect, Node};

/// What a query reads.
#[derive(Clone, Debug)]
pub(super) enum From {
    /// A view, or the dataset.
    Table { name: String, alias: &'static str },
    /// Two of them.
    Join { left: String, right: String, how: &'static str, on: Node },
    /// Another query, called `s`.
    Query(Box<Query>),
}

/// One query.
#[derive(Clone, Debug)]
pub(super) struct Query {
    /// Group keys, if it is `grouped`; else just the first columns.
    pub keys: Vec<(Node, String)>,
    /// The other columns.
    pub outputs: Vec<(Node, String)>,
    pub distinct: bool,
    pub from: From,
    pub filter: Option<Node>,
    pub grouped: bool,
    pub having: Option<Node>,
    /// `UNION` and the like with another query.
    pub also: Option<(&'static str, Box<Query>)>,
    /// By all columns, so that the order is total.
    pub ordered: bool,
    /// `LIMIT` and `OFFSET`.
    pub limit: Option<(usize, usize)>,
}

impl Query {
    /// All rows of a table, so far with no columns.
    pub(super) fn over(name: &str, alias: &'static str) -> Self {
        Self {
            keys: Vec::new(),
            outputs: Vec::new(),
            distinct: false,
            from: From::Table { name: name.to_owned(), alias },
            filter: None,
            grouped: false,
            having: None,
            also: None,
            ordered: false,
            limit: None,
        }
    }

    /// Its columns: their expressions and names.
    pub(super) fn columns(&self) -> impl Iterator<Item = &(Node, String)> {
        self.keys.iter().chain(&self.outputs)
    }

    /// The types of its columns.
    pub(super) fn kinds(&self) -> Vec<char> {
        self.columns().map(|(node, _)| node.kind()).collect()
    }

    /// Whether a name occurs in it.
    pub(super) fn mentions(&self, name: &str) -> bool {
        self.sql(Dialect::Lamina).contains(name)
    }

    /// For a view: what is computed from each event by itself. An event for which this fails is none of the view's.
    pub(super) fn of_each_event(&self, dialect: Dialect) -> String {
        let mut aggregates = Vec::new();
        self.outputs.iter().for_each(|(node, _)| node.aggregates(&mut aggregates));
        self.having.iter().for_each(|node| node.aggregates(&mut aggregates));
        let mut values: Vec<String> = self.keys.iter().map(|(key, _)| key.sql(dialect)).collect();
        for aggregate in &aggregates {
            let Node::Call { args, filter, .. } = aggregate else { continue };
            let when = filter.as_ref().map_or_else(|| "true".to_owned(), |filter| filter.sql(dialect));
            values.extend(args.iter().map(|arg| format!("CASE WHEN {when} THEN {} END", arg.sql(dialect))));
        }
        let values = if values.is_empty() { "1".to_owned() } else { values.join(", ") };
        let filter = self.filter.as_ref().map_or_else(|| "true".to_owned(), |filter| filter.sql(dialect));
        format!("SELECT {values} FROM {} WHERE {filter}", self.from.sql(dialect))
    }

    /// In a dialect's words.
    pub(super) fn sql(&self, dialect: Dialect) -> String {
        let columns: Vec<String> =
            self.columns().map(|(node, name)| format!("{} AS {name}", node.sql(dialect))).collect();
        let distinct = if self.distinct { "DISTINCT " } else { "" };
        let mut sql = format!("SELECT {distinct}{} FROM {}", columns.join(", "), self.from.sql(dialect));
        if let Some(filter) = &self.filter {
            sql.push_str(&format!(" WHERE {}", filter.sql(dialect)));
        }
        if self.grouped && !self.keys.is_empty() {
            let keys: Vec<String> = (1..=self.keys.len()).map(|at| at.to_string()).collect();
            sql.push_str(&format!(" GROUP BY {}", keys.join(", ")));
        }
        if let Some(having) = &self.having {
            sql.push_str(&format!(" HAVING {}", having.sql(dialect)));
        }
        if let Some((how, other)) = &self.also {
            sql.push_str(&format!(" {how} {}", other.sql(dialect)));
        }
        if self.ordered {
            let nulls = if dialect == Dialect::Duck { [" NULLS LAST", " NULLS FIRST"] } else { ["", ""] };
            let order =
                |at: usize| if at % 2 == 1 { format!("{at}{}", nulls[0]) } else { format!("{at} DESC{}", nulls[1]) };
            let keys: Vec<String> = (1..=columns.len()).map(order).collect();
            sql.push_str(&format!(" ORDER BY {}", keys.join(", ")));
        }
        if let Some((limit, offset)) = self.limit {
            sql.push_str(&format!(" LIMIT {limit}"));
            if offset > 0 {
                sql.push_str(&format!(" OFFSET {offset}"));
            }
        }
        sql
    }

    /// The same with something less, the smallest first.
    pub(super) fn smaller(&self) -> Vec<Self> {
        let mut all = Vec::new();
        let mut with = |change: &dyn Fn(&mut Self)| {
            let mut query = self.clone();
            change(&mut query);
            all.push(query);
        };
        if self.also.is_some() {
            with(&|query| query.also = None);
        }
        if self.filter.is_some() {
            with(&|query| query.filter = None);
        }
        if self.having.is_some() {
            with(&|query| query.having = None);
        }
        if self.limit.is_some() {
            with(&|query| query.limit = None);
        }
        if self.ordered && self.limit.is_none() {
            with(&|query| query.ordered = false);
        }
        if self.distinct {
            with(&|query| query.distinct = false);
        }
        if self.columns().count() > 1 && self.also.is_none() {
            for at in 0..self.outputs.len() {
                with(&|query| drop(query.outputs.remove(at)));
            }
            for at in 0..self.keys.len() {
                with(&|query| drop(query.keys.remove(at)));
            }
        }
        if let From::Join { left, right, .. } = &self.from {
            let (left, right) = (left.clone(), right.clone());
            with(&|query| query.from = From::Table { name: left.clone(), alias: "a" });
            with(&|query| query.from = From::Table { name: right.clone(), alias: "b" });
        }
        if let From::Query(inner) = &self.from {
            for less in inner.smaller() {
                with(&|query| query.from = From::Query(Box::new(less.clone())));
            }
        }
        for less in self.filter.iter().flat_map(Node::smaller) {
            with(&|query| query.filter = Some(less.clone()));
        }
        for less in self.having.iter().flat_map(Node::smaller) {
            with(&|query| query.having = Some(less.clone()));
        }
        for (at, (node, _)) in self.outputs.iter().enumerate() {
            for less in node.smaller() {
                with(&|query| query.outputs[at].0 = less.clone());
            }
        }
        for (at, (node, _)) in self.keys.iter().enumerate() {
            for less in node.smaller() {
                with(&|query| query.keys[at].0 = less.clone());
            }
        }
        all
    }
}

impl From {
    fn sql(&self, dialect: Dialect) -> String {
        match self {
            Self::Table { name, alias: "" } => name.clone(),
            Self::Table { name, alias } => format!("{name} {alias}"),
            Self::Join { left, right, how, on } => {
                format!("{left} a {how} JOIN {right} b ON {}", on.sql(dialect))
            }
            Self::Query(query) => format!("({}) s", query.sql(dialect)),
        }
    }
}
